# Sourced by the other scripts: sets REPO (the repository) and PYTHON (the interpreter to use).
#
# PYTHON is that of $VENV where that is set, else of the active environment if it holds the packages,
# else of the repository's own .venv. A virtual environment that is not there, or was installed from
# other requirements, is installed first.

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
export PYTHONPATH="$REPO${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1 # a folder "models" where the caller stands is not ours
# On a CPU every step allocates large tensors anew. By default glibc returns them to the kernel, which
# clears their pages each time; kept, and in huge pages, trainings took 0.77 of the time.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=8589934592}"

fail() {
    echo "error: $*" >&2
    exit 2
}

requirements() {
    cat "$REPO/requirements.txt" "$REPO/requirements_mm.txt"
}

find_python() {
    # first that of an environment which is there already: its packages are of that version
    for python in "$VENV/bin/python" python3 python3.14 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    return 1
}

pip_install() {
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@" ||
        fail "pip could not install the requirements into $VENV; the same command tries again"
}

installed() {
    requirements | cmp -s - "$VENV/requirements.installed"
}

# One script installs; others that are started meanwhile wait, and find it done.
install_once() {
    mkdir -p "$VENV" || fail "cannot make the folder $VENV"
    exec 9<"$VENV"
    if command -v flock >/dev/null && ! flock -n 9; then
        echo "Waiting for another script that installs into $VENV ..."
        flock 9
    fi
    installed || install_requirements
    exec 9<&-
}

install_requirements() {
    python=$(find_python) || fail "no Python 3.11 to 3.14 found; install one (Debian: apt install python3 python3-venv)"
    echo "Installing the requirements into $VENV (6 GB, some minutes) ..."
    "$python" -m venv "$VENV" || fail "cannot make a virtual environment in $VENV (Debian: apt install python3-venv)"
    pip_install -r "$REPO/requirements.txt"
    pip_install --no-deps -r "$REPO/requirements_mm.txt"
    # written last: what is there without it was interrupted
    requirements >"$VENV/requirements.installed"
}

if [ -z "${VENV:-}" ] && [ "${VIRTUAL_ENV:-${CONDA_PREFIX:-}}" ] &&
    python -c 'import sys; from importlib.metadata import version
assert (3, 11) <= sys.version_info[:2] <= (3, 14)
list(map(version, ["torch", "onedl-mmengine", "onedl-mmdetection", "onedl-mmsegmentation"]))' 2>/dev/null; then
    PYTHON=$(command -v python)
else
    VENV=${VENV:-$REPO/.venv}
    case $VENV in /*) ;; *) VENV=$PWD/$VENV ;; esac
    installed || install_once
    PYTHON=$VENV/bin/python
fi
