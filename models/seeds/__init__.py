"""Foreign seed files brought to the form of models/seed.py; only scripts/get_seed.sh runs this.

``released.py`` is also the border to the paper's released checkpoints, whose numbering it knows.
"""
