# Sourced by the other scripts: sets REPO (the repository) and PYTHON (the interpreter to use).
#
# PYTHON is that of $VENV where that is set, else of the active environment if it holds the packages,
# else of the repository's own .venv. A virtual environment that is not there, or older than
# requirements.txt, is installed first.

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
export PYTHONPATH="$REPO${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1 # a folder "models" where the caller stands is not ours

fail() {
    echo "error: $*" >&2
    exit 2
}

find_python() {
    # first that of an environment which is there already: its packages are of that version
    for python in "$1/bin/python" python3 python3.14 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    return 1
}

install_requirements() {
    python=$(find_python "$1") || fail "no Python 3.11 to 3.14 found; install one (Debian: apt install python3 python3-venv)"
    echo "Installing requirements.txt into $1 (4-6 GB, some minutes) ..."
    "$python" -m venv "$1" || fail "cannot make a virtual environment in $1 (Debian: apt install python3-venv)"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check -r "$REPO/requirements.txt" ||
        fail "pip could not install requirements.txt into $1; the same command tries again"
    # The mm packages ask for opencv-python, which needs a desktop's libraries (libGL). The headless
    # build of the same version holds the same module; it must be the one written last.
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall \
        "$(grep '^opencv-python-headless' "$REPO/requirements.txt")" ||
        fail "pip could not install opencv-python-headless into $1; the same command tries again"
    # written last: what is there without it was interrupted
    cp "$REPO/requirements.txt" "$1/requirements.installed"
}

if [ -z "${VENV:-}" ] && [ "${VIRTUAL_ENV:-${CONDA_PREFIX:-}}" ] &&
    python -c 'import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ["mmdet", "torch"])))' 2>/dev/null; then
    PYTHON=$(command -v python)
else
    VENV=${VENV:-$REPO/.venv}
    case $VENV in /*) ;; *) VENV=$PWD/$VENV ;; esac
    cmp -s "$REPO/requirements.txt" "$VENV/requirements.installed" || install_requirements "$VENV"
    PYTHON=$VENV/bin/python
fi
