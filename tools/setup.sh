#!/bin/sh
# Makes .venv: the locked packages, and the members named as arguments in editable form.
# uv does it in seconds; where it cannot, plain pip does the same from the same lock.
set -eu
cd "$(dirname "$0")/.."

log=$(mktemp)
python=.venv/bin/python
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV CONDA_PREFIX
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_PYTHON_DOWNLOADS=never

say() { echo "twinline: $*"; }

fail() {
  tail -n 30 "$log" >&2
  echo "twinline: $* (the whole log: $log)" >&2
  exit 1
}

# The first Python of 3.11 or newer that can make a virtual environment with pip in it.
find_python() {
  for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
    "$candidate" -c 'import sys; assert sys.version_info >= (3, 11); import ensurepip, venv; print(sys.executable)' 2>/dev/null && return
  done
  return 1
}

make_venv() {
  if "$python" -c 'import sys; assert sys.version_info >= (3, 11); import pip' >/dev/null 2>&1; then return; fi
  found=$(find_python) || {
    tools/programs.sh python3-venv 2>>"$log" || true
    found=$(find_python)
  } || {
    echo 'twinline: needs Python 3.11 or newer with its venv module: install it (Debian: python3-venv), or name it: make PYTHON=/path/to/python3' >&2
    exit 1
  }
  say "making .venv with $("$found" --version) and the locked packages"
  "$found" -m venv --clear .venv >>"$log" 2>&1 || fail 'cannot make .venv'
}

# uv is in the lock like everything else; pip checks the same hash.
install_uv() {
  wanted=$(mktemp)
  awk '/^uv==/ { found = 1 } found { print } found && !/\\$/ { exit }' requirements.lock >"$wanted"
  "$python" -m pip install --require-hashes --no-deps --only-binary :all: -r "$wanted" >>"$log" 2>&1 && rm "$wanted"
}

install_packages() {
  install_uv && .venv/bin/uv pip sync --python "$python" --compile-bytecode --require-hashes requirements.lock >>"$log" 2>&1 && return
  say 'uv cannot install the packages; trying pip, which takes longer'
  "$python" -m pip install --require-hashes -r requirements.lock >>"$log" 2>&1 || fail 'cannot install the packages of requirements.lock'
}

install_members() {
  members=
  for member; do members="$members -e ./$member"; done
  # The build backend is in the lock too, so nothing outside the lock is fetched; it is looked for on the PATH.
  PATH="$PWD/.venv/bin:$PATH"
  # shellcheck disable=SC2086 # a list of arguments
  uv pip install --python "$python" --no-deps --no-build-isolation $members >>"$log" 2>&1 ||
    "$python" -m pip install --no-deps --no-build-isolation $members >>"$log" 2>&1 || fail 'cannot install the members'
}

# uv compiles nothing by itself, and PYTHONDONTWRITEBYTECODE, which containers like to set, keeps Python from doing it:
# every process would then take twice as long to start.
compile_members() { "$python" -m compileall -q "$@" >>"$log" 2>&1 || fail 'cannot compile the members'; }

make_venv
install_packages
install_members "$@"
compile_members "$@"
say "ready: .venv has the packages of requirements.lock and $# members"
rm -f "$log"
