#!/usr/bin/env bash
# Trains on the records that hugs_preproc.sh made: in a directory on this machine, in a bucket in the cloud.
set -euo pipefail
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=scripts/wrapper.sh
source "$here/scripts/wrapper.sh"

usage() {
  cat <<'USAGE'
usage: ./hugs_train.sh DIR PATH [JOB_ID] [-- flags of trainer.task ...]
       ./hugs_train.sh gs://BUCKET gs://BUCKET/PATH [JOB_ID] [--dry_run] [--wait] [--project P] [--region R]
                       [-- flags of trainer.task ...]

Trains on PATH/preproc/train*, evaluates on PATH/preproc/eval* and, if there are such records, measures on
PATH/preproc/test*. Checkpoints, metrics and the model go to PATH/JOB_ID (default: PATH/training).
hugs_preproc.sh prints this command with its arguments.

For a directory, training runs on this machine:

  ./hugs_train.sh data/ data/hugs_20260102_030405
  ./hugs_train.sh data/ data/hugs_20260102_030405 longer -- --max_steps 5000

For a bucket, training is a job of Vertex AI, on the machines and in the project that the recipe names (sections cloud
and vertex). gcloud must be installed and logged in:

  ./hugs_train.sh gs://bucket gs://bucket/hugs_anna_20260102_030405 --dry_run  # prints what would be sent; sends nothing
  ./hugs_train.sh gs://bucket gs://bucket/hugs_anna_20260102_030405            # starts the job, and says where to watch it
  ./hugs_train.sh gs://bucket gs://bucket/hugs_anna_20260102_030405 longer --wait -- --max_steps 5000

Environment:
  RECIPE   name of a recipe, or path of its YAML file (default: hugs)
  PYTHON   the interpreter (default: .venv/bin/python beside this script if there is one, else python3)
USAGE
}

# Checks JOB_ID in the C locale: in some other locales, a-z includes more letters than those of ASCII.
is_job_id() {
  local LC_ALL=C
  case "$1" in
    '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]* | preproc) return 1 ;;
  esac
}

# True if at least one of the files exists. It is called with a glob; if nothing matches, the glob itself is the argument.
any_file() {
  [[ -e "$1" ]]
}

case "${1-}" in
  -h | --help) usage; exit 0 ;;
  '') usage >&2 || :; fail 'no directory given. The arguments are the data directory and the job directory in it.' ;;
esac

data_dir=$(local_path "$1")
in_cloud=false
case "$data_dir" in
  gs://?*) in_cloud=true ;;
  *)
    [[ -d "$data_dir" ]] \
      || fail "$data_dir: neither a directory nor a gs:// bucket. Give the one that has the lists."
    ;;
esac
[[ -n "${2-}" && "$2" != -* ]] \
  || fail "PATH is missing. Give the job directory that hugs_preproc.sh made, for example \
${data_dir%/}/hugs_20260102_030405"
job_dir=$(local_path "$2")
job_dir=${job_dir%/}
shift 2
case "$job_dir" in
  gs://*[,*?[]*)
    fail "$job_dir: PATH must not hold any of , * ? [ since the trainer takes lists of patterns. Rename it."
    ;;
  gs://*) [[ "$in_cloud" == true ]] || fail "$job_dir: PATH is in a bucket and $data_dir is not. Give both in a bucket." ;;
  *) [[ "$in_cloud" == false ]] || fail "$job_dir: PATH is not in a bucket and $data_dir is. Give both in a bucket." ;;
esac

job_id=training
if [[ $# -gt 0 && "$1" != -* ]]; then
  job_id=$1
  shift
fi
is_job_id "$job_id" || fail "JOB_ID: must be letters, digits, '.', '_' and '-', the first a letter or digit, and not \
'preproc', since a folder is named after it. Received: '$job_id'"

if [[ "$in_cloud" == true ]]; then
  find_python train google.cloud.storage yaml
  run_module cloud.train --recipe "${RECIPE:-hugs}" --data_dir "$data_dir" --job_dir "$job_dir" --job_id "$job_id" "$@"
fi

if [[ $# -gt 0 ]]; then
  [[ "$1" == -- ]] \
    || fail "$1: flags of the trainer stand after '--', as in: ./hugs_train.sh DIR PATH -- --max_steps 5000"
  shift
fi

if ! any_file "$job_dir/preproc/train-"* && any_file "$job_dir/"*/preproc/train-*; then
  folders=("$job_dir/"*/preproc/train-*)
  fail "$job_dir: has the records of several networks, each in a folder. Train on one of them, for example: \
$(printf '%q %q %q' "${BASH_SOURCE[0]}" "$data_dir" "${folders[0]%/preproc/*}")"
fi
for split in train eval; do
  any_file "$job_dir/preproc/$split-"* \
    || fail "$job_dir/preproc/$split*: no records there. Make them with: ${PYTHON:+PYTHON=$(printf %q "$PYTHON") }\
${RECIPE:+RECIPE=$(printf %q "$RECIPE") }\
$(printf '%q %q --job_dir %q' "$(dirname -- "${BASH_SOURCE[0]}")/hugs_preproc.sh" "$data_dir" "$job_dir")"
done

flags=(
  --recipe "${RECIPE:-hugs}"
  --train_data_paths "$job_dir/preproc/train"
  --eval_data_paths "$job_dir/preproc/eval"
  --output_path "$job_dir/$job_id"
)
if any_file "$job_dir/preproc/test-"*; then
  flags+=(--test_data_paths "$job_dir/preproc/test")
fi

find_python train tensorflow
run_module trainer.task "${flags[@]}" "$@"
