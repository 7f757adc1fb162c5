# shellcheck shell=bash
# What the hugs_*.sh scripts share. They set `here`, the folder of the checkout, and source this file.

# Whoever reads what is printed may be gone: that ends neither this shell nor what it starts, and changes no exit code.
trap '' PIPE

fail() {
  printf 'error: %s\n' "$1" >&2 || :
  exit 2
}

# Sets PYTHON, and refuses one that lacks modules: find_python EXTRA MODULE ...
find_python() {
  local extra=$1
  shift
  # shellcheck disable=SC2154 # set by the script
  if [[ -z "${PYTHON:-}" ]]; then
    PYTHON="$here/.venv/bin/python"
    [[ -x "$PYTHON" ]] || PYTHON=python3
  fi
  command -v "$PYTHON" >/dev/null || fail "PYTHON: $PYTHON is not there. Set PYTHON to a Python 3.11 interpreter."
  local has_modules='import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))'
  local modules=$*
  # A module in a package that is not there is an exception; what it says helps nobody.
  "$PYTHON" -c "$has_modules" "$@" 2>/dev/null \
    || fail "PYTHON: $PYTHON does not have ${modules// / and }. Run 'make setup' in $here, which makes an environment \
that has all, or set PYTHON to an interpreter that has it. ($PYTHON -m pip install -e '${here}[$extra]' adds it to this one.)"
}

# Becomes a program of this checkout, whatever the current directory is and has in it: run_module MODULE ARGUMENT ...
run_module() {
  export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
  exec "$PYTHON" -m "$@"
}
