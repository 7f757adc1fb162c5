#!/usr/bin/env bash
# Puts a model that hugs_train.sh made in a bucket behind an endpoint of Vertex AI.
set -euo pipefail
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=scripts/wrapper.sh
source "$here/scripts/wrapper.sh"

usage() {
  cat <<'USAGE'
usage: ./hugs_deploy.sh MODEL_DIR [ENDPOINT_NAME] [--image PHOTO] [--version_name NAME] [--traffic PERCENT]
                        [--dry_run] [--project P] [--region R]
       ./hugs_deploy.sh list     [ENDPOINT_NAME]                        the versions at the endpoint, and their traffic
       ./hugs_deploy.sh traffic  VERSION=PERCENT,... [ENDPOINT_NAME]    changes the traffic
       ./hugs_deploy.sh undeploy VERSION [ENDPOINT_NAME]                undeploys a version; the others get its traffic

Uploads the model in MODEL_DIR (gs://BUCKET/PATH/JOB_ID, or the folder model in it) to Vertex AI. Deploys it to the
endpoint of that name (default: the recipe's name), and creates the endpoint if there is none. Then asks it about one
photo. If it fails, run the same command again: it continues from there. The recipe (section deploy) names the machines.

  ./hugs_deploy.sh gs://bucket/hugs_anna_20260102_030405/training --dry_run   # prints what would be sent; sends nothing
  ./hugs_deploy.sh gs://bucket/hugs_anna_20260102_030405/training
  ./hugs_deploy.sh gs://bucket/hugs_anna_20260102_030405/training my-endpoint --image photo.jpg
  ./hugs_deploy.sh gs://bucket/hugs_anna_20260203_040506/training my-endpoint --version_name second --traffic 10
  ./hugs_deploy.sh traffic second=100 my-endpoint

An endpoint costs money as long as a model is deployed there, even without requests. The script prints the commands that
stop the costs.

Environment:
  RECIPE   name of a recipe, or path of its YAML file (default: hugs)
  PYTHON   the interpreter (default: .venv/bin/python beside this script if there is one, else python3)
USAGE
}

# Runs a step at an endpoint that is there: the step, for all but list its argument, then what may follow.
at_endpoint() {
  local step=$1 flags=(--recipe "${RECIPE:-hugs}")
  shift
  if [[ "$step" != list ]]; then
    [[ -n "${1-}" && "$1" != -* ]] || fail "$step: nothing given. ./hugs_deploy.sh --help says what it takes."
    flags+=("--$step" "$1")
    shift
  fi
  if [[ $# -gt 0 && "$1" != -* ]]; then
    flags+=(--endpoint_name "$1")
    shift
  fi
  find_python train google.cloud.storage yaml
  run_module cloud.endpoint "${flags[@]}" "$@"
}

case "${1-}" in
  -h | --help) usage; exit 0 ;;
  '') usage >&2 || :; fail 'no model given. The first argument is gs://BUCKET/PATH/JOB_ID.' ;;
  list | traffic | undeploy) at_endpoint "$@" ;;
  gs://?*) ;;
  *) fail "$1: MODEL_DIR must be in a bucket. Copy a model there with: gcloud storage cp -r $1 gs://BUCKET/" ;;
esac

flags=(--recipe "${RECIPE:-hugs}" --model_dir "$1")
shift
if [[ $# -gt 0 && "$1" != -* ]]; then
  flags+=(--endpoint_name "$1")
  shift
fi

find_python train google.cloud.storage yaml
run_module cloud.deploy "${flags[@]}" "$@"
