#!/bin/sh
# Evaluation of a checkpoint.
#   scripts/test.sh [CONFIG] [CHECKPOINT] [GPUS] [options of engine/test.py ...]
# Without arguments: the last checkpoint of scripts/param_adapt.sh, on 1 GPU.
set -eu
. "$(dirname -- "$0")/setup.sh"
exec "$PYTHON" -m engine.launch engine.test \
    "$REPO/configs/fna_det/retinanet_fna_param_adapt.py" 1 "$@"
