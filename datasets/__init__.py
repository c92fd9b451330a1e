"""Data sets of this project; so far the embedded one, drawn on the spot: `datasets.toy_city`."""
