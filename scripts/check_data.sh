#!/bin/sh
# Check the data of a config before training: read every image and annotation of every split.
#   scripts/check_data.sh CONFIG [--show-dir FOLDER] [--data-root FOLDER] [--cfg-options ...]
# --show-dir draws 20 augmented training images with their boxes or labels. Exit status 2 if
# something is wrong.
set -eu
. "$(dirname -- "$0")/setup.sh"
exec "$PYTHON" -m engine.check_data "$@"
