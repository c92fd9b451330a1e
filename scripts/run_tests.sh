#!/bin/sh
# Install what is needed, check the style, run the tests.
#   scripts/run_tests.sh [options of pytest ...]
set -eu
. "$(dirname -- "$0")/setup.sh"
cd "$REPO"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
exec "$PYTHON" -m pytest "$@"
