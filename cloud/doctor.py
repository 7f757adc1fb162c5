"""Checks, at no cost, whether a project in the cloud has all that the jobs need, and says how to mend what is missing.

hugs doctor gs://BUCKET --recipe my.yaml
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cloud.checkup.finding import Finding, mend, unknown
from cloud.gcloud import Gcloud, Runner, UnreachableError, run_command
from cloud.options import CloudPlaceOptions
from configs.activity import doing
from configs.arguments import OneLineParser
from configs.console import require_printed
from configs.errors import EXIT_INPUT_ERROR, EXIT_OK, InputError
from configs.option import REQUIRED, add_flags, given_values, option, options_of
from configs.program import run_program
from configs.recipe import Recipe, load_recipe
from configs.rules import Switch, Text

if TYPE_CHECKING:
    from cloud.checkup.google_requests import GoogleRequests

_LABELS = {"fine": "fine   ", "mend": "MEND   ", "unknown": "unknown"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorOptions(CloudPlaceOptions):
    """The options of the program."""

    bucket: str = option(
        REQUIRED,
        Text(anything=True),
        help="the bucket of the jobs, gs://BUCKET",
        decides="neither",
        metavar="gs://BUCKET",
        positional=True,
    )
    json: bool = option(
        False,
        Switch(can_be_unset=False),
        help="print one JSON object a line: verdict, what, remedy",
        decides="neither",
    )


def _application_default() -> Any:
    from cloud.checkup.google_requests import application_default  # here: --help does not need Google's client

    return application_default()


def _bucket_of(uri: str) -> str:
    from cloud.checkup.project import is_bucket_name

    name, _, folder = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or folder.strip("/") or not is_bucket_name(name):
        raise InputError(f"BUCKET: must be gs://BUCKET. Received: {uri!r}.")
    return name


def _findings(recipe: Recipe, bucket: str, gcloud: Gcloud, login: Callable[[], Any]) -> Iterator[Finding]:
    """All checks, those of this machine first.

    Raises:
      UnreachableError: there is no network.
    """
    from cloud.checkup import machine
    from cloud.checkup.google_requests import GoogleRequests, of_token

    yield machine.check_python()
    yield machine.check_packages()
    installed = machine.check_gcloud(gcloud)
    yield installed
    has_gcloud = installed.verdict == "fine"
    try:
        credentials = login()
    except InputError as error:
        yield mend(f"login of Beam and Cloud Storage: {error}", "gcloud auth application-default login")
        credentials = None
    else:
        yield from machine.check_logins(credentials, gcloud.project)
    own_login = None
    if has_gcloud:
        own_login, finding = machine.check_login_of_gcloud(gcloud)
        yield finding
    beam = GoogleRequests(credentials, gcloud.project) if credentials is not None else None
    own = GoogleRequests(of_token(own_login.token), gcloud.project) if own_login is not None else None
    account = own_login.account if own_login is not None else None
    yield from _of_project(recipe, bucket, gcloud, beam, own, account)


def _of_project(
    recipe: Recipe,
    bucket: str,
    gcloud: Gcloud,
    beam: GoogleRequests | None,
    own: GoogleRequests | None,
    account: str | None,
) -> Iterator[Finding]:
    """The checks that need a network and a login: of Beam (`beam`), of gcloud (`own`, with its account)."""
    from cloud.checkup import project, quotas

    if beam is not None:
        roles = project.YourRoles(beam, own, gcloud.project, account)
        yield from _tried("the bucket", lambda: [project.check_place(bucket, gcloud.region, beam)])
        yield from _tried("your role on the bucket", lambda: [roles.on_bucket(bucket)])
        yield from _tried("your roles in the project", lambda: list(roles.on_project()))
    if own is not None:
        yield from _tried("APIs", lambda: [project.check_apis(gcloud)])
    workers = recipe.cloud.service_account
    if workers is None:
        yield unknown(
            "workers' account: the recipe names none, so workers are the project's default account",
            "set cloud.service_account in the recipe; docs/cloud.md has the commands that make one",
        )
    elif beam is not None:
        yield from _tried("your role on the workers' account", lambda: [roles.on_account(workers)])
        if own is not None:
            yield from project.check_worker_roles(workers, bucket, gcloud, beam)
    if own is not None:
        lists = sum(path is not None for path in (recipe.lists.train, recipe.lists.eval, recipe.lists.test))
        yield from _tried("quotas", lambda: list(quotas.check_quotas(recipe.dataflow, lists, gcloud)))
        yield from _tried("the repository", lambda: [one for one in [project.check_repository(recipe, gcloud)] if one])


def _tried(what: str, check: Callable[[], Sequence[Finding]]) -> Iterator[Finding]:
    """What a check finds; if a service refuses to answer, that is a finding too."""
    try:
        yield from check()
    except UnreachableError:
        raise
    except InputError as error:
        yield mend(f"{what}: {error}")


def main(
    argv: Sequence[str] | None = None,
    *,
    run: Runner = run_command,
    login: Callable[[], Any] = _application_default,
) -> int:
    """Runs the program; `run` is called to run gcloud, `login` for the credentials of Beam.

    Returns:
      0 if nothing needs to be mended, else 2.

    Raises:
      InputError: the user's input is wrong, or there is no network.
    """
    parser = OneLineParser(module="cloud.doctor", description=(__doc__ or "").partition("\n\n")[0])
    add_flags(parser, options_of(DoctorOptions))
    options = DoctorOptions(**given_values(parser.parse_args(argv), DoctorOptions))
    recipe, bucket = load_recipe(options.recipe), _bucket_of(options.bucket)
    gcloud = options.gcloud(recipe, run)
    to_mend = not_known = 0
    if not options.json:
        print(f"project {gcloud.project}, region {gcloud.region}, gs://{bucket}", flush=True)
    with doing("checking the project"):
        for finding in _findings(recipe, bucket, gcloud, login):
            to_mend += finding.verdict == "mend"
            not_known += finding.verdict == "unknown"
            if options.json:
                print(json.dumps(dataclasses.asdict(finding)), flush=True)
            else:
                print(f"{_LABELS[finding.verdict]}  {finding.what}", flush=True)
                if finding.remedy:
                    print(f"           {finding.remedy}", flush=True)
    if not options.json:
        left = f"{not_known} not known" if not_known else ""
        done = f"{to_mend} to mend" if to_mend else "nothing to mend"
        print(", ".join(filter(None, (done, left))))
    require_printed()
    return EXIT_INPUT_ERROR if to_mend else EXIT_OK


if __name__ == "__main__":
    run_program(main)
