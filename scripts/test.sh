#!/bin/sh
# Evaluation of a checkpoint.
#   scripts/test.sh [CONFIG] [CHECKPOINT] [GPUS] [options of engine/test.py ...]
# Without CHECKPOINT: the last one in the config's default work dir; without CONFIG: the published
# RetinaNet FNA's. On 1 GPU, or on CPU where there is none.
set -eu
. "$(dirname -- "$0")/setup.sh"
exec "$PYTHON" -m engine.launch engine.test \
    "$REPO/configs/fna_det/retinanet_param_adapt_coco.py" 1 "$@"
