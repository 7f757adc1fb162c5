"""Checks of the project: its APIs, the roles of the user and of the workers' account, the bucket, the repository."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from cloud.checkup.finding import Finding, fine, mend, unknown
from cloud.checkup.google_requests import GoogleRequests
from cloud.gcloud import Gcloud, UnreachableError
from cloud.hub_images import HUB_REPOSITORY, create_command, has_repository
from configs.cloud_roles import APIS, WORKER_ROLES, YOUR_ROLES, NeededRole
from configs.errors import InputError
from configs.printed_commands import program_command
from configs.recipe import Recipe

# The services that are asked with gcloud's login. All others are asked with the application default login.
_BY_GCLOUD = ("aiplatform", "artifactregistry", "logging")
# A role that contains another one of the tables.
_CONTAINED_IN = {
    "roles/artifactregistry.reader": {"roles/artifactregistry.writer", "roles/artifactregistry.admin"},
    "roles/logging.logWriter": {"roles/dataflow.worker", "roles/logging.admin"},
    "roles/storage.admin": {"roles/storage.objectAdmin"},
}
_BASIC = {"roles/owner", "roles/editor"}
_CONTINENTS = {"US": "us-", "EU": "europe-", "ASIA": "asia-"}
# https://cloud.google.com/storage/docs/locations#predefined.
_PREDEFINED_DUAL_REGIONS = {
    "NAM4": {"us-central1", "us-east1"},
    "EUR4": {"europe-north1", "europe-west4"},
    "EUR5": {"europe-west1", "europe-west2"},
    "EUR7": {"europe-west2", "europe-west3"},
    "EUR8": {"europe-west3", "europe-west6"},
    "ASIA1": {"asia-northeast1", "asia-northeast2"},
}


def check_apis(gcloud: Gcloud) -> Finding:
    """Whether the APIs that the jobs need are on.

    Raises:
      InputError: the project does not say.
    """
    listed = gcloud.listed(["gcloud", "services", "list", "--enabled", f"--project={gcloud.project}"])
    names = {str((one.get("config") or {}).get("name") or one.get("name", "").rpartition("/")[2]) for one in listed}
    missing = [api for api in APIS if api not in names]
    if not missing:
        return fine(f"APIs: all {len(APIS)} are on")
    return mend(
        f"APIs: {', '.join(missing)} off", f"gcloud services enable {' '.join(missing)} --project {gcloud.project}"
    )


class YourRoles:
    """Checks the roles of the user, by what each of the two logins may do.

    Args:
      beam: requests with the application default login.
      gcloud: requests with gcloud's login; None if there is none.
      project: of the jobs.
      account: of gcloud, for the commands; None if it is not known.
    """

    def __init__(self, beam: GoogleRequests, gcloud: GoogleRequests | None, project: str, account: str | None) -> None:
        self._beam, self._gcloud, self._project = beam, gcloud, project
        kind = "serviceAccount" if account and account.endswith(".gserviceaccount.com") else "user"
        self._member = f"{kind}:{account or 'YOU@EXAMPLE.COM'}"

    def on_project(self) -> Iterator[Finding]:
        """The roles in the project.

        Raises:
          InputError: the project does not say.
        """
        roles = [role for role in YOUR_ROLES if role.on == "project"]
        wanted = {permission for role in roles for permission in role.permissions}
        by_gcloud = {permission for permission in wanted if permission.startswith(_BY_GCLOUD)}
        granted = self._beam.granted_on_project(wanted - by_gcloud)
        if self._gcloud is not None:
            granted |= self._gcloud.granted_on_project(by_gcloud)
        for role in roles:
            if self._gcloud is None and role.permissions[0] in by_gcloud:
                yield unknown(f"{role.name}: gcloud is not logged in", "gcloud auth login")
                continue
            command = ["gcloud", "projects", "add-iam-policy-binding", self._project, "--condition=None"]
            yield self._judged(role, granted, "", command)

    def on_bucket(self, bucket: str) -> Finding:
        """The role on the bucket. It raises the same errors."""
        (role,) = (role for role in YOUR_ROLES if role.on == "bucket")
        granted = self._beam.granted_on_bucket(bucket, role.permissions)
        command = ["gcloud", "storage", "buckets", "add-iam-policy-binding", f"gs://{bucket}"]
        return self._judged(role, granted, f" on gs://{bucket}", command)

    def on_account(self, account: str) -> Finding:
        """The role on the workers' account. It raises the same errors."""
        (role,) = (role for role in YOUR_ROLES if role.on == "account")
        granted = set(role.permissions)
        for asked in filter(None, (self._beam, self._gcloud)):
            granted &= asked.granted_on_account(account, role.permissions)
        words = ["gcloud", "iam", "service-accounts", "add-iam-policy-binding", account, f"--project={self._project}"]
        return self._judged(role, granted, f" on {account}", words)

    def _judged(self, role: NeededRole, granted: Collection[str], on: str, command: list[str]) -> Finding:
        missing = [permission for permission in role.permissions if permission not in granted]
        if not missing:
            return fine(f"you: {role.name}{on}")
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        binding = [*command, f"--role={role.name}", f"--member={self._member}"]
        return mend(f"you: {role.name}{on} is missing ({missing[0]}{more})", shlex.join(binding))


def check_worker_roles(account: str, bucket: str, gcloud: Gcloud, beam: GoogleRequests) -> Iterator[Finding]:
    """The roles of the workers' account, as far as the policies of project and bucket may be read."""
    member = f"serviceAccount:{account}"
    read: dict[str, Callable[[], Any]] = {
        "project": lambda: gcloud.call(["gcloud", "projects", "get-iam-policy", gcloud.project]),
        "bucket": lambda: beam.policy_of_bucket(bucket),
    }
    commands = {
        "project": ["gcloud", "projects", "add-iam-policy-binding", gcloud.project, "--condition=None"],
        "bucket": ["gcloud", "storage", "buckets", "add-iam-policy-binding", f"gs://{bucket}"],
    }
    in_project: set[str] = set()
    for on, read_policy in read.items():
        try:
            roles = _roles_of(member, read_policy()) | in_project
        except UnreachableError:
            raise
        except InputError:
            yield unknown(
                f"roles of {account} on the {on}: you may not read who has which",
                f"ask the owner of the project to run: {program_command('doctor', f'gs://{bucket}')}",
            )
            continue
        in_project = roles if on == "project" else in_project
        for role in (role for role in WORKER_ROLES if role.on == on):
            if roles & {role.name, *_BASIC, *_CONTAINED_IN.get(role.name, ())}:
                yield fine(f"{account}: {role.name}")
            else:
                binding = [*commands[on], f"--role={role.name}", f"--member={member}"]
                yield mend(f"{account}: {role.name} on the {on} is missing", shlex.join(binding))


def _roles_of(member: str, policy: object) -> set[str]:
    bindings = policy.get("bindings") if isinstance(policy, Mapping) else None
    return {
        str(one.get("role"))
        for one in bindings or ()
        if isinstance(one, Mapping) and member in (one.get("members") or ())
    }


def check_place(bucket: str, region: str, beam: GoogleRequests) -> Finding:
    """Whether the bucket is where the jobs run.

    Raises:
      InputError: there is no such bucket, or it may not be read.
    """
    found = beam.bucket(bucket)
    location = str(found.get("location", "")).upper()
    placement = found.get("customPlacementConfig")
    regions = {str(one).lower() for one in (placement or {}).get("dataLocations") or ()}
    regions |= _PREDEFINED_DUAL_REGIONS.get(location, set())
    if location.lower() == region or region in regions:
        return fine(f"gs://{bucket} is in {region}, as the jobs")
    if location in _CONTINENTS and region.startswith(_CONTINENTS[location]) and not placement:
        return fine(f"gs://{bucket} is in {location}, which has {region}; one in {region} alone costs less")
    return mend(
        f"gs://{bucket} is in {location.lower()}, and the jobs run in {region}: each photo crosses regions, for money",
        f"gcloud storage buckets create gs://NEW_BUCKET --location {region}; or set cloud.region: {location.lower()}",
    )


def check_repository(recipe: Recipe, gcloud: Gcloud) -> Finding | None:
    """Whether the project has the repository that passes on images of Docker Hub; None if the recipe needs none.

    Raises:
      InputError: Artifact Registry does not say.
    """
    if recipe.vertex.image is not None and recipe.deploy.image is not None:
        return None
    if has_repository(gcloud):
        return fine(f"repository {HUB_REPOSITORY} in {gcloud.region}")
    return mend(
        f"repository {HUB_REPOSITORY} in {gcloud.region} is missing: images for training and serving come through it",
        create_command(gcloud),
    )


def is_bucket_name(name: str) -> bool:
    """Whether Cloud Storage could have a bucket with this name."""
    return bool(re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", name))
