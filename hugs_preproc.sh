#!/usr/bin/env bash
# Embeds the lists of a recipe: those in a directory on this machine, those in a bucket in the cloud.
set -euo pipefail
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=scripts/wrapper.sh
source "$here/scripts/wrapper.sh"

usage() {
  cat <<'USAGE'
usage: ./hugs_preproc.sh DIR_OR_BUCKET [flags of pipelines.preproc and pipelines.embed ...]

Embeds the training, evaluation and test lists that lie in a directory or bucket (dict.txt, train.csv, eval.csv and,
if there is one, test.csv) into a new DIR_OR_BUCKET/RECIPE_DATE_TIME/preproc (in a bucket RECIPE_USER_DATE_TIME, since
colleagues may share it), and prints the command that trains on it. If your newest such directory is unfinished, it
continues there. `hugs ingest` makes such lists from a folder of photos.

For a directory, it works on this machine:

  ./hugs_preproc.sh data/
  RECIPE=flowers ./hugs_preproc.sh data/ --weights random --job_dir /tmp/job
  ./hugs_preproc.sh data/ --views 4 --flip_left_right --random_crop 10   # views: of the training list only
  ./hugs_preproc.sh data/ --backbone inception_v3,mobilenet_1.0_224      # a folder of records for each network

For a bucket, Dataflow works on the machines and in the project that the recipe names (sections cloud and dataflow):

  hugs doctor gs://bucket                     # checks roles, APIs and quotas of the project, at no cost
  ./hugs_preproc.sh gs://bucket --plan        # estimates time and cost from a sample (also for a directory)
  ./hugs_preproc.sh gs://bucket --dry_run     # checks everything and prints what would be run; sends nothing
  ./hugs_preproc.sh gs://bucket               # starts the jobs, and says where to watch them
  ./hugs_preproc.sh gs://bucket --wait        # waits for them, and prints the outcome of every image

Environment:
  RECIPE   name of a recipe, or path of its YAML file (default: hugs)
  PYTHON   the interpreter (default: .venv/bin/python beside this script if there is one, else python3)
USAGE
}

case "${1-}" in
  -h | --help) usage; exit 0 ;;
  '') usage >&2 || :; fail 'no directory given. The first argument is the directory or bucket that has the lists.' ;;
esac

data_dir=$(local_path "$1")
shift
[[ "$data_dir" == gs://?* || -d "$data_dir" ]] \
  || fail "$data_dir: neither a directory nor a gs:// bucket. Give the one that has the lists."

find_python pipeline apache_beam tensorflow
run_module pipelines.preproc --recipe "${RECIPE:-hugs}" --data_dir "$data_dir" "$@"
