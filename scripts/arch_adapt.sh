#!/bin/sh
# Architecture adaptation: search a backbone on the target task, from a remapped seed.
#   scripts/arch_adapt.sh [CONFIG] [GPUS] [options of engine/train.py ...]
# Without arguments: RetinaNet on COCO, on 8 GPUs. WORK_DIR/net_config.txt is what param_adapt.sh
# takes as --net-config.
set -eu
. "$(dirname -- "$0")/setup.sh"
exec "$PYTHON" -m engine.launch engine.train \
    "$REPO/configs/fna_det/retinanet_arch_adapt_coco.py" 8 "$@"
