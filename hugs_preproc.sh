#!/usr/bin/env bash
# Embeds the lists of a recipe: a directory is worked on here, a bucket in the cloud.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: ./hugs_preproc.sh DIR_OR_BUCKET [flags of pipelines.preproc and pipelines.embed ...]

Embeds the training, evaluation and test lists that lie in a directory (dict.txt, train.csv, eval.csv and, if
there is one, test.csv) into a new DIR/RECIPE_DATE_TIME/preproc, and prints the command that trains on it.
python -m pipelines.ingest makes such lists from a folder of photos.

  ./hugs_preproc.sh data/
  RECIPE=flowers ./hugs_preproc.sh data/ --weights random --job_dir /tmp/job

Environment:
  RECIPE   name of a recipe, or path of its YAML file (default: hugs)
  PYTHON   the interpreter (default: .venv/bin/python beside this script if there is one, else python3)
USAGE
}

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

case "${1-}" in
  -h | --help) usage; exit 0 ;;
  '') usage >&2; fail 'no directory given. The first argument is the directory that has the lists.' ;;
esac

data_dir=$1
shift
case "$data_dir" in
  gs://*)
    fail "$data_dir: cloud runs are not there yet. Run on a local directory that has the lists (they may name gs:// \
images), or pass --runner and Beam's other flags to python -m pipelines.embed yourself."
    ;;
esac
[[ -d "$data_dir" ]] || fail "$data_dir: neither a directory nor a gs:// bucket. Give the directory that has the lists."

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
if [[ -z "${PYTHON:-}" ]]; then
  PYTHON="$here/.venv/bin/python"
  [[ -x "$PYTHON" ]] || PYTHON=python3
fi
command -v "$PYTHON" >/dev/null || fail "PYTHON: $PYTHON is not there. Set PYTHON to a Python 3.11 interpreter."
has_modules='import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))'
"$PYTHON" -c "$has_modules" apache_beam tensorflow \
  || fail "PYTHON: $PYTHON does not have apache_beam and tensorflow. Install the project for it, with \
$PYTHON -m pip install -e '${here}[pipeline]', or set PYTHON to the interpreter that has it."

# The programs are found in this repository, whatever the current directory is and has in it.
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
exec "$PYTHON" -m pipelines.preproc --recipe "${RECIPE:-hugs}" --data_dir "$data_dir" "$@"
