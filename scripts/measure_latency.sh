#!/bin/sh
# The latency of every op of a search space on this device, and a check of what it predicts.
#   scripts/measure_latency.sh CONFIG [GPUS] --out FILE [--backend onnxruntime|torch] [--threads N]
#       [--batch B] [--repeats R] [--input-size H W] [--picture FILE] [--networks N]
# CONFIG is a search's. On 1 GPU, or on CPU where there is none or GPUS is 0. A search takes FILE as
# cost=dict(type="Latency", table=FILE, target=...): docs/latency.md.
set -eu
. "$(dirname -- "$0")/setup.sh"
exec "$PYTHON" -m engine.launch search.measure_latency \
    "$REPO/configs/fna_det/retinanet_arch_adapt_coco.py" 1 "$@"
