#!/bin/sh
# Export of a trained network to one file that ONNX Runtime runs without this project.
#   scripts/export.sh CONFIG CHECKPOINT [--out F.onnx] [--raw] [--dynamic] [--net-config F]
#       [--data-root FOLDER | --images FILE|FOLDER ...] [--cfg-options ...]
# It is compared with PyTorch on test images before it is kept; ends with lines of Python that run it.
set -eu
. "$(dirname -- "$0")/setup.sh"
exec "$PYTHON" -m engine.export "$@"
