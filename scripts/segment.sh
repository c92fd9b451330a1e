#!/bin/sh
# Segmentation of images of your own, with a trained segmentor.
#   scripts/segment.sh CONFIG CHECKPOINT IMAGE|FOLDER ... [--out DIR] [--device cpu]
# DIR/pictures has the images in the classes' colours, DIR/labels each pixel's class, DIR/results.json
# the classes' shares.
set -eu
. "$(dirname -- "$0")/setup.sh"
exec "$PYTHON" -m engine.infer segment "$@"
