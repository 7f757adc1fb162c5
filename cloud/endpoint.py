"""Lists the versions behind an endpoint of Vertex AI, changes their traffic, and undeploys them.

python -m cloud.endpoint [--endpoint_name NAME] [--traffic VERSION=PERCENT,... | --undeploy VERSION]
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from cloud.gcloud import Gcloud, Runner, run_command
from cloud.options import CloudRunOptions
from cloud.traffic import without
from configs.arguments import OneLineParser
from configs.console import require_printed
from configs.errors import EXIT_OK, InputError
from configs.option import add_flags, given_values, option, options_of
from configs.program import run_program
from configs.recipe import load_recipe
from configs.rules import Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndpointOptions(CloudRunOptions):
    """The options of the program."""

    endpoint_name: str | None = option(
        None,
        Text(),
        help="the endpoint",
        decides="neither",
        metavar="NAME",
        default_words="the recipe's name",
    )
    traffic: str | None = option(
        None,
        Text(),
        help="shares of the requests, which add up to 100; a version is named by its name or its id",
        decides="neither",
        metavar="VERSION=PERCENT,...",
    )
    undeploy: str | None = option(
        None,
        Text(),
        help="the version to undeploy; the others get its requests. The endpoint without versions costs nothing",
        decides="neither",
        metavar="VERSION",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.traffic is not None and self.undeploy is not None:
            raise InputError("--traffic and --undeploy are two steps. Pass one of them.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeployedVersion:
    """A model that is deployed at an endpoint.

    Attributes:
      number: its id there.
      name: its name, which the deployment gave it.
      model: the number of the model in the registry.
      machine_type: of its replicas; "?" if it is not known.
      percent: of the requests.
    """

    number: str
    name: str
    model: str
    machine_type: str
    percent: int


def find_endpoint(name: str, gcloud: Gcloud) -> dict[str, Any] | None:
    """The endpoint of a name; None if there is none.

    Raises:
      InputError: several have the name, or gcloud fails.
    """
    listed = gcloud.listed(gcloud.command("ai", "endpoints", "list", filter=f'displayName="{name}"'))
    found = [endpoint for endpoint in listed if endpoint.get("displayName") == name]
    if len(found) > 1:
        numbers = ", ".join(number_of(endpoint.get("name")) for endpoint in found)
        raise InputError(
            f"ENDPOINT_NAME: {len(found)} endpoints are named {name!r}: {numbers}. Delete all but one, or choose "
            "another name."
        )
    return found[0] if found else None


def number_of(resource_name: object) -> str:
    """The number at the end of the name of a resource."""
    return str(resource_name).rpartition("/")[2]


def split_of(endpoint: Mapping[str, Any]) -> dict[str, int]:
    """Percent of the requests by the id of each deployed model, also of those that get none."""
    split = endpoint.get("trafficSplit") or {}
    return {str(one.get("id")): int(split.get(str(one.get("id")), 0)) for one in endpoint.get("deployedModels") or []}


def versions_of(endpoint: Mapping[str, Any]) -> list[DeployedVersion]:
    """The versions that are deployed at an endpoint."""
    split = split_of(endpoint)
    return [
        DeployedVersion(
            number=str(one.get("id")),
            name=str(one.get("displayName") or "?"),
            model=number_of(one.get("model")),
            machine_type=str(
                ((one.get("dedicatedResources") or {}).get("machineSpec") or {}).get("machineType") or "?"
            ),
            percent=split[str(one.get("id"))],
        )
        for one in endpoint.get("deployedModels") or []
    ]


def _find_version(named: str, versions: Sequence[DeployedVersion], *, flag: str) -> DeployedVersion:
    found = [version for version in versions if named == version.number]
    found = found or [version for version in versions if named == version.name]
    if len(found) != 1:
        known = ", ".join(f"{version.name} ({version.number})" for version in versions) or "none"
        how_many = "several are" if found else "none is"
        raise InputError(f"{flag}: {how_many} named {named!r}; deployed are: {known}. Name it by its id.")
    return found[0]


def _parse_traffic(text: str, versions: Sequence[DeployedVersion]) -> dict[str, int]:
    split = dict.fromkeys((version.number for version in versions), 0)
    for pair in text.split(","):
        named, mark, percent = pair.strip().rpartition("=")
        if not mark or not percent.isascii() or not percent.isdigit() or len(percent) > 3:
            raise InputError(f"--traffic: must be VERSION=PERCENT,... Received: {pair.strip()!r}.")
        split[_find_version(named, versions, flag="--traffic").number] = int(percent)
    if sum(split.values()) != 100:
        raise InputError(
            f"--traffic: the shares must add up to 100. Received: {text!r}, which is {sum(split.values())}."
        )
    return split


def _show(endpoint: Mapping[str, Any], name: str) -> None:
    versions = versions_of(endpoint)
    print(f"endpoint {number_of(endpoint.get('name'))} ({name})")
    if not versions:
        print("  no version is deployed, so it costs nothing")
    width = max((len(version.name) for version in versions), default=0)
    for version in sorted(versions, key=lambda version: -version.percent):
        print(
            f"  {version.percent:3d} %  {version.name:<{width}}  id {version.number}, model {version.model}, "
            f"{version.machine_type}"
        )


def main(argv: Sequence[str] | None = None, *, run: Runner = run_command) -> int:
    """Runs the program with the arguments; `run` is called to run gcloud.

    Raises:
      InputError: the user's input is wrong, or Google's services refuse it.
    """
    parser = OneLineParser(
        module="cloud.endpoint",
        description="Lists the versions behind an endpoint of Vertex AI, changes their traffic, and undeploys them.",
    )
    add_flags(parser, options_of(EndpointOptions))
    options = EndpointOptions(**given_values(parser.parse_args(argv), EndpointOptions))
    recipe = load_recipe(options.recipe)
    name = options.endpoint_name or recipe.name
    gcloud = options.gcloud(recipe, run)
    endpoint = find_endpoint(name, gcloud)
    if endpoint is None:
        raise InputError(
            f"--endpoint_name: project {gcloud.project} has no endpoint named {name!r} in {gcloud.region}. "
            "hugs_deploy.sh makes it."
        )
    number, versions = number_of(endpoint["name"]), versions_of(endpoint)
    command = None
    if options.traffic is not None:
        split = _parse_traffic(options.traffic, versions)
        command = gcloud.command("ai", "endpoints", "update", number, traffic_split=split)
    if options.undeploy is not None:
        gone = _find_version(options.undeploy, versions, flag="--undeploy")
        command = gcloud.command(
            "ai",
            "endpoints",
            "undeploy-model",
            number,
            deployed_model_id=gone.number,
            traffic_split=without(split_of(endpoint), gone.number),
        )
    if options.dry_run and command is not None:
        print(shlex.join(command))
        print("dry run: this would be sent; nothing was sent")
    elif command is not None:
        gcloud.call(command)
        endpoint = gcloud.resource(gcloud.command("ai", "endpoints", "describe", number))
    if command is None or not options.dry_run:
        _show(endpoint, name)
    require_printed()
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
