"""What to do about an error of gcloud. Its command tells the API that was asked, the role and the recipe's section."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from configs.service_refusals import machines_remedy, refusal_remedy


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Command:
    """What a group of commands needs.

    Attributes:
      words: those that its commands begin with, after `gcloud`.
      api: the service that it asks.
      role: the role that it needs.
      section: of the recipe, if it sends some of its fields.
    """

    words: tuple[str, ...]
    api: str
    role: str
    section: str | None = None


# The first that fits is used.
_COMMANDS = (
    _Command(
        words=("ai", "custom-jobs"), api="aiplatform.googleapis.com", role="roles/aiplatform.user", section="vertex"
    ),
    _Command(words=("ai",), api="aiplatform.googleapis.com", role="roles/aiplatform.user", section="deploy"),
    _Command(words=("artifacts",), api="artifactregistry.googleapis.com", role="roles/artifactregistry.reader"),
    _Command(words=("compute",), api="compute.googleapis.com", role="roles/compute.viewer"),
    _Command(words=("storage",), api="storage.googleapis.com", role="roles/storage.admin on the bucket"),
    _Command(words=("services",), api="serviceusage.googleapis.com", role="roles/serviceusage.serviceUsageConsumer"),
    _Command(words=(), api="cloudresourcemanager.googleapis.com", role="roles/browser"),
)
_NOT_LOGGED_IN = re.compile(r"active account|UNAUTHENTICATED|[Rr]eauthenticat|auth tokens|invalid_grant")
_QUOTA = re.compile(r"RESOURCE_EXHAUSTED|[Qq]uota")
# "This endpoint is a dedicated endpoint via CloudESF and cannot be accessed through the Vertex AI API."
_DEDICATED = re.compile(r"dedicated endpoint .*cannot be accessed")


def gcloud_remedy(said: str, command: Sequence[str], project: str) -> str:
    """What to do about what gcloud said as a command failed; empty if nothing is known."""
    words = tuple(word for word in command[1:] if not word.startswith("-"))
    asked = next(one for one in _COMMANDS if words[: len(one.words)] == one.words)
    section = f"the recipe's section {asked.section}" if asked.section else "the command"
    if _NOT_LOGGED_IN.search(said):
        return "Log in: gcloud auth login"
    if remedy := refusal_remedy(said, project=project, api=asked.api, role=asked.role):
        return remedy
    if remedy := machines_remedy(said):
        return remedy
    if _QUOTA.search(said):
        return (
            f"Choose another machine type, fewer replicas or another region in {section}, or ask for more: "
            f"https://console.cloud.google.com/iam-admin/quotas?project={project}"
        )
    if _DEDICATED.search(said):
        return "Choose the name of another endpoint."
    if "UNAVAILABLE" in said:
        return "The service does not answer at the moment. Try again later."
    if "INVALID_ARGUMENT" in said:
        return f"Correct {section}, or the flags given."
    return ""
