"""What to do about a refusal of Google's services, from their own words: quota projects, APIs that are off, roles.

All services word these three alike, so Beam's requests and those of gcloud share the remedies. The texts are in
Google's pages and in the reports of many users: https://cloud.google.com/docs/authentication/troubleshoot-adc,
https://cloud.google.com/service-usage/docs/enable-disable, https://cloud.google.com/iam/docs/troubleshooting-access.
"""

from __future__ import annotations

import re

from configs.cloud_roles import role_of

# Credentials of `gcloud auth application-default login` and of gcloud itself belong to these projects of Google. A
# service that counts requests for them, since no quota project is set, calls its API disabled there.
_CLIENT_PROJECTS = r"\bproject[s/ ]+(764086051850|32555940559)\b"
_NO_QUOTA_PROJECT = re.compile(
    rf"requires a quota project|authenticated using end user credentials|{_CLIENT_PROJECTS}", re.IGNORECASE
)
_QUOTA_PROJECT_DENIED = re.compile(
    r"USER_PROJECT_DENIED|does not have required permission to use project (?P<project>[\w:.-]*\w)"
)
_API_OFF = re.compile(r"SERVICE_DISABLED|has not been used in project|API .*(not enabled|is disabled)|it is disabled")
_API = re.compile(r"\b([a-z][a-z0-9-]*\.googleapis\.com)\b")
_ACT_AS = re.compile(r"\bact as\b|iam\.serviceAccounts\.actAs", re.IGNORECASE)
_PERMISSION = re.compile(
    r"\b((?:aiplatform|artifactregistry|compute|dataflow|logging|resourcemanager|serviceusage|storage)"
    r"\.(?!googleapis\b)[a-zA-Z]+\.[a-zA-Z]+)\b"
)
# No quota: https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-resource-availability.
_STOCKOUT = re.compile(r"RESOURCE_POOL_EXHAUSTED|STOCKOUT|does not have enough resources|currently unavailable in the")
# A disk type that the machine type does not take.
_DISK = re.compile(r"disk type cannot be used by")
_DENIED = re.compile(r"PERMISSION_DENIED|[Pp]ermission|does not have [\w.]+ access|[Ff]orbidden")


def machines_remedy(said: str) -> str | None:
    """What to do if machines cannot be started for another reason than a quota; None if it is about something else."""
    if _STOCKOUT.search(said):
        return (
            "The region has no such machine at the moment. Try again later, or choose another machine type or region "
            "in the recipe."
        )
    if _DISK.search(said):
        return "Leave dataflow.disk_type out of the recipe, or name one that the machine type takes."
    return None


def bucket_remedy(said: str) -> str | None:
    """What to do if Cloud Storage refuses an account; None if it says something else."""
    found = _PERMISSION.search(said)
    if found is None or not found[1].startswith("storage."):
        return None
    return (
        f"Your account needs {found[1]}, which roles/storage.admin on the bucket has. If that is another account than "
        "you think: gcloud auth application-default login"
    )


def refusal_remedy(said: str, *, project: str, api: str, role: str) -> str | None:
    """What to do about a refusal that concerns the project or the account; None if it is about something else.

    Args:
      said: what the service said.
      project: the project that the request was for.
      api: the service that was asked, such as "dataflow.googleapis.com"; its own words may name another.
      role: the role that the request needs, where the service does not name a permission.
    """
    # First, since such a refusal also says that an API is disabled: in a project that is not the user's.
    if found := _QUOTA_PROJECT_DENIED.search(said):
        denied = found["project"] or project
        return (
            f"Your account needs the role roles/serviceusage.serviceUsageConsumer in project {denied}, which is "
            f"charged for its requests. Or name another: gcloud auth application-default set-quota-project {project}"
        )
    if _NO_QUOTA_PROJECT.search(said):
        return f"Name the project that requests count for: gcloud auth application-default set-quota-project {project}"
    if _API_OFF.search(said):
        named = _API.search(said)
        return f"Turn the API on: gcloud services enable {named[1] if named else api} --project {project}"
    if _ACT_AS.search(said):
        return "Your account needs the role roles/iam.serviceAccountUser on the service account that the recipe names."
    if _DENIED.search(said):
        permission = _PERMISSION.search(said)
        needed = (role_of(permission[1]) if permission else None) or role
        return f"Your account needs the role {needed} in project {project}; docs/cloud.md lists all roles."
    return None
