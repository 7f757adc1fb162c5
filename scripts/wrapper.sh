# shellcheck shell=bash
# Functions that the hugs_*.sh scripts share. They set `here`, the folder of the checkout, and source this file.

# If the reader of the output has ended, this shell and its programs go on, and no exit code changes.
trap '' PIPE

fail() {
  printf 'error: %s\n' "$1" >&2 || :
  exit 2
}

# Prints a path; of a file:// URI its local path, as configs/file_uris.py does.
local_path() {
  local path=$1
  case "$path" in
    [Ff][Ii][Ll][Ee]://*) path=${path#*://} ;;
    [Ff][Ii][Ll][Ee]:/*) path=${path#*:} ;;
    *) printf '%s' "$path"; return ;;
  esac
  case "$path" in
    [Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt]/*) path=/${path#*/} ;;
  esac
  if [[ ! -e "$path" && "$path" =~ %[0-9A-Fa-f]{2} ]]; then
    path=${path//\\/\\\\}
    path=$(printf '%b' "${path//%/\\x}")
  fi
  printf '%s' "$path"
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
  # If the package of a module is missing, Python raises an exception; its message does not help the user.
  "$PYTHON" -c "$has_modules" "$@" 2>/dev/null \
    || fail "PYTHON: $PYTHON does not have ${modules// / and }. Run 'make setup' in $here, which makes a complete \
environment, or set PYTHON to an interpreter that has it. ($PYTHON -m pip install -e '${here}[$extra]' adds it to this one.)"
}

# Replaces the shell by a program of this checkout, from any current directory: run_module MODULE ARGUMENT ...
run_module() {
  export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
  exec "$PYTHON" -m "$@"
}
