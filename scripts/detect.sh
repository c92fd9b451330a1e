#!/bin/sh
# Detection in images of your own, with a trained detector.
#   scripts/detect.sh CONFIG CHECKPOINT IMAGE|FOLDER ... [--out DIR] [--score 0.3] [--device cpu]
# DIR/pictures has the images with boxes, DIR/results.json the boxes.
set -eu
. "$(dirname -- "$0")/setup.sh"
exec "$PYTHON" -m engine.infer detect "$@"
