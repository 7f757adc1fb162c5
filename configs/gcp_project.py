"""Finds the Google Cloud project that pays: the user names it, or gcloud is set to it."""

from __future__ import annotations

import os
import shutil
import subprocess

from configs.cloud import CloudOptions
from configs.errors import InputError
from configs.section import FieldError

_ENVIRONMENT = ("GOOGLE_CLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT")
_GCLOUD_TIMEOUT_SEC = 60


def find_project(options: CloudOptions, given: str | None = None) -> str:
    """The project of a job.

    Args:
      options: the recipe's section `cloud`.
      given: the project on the command line, which overrides all others.

    Raises:
      InputError: nothing names a project, or the name is not valid.
    """
    if given is not None:
        return CloudOptions(project=given).project or ""
    if options.project:
        return options.project
    for variable in _ENVIRONMENT:
        if project := os.environ.get(variable):
            return _checked(project, place=variable)
    project = _of_gcloud()
    if not project:
        raise InputError(
            "project: none is given. Set cloud.project in the recipe or GOOGLE_CLOUD_PROJECT, pass --project, or run: "
            "gcloud config set project PROJECT"
        )
    return _checked(project, place="gcloud config get-value core/project")


def _checked(project: str, *, place: str) -> str:
    try:
        CloudOptions(project=project)
    except FieldError as error:
        raise InputError(f"{place}: {error}") from error
    return project


def _of_gcloud() -> str | None:
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        return None
    command = [gcloud, "config", "get-value", "core/project", "--quiet"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GCLOUD_TIMEOUT_SEC, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
