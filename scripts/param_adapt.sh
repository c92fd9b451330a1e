#!/bin/sh
# Parameter adaptation: fine-tune a network that is remapped from the seed.
#   scripts/param_adapt.sh [CONFIG] [GPUS] [options of engine/train.py ...]
# Without arguments: RetinaNet with the published FNA backbone on COCO, on 8 GPUs.
set -eu
. "$(dirname -- "$0")/setup.sh"
exec "$PYTHON" -m engine.launch engine.train \
    "$REPO/configs/fna_det/retinanet_param_adapt_coco.py" 8 "$@"
