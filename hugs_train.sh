#!/usr/bin/env bash
# Trains on the records that hugs_preproc.sh made: a directory is worked on here, a bucket in the cloud.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: ./hugs_train.sh DIR_OR_BUCKET PATH [JOB_ID] [-- flags of trainer.task ...]

Trains on PATH/preproc/train*, evaluates on PATH/preproc/eval* and, if there are such records, measures on
PATH/preproc/test*. Checkpoints, metrics and the model go to PATH/JOB_ID (default: PATH/training).
hugs_preproc.sh prints this command with DIR and PATH filled in.

  ./hugs_train.sh data/ data/hugs_20260102_030405
  ./hugs_train.sh data/ data/hugs_20260102_030405 longer -- --max_steps 5000

Environment:
  RECIPE   name of a recipe, or path of its YAML file (default: hugs)
  PYTHON   the interpreter (default: .venv/bin/python beside this script if there is one, else python3)
USAGE
}

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

# What JOB_ID may be is said in ASCII: in some locales a-z holds more letters than that.
is_job_id() {
  local LC_ALL=C
  case "$1" in
    '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]* | preproc) return 1 ;;
  esac
}

# True if at least one of the files is there; called with a glob, which stands for itself if nothing matches.
any_file() {
  [[ -e "$1" ]]
}

case "${1-}" in
  -h | --help) usage; exit 0 ;;
  '') usage >&2; fail 'no directory given. The arguments are the data directory and the job directory in it.' ;;
esac

data_dir=$1
for place in "$data_dir" "${2-}"; do
  case "$place" in
    gs://*)
      fail "$place: cloud runs are not there yet. Copy the records to a local directory and train there: \
./hugs_train.sh DIR PATH"
      ;;
  esac
done
[[ -d "$data_dir" ]] || fail "$data_dir: neither a directory nor a gs:// bucket. Give the directory that has the lists."
[[ -n "${2-}" && "$2" != -* ]] \
  || fail "PATH is missing. Give the job directory that hugs_preproc.sh made, for example $data_dir/hugs_20260102_030405"
job_dir=${2%/}
shift 2
case "$job_dir" in
  *[,*?[]*) fail "$job_dir: PATH must not hold any of , * ? [ since the trainer takes lists of patterns. Rename it." ;;
esac

job_id=training
if [[ $# -gt 0 && "$1" != -* ]]; then
  job_id=$1
  shift
fi
is_job_id "$job_id" || fail "JOB_ID: must be letters, digits, '.', '_' and '-', the first a letter or digit, and not \
'preproc', since a folder is named after it. Received: '$job_id'"
if [[ $# -gt 0 ]]; then
  [[ "$1" == -- ]] \
    || fail "$1: flags of the trainer stand after '--', as in: ./hugs_train.sh DIR PATH -- --max_steps 5000"
  shift
fi

for split in train eval; do
  any_file "$job_dir/preproc/$split-"* \
    || fail "$job_dir/preproc/$split*: no records there. Make them with: ./hugs_preproc.sh $data_dir --job_dir $job_dir"
done

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
if [[ -z "${PYTHON:-}" ]]; then
  PYTHON="$here/.venv/bin/python"
  [[ -x "$PYTHON" ]] || PYTHON=python3
fi
command -v "$PYTHON" >/dev/null || fail "PYTHON: $PYTHON is not there. Set PYTHON to a Python 3.11 interpreter."
has_modules='import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))'
"$PYTHON" -c "$has_modules" tensorflow \
  || fail "PYTHON: $PYTHON does not have tensorflow. Install the project for it, with \
$PYTHON -m pip install -e '${here}[train]', or set PYTHON to the interpreter that has it."

flags=(
  --recipe "${RECIPE:-hugs}"
  --train_data_paths "$job_dir/preproc/train*"
  --eval_data_paths "$job_dir/preproc/eval*"
  --output_path "$job_dir/$job_id"
)
if any_file "$job_dir/preproc/test-"*; then
  flags+=(--test_data_paths "$job_dir/preproc/test*")
fi

# The programs are found in this repository, whatever the current directory is and has in it.
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
exec "$PYTHON" -m trainer.task "${flags[@]}" "$@"
