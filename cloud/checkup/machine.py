"""Checks of this machine: Python, packages, gcloud, and the two logins."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from cloud.checkup.finding import Finding, fine, mend
from cloud.gcloud import Gcloud, UnreachableError
from configs.errors import InputError
from configs.source_files import REPOSITORY

_OLDEST_PYTHON, _NEWEST_PYTHON = (3, 11), (3, 13)
# What jobs in the cloud get in the versions of this machine, and what sends them.
_PACKAGES = ("apache-beam", "tensorflow", "keras", "numpy", "pillow", "openvino", "protobuf", "google-cloud-storage")
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
    wrong = [f"{name} is missing" for name in _PACKAGES if name not in installed and (not wanted or name in wanted)]
    for name, version in installed.items():
        if wanted.get(name, version) != version:
            wrong.append(f"{name} is {version} and not {wanted[name]}")
    if wrong:
        return mend(f"packages: {', '.join(wrong)}", "make setup")
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


def token_of_gcloud(gcloud: Gcloud) -> tuple[str | None, Finding]:
    """The access token of gcloud's own login, which Vertex AI and Artifact Registry are asked with."""
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
    account = account_of_gcloud(gcloud)
    return token, fine("login of gcloud" + (f": {account}" if account else ""))


def account_of_gcloud(gcloud: Gcloud) -> str | None:
    """The e-mail address of the account that gcloud is logged in with; None if it is not known."""
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
