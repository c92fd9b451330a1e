#!/bin/sh
# The whole method on the embedded data set, in minutes on two CPU cores: seed, architecture
# adaptation, parameter adaptation, evaluation, one table.
#   scripts/quickstart.sh [det | ssdlite | seg | all] [--seed N] [options of engine/quickstart.py ...]
# det, the default, is RetinaNet, seg DeepLabv3. Run it again to resume after an interruption;
# finished steps are reused.
set -eu
. "$(dirname -- "$0")/setup.sh"
# the steps are forks, and CUDA does not survive one once it has been asked for its GPUs
export PYTORCH_NVML_BASED_CUDA_CHECK=1
exec "$PYTHON" -m engine.quickstart "$@"
