"""Deploys a trained model to an endpoint of Vertex AI and asks it about one photo. `./hugs_deploy.sh` runs this.

python -m cloud.deploy --model_dir gs://BUCKET/hugs_DATE_TIME/training
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from cloud.endpoint import find_endpoint, number_of, split_of
from cloud.gcloud import Gcloud, Runner, run_command
from cloud.hub_images import SERVING_IMAGE, hub_image, require_repository
from cloud.job_storage import job_storage
from cloud.options import CloudRunOptions
from cloud.serving_model import ServingModel, container_flags, find_model, prediction_request, top_predictions
from cloud.traffic import NEW, with_new
from cloud.training_job import display_name_of
from configs.activity import doing
from configs.arguments import OneLineParser
from configs.bucket_folder import require_folder
from configs.console import require_printed
from configs.errors import EXIT_OK, InputError
from configs.option import REQUIRED, add_flags, given_values, option, options_of
from configs.program import run_program
from configs.recipe import Recipe, load_recipe
from configs.rules import PathText, Text, Whole
from preprocess.images.read import DEFAULT_MAX_IMAGE_BYTES
from preprocess.storage.base import LocalStorage

_DIGEST_LABEL, _BUCKET_LABEL = "hugs_model", "hugs_bucket"
_MAX_NAME = 128
_REQUEST_NAME = "request.json"
# For a look at a photo before the model, which decides the size, is known.
_ANY_SIZE = 8
# Fields of an endpoint that cannot be asked through the address that all endpoints share, which is what gcloud asks. Of
# the first, the API's reference says: "you won't be able to send request to the shared DNS"
# (https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.endpoints).
_ADDRESSES = {
    "dedicatedEndpointEnabled": "has an address of its own",
    "network": "is in a private network",
    "privateServiceConnectConfig": "is reached through Private Service Connect",
    "enablePrivateServiceConnect": "is reached through Private Service Connect",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeploymentOptions(CloudRunOptions):
    """The options of the program."""

    model_dir: str = option(
        REQUIRED,
        Text(anything=True),
        help="gs://…/JOB_ID or gs://…/JOB_ID/model",
        decides="neither",
        metavar="URI",
    )
    endpoint_name: str | None = option(
        None,
        Text(anything=True),
        help="the endpoint; created if missing",
        decides="neither",
        metavar="NAME",
        default_words="the recipe's name",
    )
    image: str | None = option(
        None,
        PathText(),
        help="the photo to ask about",
        decides="neither",
        metavar="FILE",
        default_words="a drawn picture",
    )
    version_name: str | None = option(
        None,
        Text(),
        help="the name of this version of the model at the endpoint",
        decides="neither",
        metavar="NAME",
        default_words="the endpoint's name",
    )
    traffic: int = option(
        100,
        Whole(0),
        help="the share of the requests that this version gets; the other versions share the rest as they did",
        decides="neither",
        metavar="PERCENT",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.traffic > 100:
            self._fail("traffic", "a whole number from 0 to 100")


def _parse(argv: Sequence[str] | None) -> DeploymentOptions:
    parser = OneLineParser(
        module="cloud.deploy",
        description="Deploys a model to an endpoint of Vertex AI, and asks it about one photo.",
    )
    add_flags(parser, options_of(DeploymentOptions))
    return DeploymentOptions(**given_values(parser.parse_args(argv), DeploymentOptions))


def _upload_command(model: ServingModel, image: str, recipe: Recipe, gcloud: Gcloud) -> list[str]:
    return gcloud.command(
        "ai",
        "models",
        "upload",
        display_name=display_name_of(model.model_dir),
        artifact_uri=model.artifact_uri,
        labels={**recipe.cloud.labels, _DIGEST_LABEL: model.digest},
        **container_flags(image, is_own=recipe.deploy.server_in_image),
    )


def _bucket_label(model: ServingModel) -> str:
    """A label for the bucket of a model. Names of buckets may be too long for a label, and hold dots."""
    bucket = model.model_dir.removeprefix("gs://").partition("/")[0]
    return hashlib.sha256(bucket.encode()).hexdigest()[:16]


def _endpoint_command(name: str, model: ServingModel, recipe: Recipe, gcloud: Gcloud) -> list[str]:
    labels = {**recipe.cloud.labels, _BUCKET_LABEL: _bucket_label(model)}
    return gcloud.command("ai", "endpoints", "create", display_name=name, labels=labels)


def _deploy_command(
    endpoint: str, model: str, name: str, recipe: Recipe, gcloud: Gcloud, *, split: Mapping[str, int]
) -> list[str]:
    return gcloud.command(
        "ai",
        "endpoints",
        "deploy-model",
        endpoint,
        model=model,
        display_name=name,
        machine_type=recipe.deploy.machine_type,
        min_replica_count=recipe.deploy.min_replicas,
        max_replica_count=recipe.deploy.max_replicas,
        # Not the workers' account: it would need access to Vertex AI's copy of the model. The account that Vertex AI
        # takes by itself has that.
        service_account=recipe.deploy.service_account,
        traffic_split=split,
    )


def _predict_command(endpoint: str, request_path: str, gcloud: Gcloud) -> list[str]:
    return gcloud.command("ai", "endpoints", "predict", endpoint, json_request=request_path)


def _find_or_upload(model: ServingModel, image: str, recipe: Recipe, gcloud: Gcloud) -> str:
    """The number of the model in Vertex AI's registry. The same content and image are uploaded only once."""
    found = gcloud.listed(gcloud.command("ai", "models", "list", filter=f"labels.{_DIGEST_LABEL}={model.digest}"))
    if found:
        number = number_of(found[0].get("name"))
        print(f"model     {number} (uploaded before)", flush=True)
        return number
    print("uploading the model …", flush=True)
    with doing("copying the model within the bucket"):
        model.stage(job_storage())
    number = number_of(gcloud.resource(_upload_command(model, image, recipe, gcloud), key="model")["model"])
    print(f"model     {number}", flush=True)
    return number


def _require_usable(endpoint: dict[str, Any], name: str, model: ServingModel, *, is_named: bool) -> None:
    """Checks that an endpoint can be asked, and that the user means it.

    Args:
      endpoint: as Vertex AI describes it.
      name: its name.
      model: to be deployed there.
      is_named: whether the user named the endpoint. If not, it has the recipe's name, as that of a colleague may.

    Raises:
      InputError: it cannot be asked, or serves the models of another bucket.
    """
    number = number_of(endpoint.get("name"))
    for field, words in _ADDRESSES.items():
        if endpoint.get(field):
            raise InputError(
                f"ENDPOINT_NAME: endpoint {number} ({name}) {words}, where gcloud cannot ask it. Nothing was deployed. "
                "Choose another name; an endpoint that this command makes has the shared address."
            )
    owner = (endpoint.get("labels") or {}).get(_BUCKET_LABEL)
    if not is_named and endpoint.get("deployedModels") and owner != _bucket_label(model):
        raise InputError(
            f"ENDPOINT_NAME: endpoint {number} is named {name}, as the recipe, and serves a model of another bucket, "
            f"perhaps a colleague's. Give {shlex.quote(name)} as ENDPOINT_NAME to serve this model there, or another "
            "name."
        )


def _deploy(
    endpoint: dict[str, Any], model_number: str, name: str, recipe: Recipe, gcloud: Gcloud, *, traffic: int
) -> list[str]:
    """Deploys a model unless it is deployed, for `traffic` percent of the requests.

    Returns the ids of all models at the endpoint; each costs money.
    """
    number = number_of(endpoint["name"])
    models = {number_of(one.get("model")).partition("@")[0] for one in endpoint.get("deployedModels") or []}
    if model_number in models:
        print("deployed before", flush=True)
    else:
        print(f"deploying to {recipe.deploy.machine_type}, which takes about ten minutes …", flush=True)
        print("Then the endpoint costs money until the model is undeployed, even without requests.", flush=True)
        split = with_new(split_of(endpoint), traffic)
        gcloud.call(_deploy_command(number, model_number, name, recipe, gcloud, split=split))
        # gcloud prints the id only within a sentence.
        endpoint = gcloud.resource(gcloud.command("ai", "endpoints", "describe", number))
    return [str(one.get("id")) for one in endpoint.get("deployedModels") or []]


def _print_costs(endpoint: str, deployed: Sequence[str], model_number: str, gcloud: Gcloud) -> None:
    """Prints the commands that stop the costs."""
    print(
        "\nThe endpoint costs money as long as a model is deployed there, even without requests"
        + (f", and {len(deployed)} are, of which one gets all requests" if len(deployed) > 1 else "")
        + ". To end that:"
    )
    commands = [
        *(gcloud.command("ai", "endpoints", "undeploy-model", endpoint, deployed_model_id=one) for one in deployed),
        gcloud.command("ai", "endpoints", "delete", endpoint),
        gcloud.command("ai", "models", "delete", model_number),
    ]
    for command in commands:
        print(f"  {shlex.join(command)}")
    print(flush=True)


def _ask(endpoint: str, request: dict[str, Any], model: ServingModel, gcloud: Gcloud) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, _REQUEST_NAME)
        with open(path, "w", encoding="utf-8") as stream:
            json.dump(request, stream)
        response = gcloud.call(_predict_command(endpoint, path, gcloud))
    label, confident, top = top_predictions(response, model.info.labels)
    print(f"{request['instances'][0]['key']}: {label}" + ("" if confident else "  (not sure)"))
    for name, score in top:
        print(f"  {score:6.1%}  {name}")
    if model.info.warning:
        print(f"warning: {model.info.warning}")


def _read_photo(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return LocalStorage().read(path, max_bytes=DEFAULT_MAX_IMAGE_BYTES)
    except OSError as error:
        raise InputError(f"--image: {path}: cannot be read ({error.strerror or error}).") from error


def main(argv: Sequence[str] | None = None, *, run: Runner = run_command) -> int:
    """Runs the program with the arguments; `run` is called to run gcloud.

    Raises:
      InputError: the user's input is wrong, or Google's services refuse it. The same command then continues from there.
    """
    options = _parse(argv)
    recipe = load_recipe(options.recipe)
    folder = require_folder(options.model_dir, field="MODEL_DIR")
    name = recipe.name if options.endpoint_name is None else options.endpoint_name
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable() or '"' in name or "\\" in name:
        raise InputError(f"ENDPOINT_NAME: must be 1 to {_MAX_NAME} characters without quotes. Received: {name!r}.")
    version = name if options.version_name is None else options.version_name
    gcloud = options.gcloud(recipe, run)
    photo, key = _read_photo(options.image), options.image or "a drawn picture"
    # What is no image is refused before anything is asked for.
    prediction_request(photo, key=key, size=_ANY_SIZE)
    image = recipe.deploy.image or hub_image(SERVING_IMAGE, project=gcloud.project, region=gcloud.region)
    if not options.dry_run:
        gcloud.require_new_enough()
    with doing(f"looking for the model in {folder}"):
        is_own = recipe.deploy.server_in_image
        model = find_model(folder, image=image, is_own=is_own, storage=job_storage())
    request = prediction_request(photo, key=key, size=model.info.image.size)
    if options.dry_run:
        print(f"# the model is copied to {model.artifact_uri}/1 first")
        for command in (
            _upload_command(model, image, recipe, gcloud),
            _endpoint_command(name, model, recipe, gcloud),
            _deploy_command("ENDPOINT", "MODEL", version, recipe, gcloud, split={NEW: options.traffic}),
            _predict_command("ENDPOINT", _REQUEST_NAME, gcloud),
        ):
            print(shlex.join(command))
        print("\ndry run: this would be sent if it is not there yet; nothing was sent")
        print("As soon as a model is deployed, the endpoint costs money until it is undeployed, even without requests.")
        require_printed()
        return EXIT_OK
    if recipe.deploy.image is None:
        require_repository(image, gcloud, field="deploy.image")
    endpoint = find_endpoint(name, gcloud)
    if endpoint is not None:
        _require_usable(endpoint, name, model, is_named=options.endpoint_name is not None)
    model_number = _find_or_upload(model, image, recipe, gcloud)
    if endpoint is None:
        endpoint = gcloud.resource(_endpoint_command(name, model, recipe, gcloud))
        _require_usable(endpoint, name, model, is_named=True)  # In case the service gave it another kind of address.
    number = number_of(endpoint["name"])
    print(
        f"endpoint  {number} ({name})\n          "
        f"https://console.cloud.google.com/agent-platform/online-prediction/endpoints?project={gcloud.project}",
        flush=True,
    )
    deployed = _deploy(endpoint, model_number, version, recipe, gcloud, traffic=options.traffic)
    _print_costs(number, deployed, model_number, gcloud)
    _ask(number, request, model, gcloud)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
