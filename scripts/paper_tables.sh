#!/bin/sh
# Params and MAdds of every network of the paper that the configs build, next to the paper's figures.
#   scripts/paper_tables.sh
# Takes seconds, no data and no GPU; exits with 1 where a figure is not the paper's.
set -eu
. "$(dirname -- "$0")/setup.sh"
exec "$PYTHON" -m engine.tables paper "$@"
