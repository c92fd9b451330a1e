#!/bin/sh
# Install what is needed, check the style, run the tests.
#   scripts/run_tests.sh [options of pytest ...]
set -eu
. "$(dirname -- "$0")/setup.sh"
cd "$REPO"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
# several at a time, each with one thread; more processes would only fill the memory
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$PYTHON" -m pytest --numprocesses auto --maxprocesses 4 --dist loadscope "$@"
