"""The roles and APIs that the jobs in the cloud need. docs/cloud.md lists them, and `hugs doctor` checks them.

Which role has which permission: https://cloud.google.com/iam/docs/roles-permissions. `roles/dataflow.developer` cannot
look up machine types, so Google's guide has `roles/compute.viewer` beside it
(https://cloud.google.com/dataflow/docs/concepts/access-control); `roles/aiplatform.user` has nothing of Artifact
Registry; and only `roles/serviceusage.serviceUsageConsumer` lets an account name a project for its quotas
(https://cloud.google.com/docs/authentication/troubleshoot-adc).
"""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeededRole:
    """A role that somebody needs.

    Attributes:
      name: for example "roles/dataflow.developer".
      on: what it is granted on; "account" is the service account of the workers.
      permissions: those of the role that are needed here.
    """

    name: str
    on: Literal["project", "bucket", "account"]
    permissions: tuple[str, ...]


_BUCKET_PERMISSIONS = (
    "storage.buckets.get",
    "storage.objects.create",
    "storage.objects.delete",
    "storage.objects.get",
    "storage.objects.list",
)
# Of the person who starts jobs, in the order of docs/cloud.md.
YOUR_ROLES = (
    NeededRole(
        name="roles/dataflow.developer",
        on="project",
        permissions=(
            "dataflow.jobs.cancel",
            "dataflow.jobs.create",
            "dataflow.jobs.get",
            "dataflow.jobs.list",
            "dataflow.messages.list",
            "dataflow.metrics.get",
        ),
    ),
    NeededRole(
        name="roles/compute.viewer",
        on="project",
        permissions=("compute.machineTypes.get", "compute.regions.get"),
    ),
    NeededRole(
        name="roles/serviceusage.serviceUsageConsumer",
        on="project",
        permissions=("serviceusage.services.list", "serviceusage.services.use"),
    ),
    NeededRole(
        name="roles/aiplatform.user",
        on="project",
        permissions=(
            "aiplatform.customJobs.create",
            "aiplatform.customJobs.get",
            "aiplatform.customJobs.list",
            "aiplatform.endpoints.create",
            "aiplatform.endpoints.deploy",
            "aiplatform.endpoints.list",
            "aiplatform.endpoints.predict",
            "aiplatform.endpoints.undeploy",
            "aiplatform.models.list",
            "aiplatform.models.upload",
        ),
    ),
    NeededRole(
        name="roles/artifactregistry.reader",
        on="project",
        permissions=("artifactregistry.repositories.downloadArtifacts", "artifactregistry.repositories.get"),
    ),
    NeededRole(name="roles/logging.viewer", on="project", permissions=("logging.logEntries.list",)),
    NeededRole(name="roles/storage.admin", on="bucket", permissions=_BUCKET_PERMISSIONS),
    NeededRole(name="roles/iam.serviceAccountUser", on="account", permissions=("iam.serviceAccounts.actAs",)),
)
# Of the workers' account.
WORKER_ROLES = (
    NeededRole(name="roles/dataflow.worker", on="project", permissions=("dataflow.workItems.lease",)),
    NeededRole(name="roles/logging.logWriter", on="project", permissions=("logging.logEntries.create",)),
    NeededRole(
        name="roles/artifactregistry.reader",
        on="project",
        permissions=("artifactregistry.repositories.downloadArtifacts",),
    ),
    NeededRole(name="roles/storage.admin", on="bucket", permissions=_BUCKET_PERMISSIONS),
)
# The role that a permission of a service usually comes with, for messages that name only the permission.
_ROLE_OF_SERVICE = {
    "aiplatform": "roles/aiplatform.user",
    "artifactregistry": "roles/artifactregistry.reader",
    "compute": "roles/compute.viewer",
    "dataflow": "roles/dataflow.developer",
    "logging": "roles/logging.viewer",
    "resourcemanager": "roles/browser",
    "serviceusage": "roles/serviceusage.serviceUsageConsumer",
    "storage": "roles/storage.admin",
}
APIS = (
    "dataflow.googleapis.com",
    "compute.googleapis.com",
    "storage.googleapis.com",
    "aiplatform.googleapis.com",
    "artifactregistry.googleapis.com",
    "logging.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "iam.googleapis.com",
    "serviceusage.googleapis.com",
)


def role_of(permission: str) -> str | None:
    """The role of the tables above that has a permission; None if none is known."""
    if permission == "iam.serviceAccounts.actAs":
        return "roles/iam.serviceAccountUser"
    return _ROLE_OF_SERVICE.get(permission.partition(".")[0])
