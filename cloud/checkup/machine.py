"""Checks of this machine: Python, packages, gcloud, and the two logins."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from cloud.checkup.finding import Finding, fine, mend
from cloud.gcloud import Gcloud, UnreachableError
from configs.errors import InputError
from configs.install_hint import install_hint
from configs.source_files import REPOSITORY

_OLDEST_PYTHON, _NEWEST_PYTHON = (3, 11), (3, 13)
# What sends jobs, and what they get in the versions of this machine.
_REQUIRED = ("apache-beam", "google-cloud-storage", "tensorflow", "keras", "numpy", "pillow", "protobuf")
_PACKAGES = (*_REQUIRED, "openvino")
_LOCK = "requirements.lock"


def check_python() -> Finding:
    """Whether Beam has workers with this version of Python."""
    version = ".".join(map(str, sys.version_info[:3]))
    if _OLDEST_PYTHON <= sys.version_info[:2] <= _NEWEST_PYTHON:
        return fine(f"Python {version}")
    return mend(f"Python {version}: 3.11, 3.12 or 3.13 is needed, since workers get the same", "make setup")


def check_packages(lock_path: str = os.path.join(REPOSITORY, _LOCK)) -> Finding:
    """Whether the packages that matter are installed, in the versions of the lock if this is a checkout."""
    wanted = _versions_in(lock_path)
    installed = {name: version for name in _PACKAGES if (version := _installed(name)) is not None}
    wrong = [f"{name} is missing" for name in _PACKAGES if name not in installed and name in (*_REQUIRED, *wanted)]
    for name, version in installed.items():
        if wanted.get(name, version) != version:
            wrong.append(f"{name} is {version} and not {wanted[name]}")
    if wrong:
        return mend(f"packages: {', '.join(wrong)}", "make setup" if wanted else install_hint("pipeline"))
    said = ", ".join(f"{name} {installed[name]}" for name in ("apache-beam", "tensorflow", "protobuf"))
    return fine(f"packages: {said}" + (f", {len(installed)} as in {_LOCK}" if wanted else ""))


def _versions_in(lock_path: str) -> dict[str, str]:
    try:
        with open(lock_path, encoding="utf-8") as stream:
            return dict(re.findall(r"(?m)^([a-z0-9][a-z0-9._-]*)==([^\s;\\]+)", stream.read()))
    except OSError:
        return {}  # The project is installed, and no checkout is here.


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_gcloud(gcloud: Gcloud) -> Finding:
    """Whether gcloud is installed, and knows the flags that are used."""
    try:
        gcloud.require_new_enough()
    except UnreachableError:
        raise
    except InputError as error:
        return mend(str(error))
    return fine("gcloud is installed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GcloudLogin:
    """The login of gcloud, with which Vertex AI and Artifact Registry are asked.

    Attributes:
      token: an access token.
      account: its e-mail address; None if it is not known.
    """

    token: str = dataclasses.field(repr=False)
    account: str | None


def check_login_of_gcloud(gcloud: Gcloud) -> tuple[GcloudLogin | None, Finding]:
    """Gcloud's own login; None if it has none."""
    try:
        answer = gcloud.call(["gcloud", "auth", "print-access-token"])
    except UnreachableError:
        raise
    except InputError as error:
        said = str(error).partition(": ")[2].partition(" Log in:")[0]
        return None, mend(f"login of gcloud: {said.rstrip('.')}", "gcloud auth login")
    token = answer.get("token") if isinstance(answer, dict) else None
    if not isinstance(token, str):
        return None, mend("login of gcloud: it has no access token", "gcloud auth login")
    account = _account_of_gcloud(gcloud)
    return GcloudLogin(token=token, account=account), fine("login of gcloud" + (f": {account}" if account else ""))


def _account_of_gcloud(gcloud: Gcloud) -> str | None:
    try:
        accounts = gcloud.listed(["gcloud", "auth", "list", "--filter=status:ACTIVE"])
    except InputError:
        return None
    account = accounts[0].get("account") if accounts else None
    return account if isinstance(account, str) else None


def check_logins(credentials: Any, project: str) -> Iterator[Finding]:
    """The login of Beam and of Cloud Storage's client, and the project that its requests count for.

    Args:
      credentials: of google.auth.
      project: of the jobs.
    """
    account = getattr(credentials, "service_account_email", None)
    yield fine("login of Beam and Cloud Storage (application default)" + (f": {account}" if account else ""))
    from google.oauth2.credentials import Credentials

    if not isinstance(credentials, Credentials):
        return  # A service account has a project of its own.
    quota_project = credentials.quota_project_id
    if quota_project is None:
        yield mend(
            "quota project: the login names none, so services say that their API is not enabled",
            f"gcloud auth application-default set-quota-project {project}",
        )
    else:
        yield fine(f"quota project: {quota_project}")
