"""A project of Google Cloud on loopback, as far as `hugs doctor` asks about it: roles, APIs, a bucket, quotas.

    with FakeProject(roles={"roles/compute.viewer"}) as project:
        doctor.main(["gs://bucket"], run=project.run, login=project.login)

Both ways to ask it lead to the same answers: HTTP, for `requests` and the real gcloud (`environment`), and `run`, which
stands for gcloud. It refuses as the services do, in their words.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import subprocess
import tempfile
import urllib.parse
from collections.abc import Collection, Sequence
from typing import Any

from configs.cloud_roles import APIS
from tests.support.loopback_server import served

# Of the permissions that the jobs need, those that each role has: https://cloud.google.com/iam/docs/roles-permissions.
_STORAGE = {f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list")}
PERMISSIONS = {
    "roles/dataflow.developer": {
        *(f"dataflow.jobs.{verb}" for verb in ("cancel", "create", "get", "list")),
        "dataflow.messages.list",
        "dataflow.metrics.get",
        "compute.projects.get",
        "compute.regions.list",
        "resourcemanager.projects.get",
    },
    "roles/compute.viewer": {
        "compute.machineTypes.get",
        "compute.projects.get",
        "compute.regions.get",
        "serviceusage.services.list",
        "resourcemanager.projects.get",
    },
    "roles/serviceusage.serviceUsageConsumer": {"serviceusage.services.list", "serviceusage.services.use"},
    "roles/aiplatform.user": {
        *(f"aiplatform.customJobs.{verb}" for verb in ("cancel", "create", "get", "list")),
        *(f"aiplatform.endpoints.{verb}" for verb in ("create", "deploy", "list", "predict", "undeploy")),
        *(f"aiplatform.models.{verb}" for verb in ("list", "upload")),
        "resourcemanager.projects.get",
    },
    "roles/artifactregistry.reader": {
        "artifactregistry.repositories.downloadArtifacts",
        "artifactregistry.repositories.get",
        "resourcemanager.projects.get",
    },
    "roles/logging.viewer": {"logging.logEntries.list", "resourcemanager.projects.get"},
    "roles/storage.objectAdmin": _STORAGE,
    "roles/storage.admin": {"storage.buckets.get", "storage.buckets.getIamPolicy", *_STORAGE},
    "roles/iam.serviceAccountUser": {"iam.serviceAccounts.actAs", "iam.serviceAccounts.get"},
    "roles/browser": {"resourcemanager.projects.get", "resourcemanager.projects.getIamPolicy"},
}
OWNER = "roles/owner"
PROJECT, NUMBER, REGION = "my-project", "42", "us-central1"
WORKERS = "hugs@my-project.iam.gserviceaccount.com"
_SERVICES = ("AIPLATFORM", "ARTIFACTREGISTRY", "CLOUDRESOURCEMANAGER", "IAM", "SERVICEUSAGE", "STORAGE")


class FakeProject:
    """The project, and its server; a context manager.

    Attributes:
      roles: those that the user has, on whatever needs one.
      worker_roles: those that the workers' account has.
      apis: those that are on.
      location: of the bucket gs://bucket, as Cloud Storage names it.
      quotas: limit and usage by metric.
      repositories: of Artifact Registry.
      quota_project: of the user's application default login.
      logged_in: whether gcloud has a login.
      asked: method and path of every request.
    """

    def __init__(self, roles: Collection[str] = (OWNER,)) -> None:
        self.roles = set(roles)
        self.worker_roles = {
            "roles/dataflow.worker",
            "roles/logging.logWriter",
            "roles/artifactregistry.reader",
            "roles/storage.admin",
        }
        self.apis = set(APIS)
        self.location = "US-CENTRAL1"
        self.quotas = {
            "CPUS": (500.0, 0.0),
            "N2_CPUS": (500.0, 0.0),
            "DISKS_TOTAL_GB": (4096.0, 0.0),
            "SSD_TOTAL_GB": (500.0, 0.0),
            "IN_USE_ADDRESSES": (69.0, 1.0),
            "PREEMPTIBLE_CPUS": (0.0, 0.0),
            "NVIDIA_T4_GPUS": (1.0, 0.0),
        }
        self.repositories = {"docker-hub"}
        self.quota_project: str | None = PROJECT
        self.logged_in = True
        self.asked: list[tuple[str, str]] = []

    def __enter__(self) -> FakeProject:
        self._open = contextlib.ExitStack()
        self.url = f"http://127.0.0.1:{self._open.enter_context(served(_handler_of(self)))}/"
        self._folder = self._open.enter_context(tempfile.TemporaryDirectory())
        with open(f"{self._folder}/token", "w", encoding="utf-8") as stream:
            stream.write("a-token")
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def environment(self) -> dict[str, str]:
        """Points gcloud and our own requests here."""
        return {
            **{f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{name}": self.url for name in _SERVICES},
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": f"{self.url}compute/v1/",
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": f"{self._folder}/token",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
            "CLOUDSDK_CONFIG": self._folder,
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def login(self) -> Any:
        """The user's application default credentials."""
        from google.oauth2.credentials import Credentials

        return Credentials(token="a-token", quota_project_id=self.quota_project)

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Answers a command of gcloud from the same project."""
        words = [word for word in command[1:] if not word.startswith("-")]
        location = f"v1/projects/{PROJECT}/locations/{REGION}"
        match words:
            case ["version"]:
                return _printed(command, {"Google Cloud SDK": "528.0.0"})
            case ["auth", "print-access-token"] if not self.logged_in:
                said = "You do not currently have an active account selected.\nPlease run:\n\n  $ gcloud auth login\n"
                return subprocess.CompletedProcess(command, 1, "", f"ERROR: (gcloud.auth.print-access-token) {said}")
            case ["auth", "print-access-token"]:
                return _printed(command, {"token": "a-token"})
            case ["auth", "list"]:
                return _printed(command, [{"account": "me@example.com", "status": "ACTIVE"}])
            case ["services", "list"]:
                status, answer = self.answer("GET", f"v1/projects/{PROJECT}/services", {})
                answer = answer if "error" in answer else answer["services"]
            case ["projects", "get-iam-policy", _]:
                status, answer = self.answer("POST", f"v1/projects/{PROJECT}:getIamPolicy", {})
            case ["compute", "regions", "describe", region]:
                status, answer = self.answer("GET", f"compute/v1/projects/{PROJECT}/regions/{region}", {})
            case ["artifacts", "repositories", "describe", name]:
                status, answer = self.answer("GET", f"{location}/repositories/{name}", {})
            case _:
                raise AssertionError(f"{command} was not expected")
        if status == 200:
            return _printed(command, answer)
        said = f"{answer['error']['status']}: {answer['error']['message']}"
        return subprocess.CompletedProcess(command, 1, "", f"ERROR: (gcloud.{'.'.join(words[:3])}) {said}\n")

    def answer(self, method: str, target: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answers a request."""
        path, _, query = target.lstrip("/").partition("?")
        self.asked.append((method, path))
        wanted = body.get("permissions") or urllib.parse.parse_qs(query).get("permissions", [])
        last = urllib.parse.unquote(path).rpartition("/")[2]
        if last.endswith(":testIamPermissions") or last == "testPermissions":
            return 200, {"permissions": [one for one in wanted if self._may(one)]}
        if last.endswith(":getIamPolicy"):
            # https://cloud.google.com/iam/docs/troubleshooting-access.
            return self._if(
                "resourcemanager.projects.getIamPolicy", self._policy(), "The caller does not have permission"
            )
        if path == f"v1/projects/{PROJECT}/services":
            return self._if(
                "serviceusage.services.list",
                {"services": [{"config": {"name": name}, "state": "ENABLED"} for name in sorted(self.apis)]},
                f"Permission denied to list services for consumer container [projects/{NUMBER}]",
            )
        if path.startswith("compute/v1/"):
            rows = [{"metric": name, "limit": limit, "usage": usage} for name, (limit, usage) in self.quotas.items()]
            refusal = f"Required 'compute.regions.get' permission for 'projects/{PROJECT}/regions/{last}'"
            return self._if("compute.regions.get", {"name": last, "quotas": rows}, refusal)
        if "/repositories/" in path:
            permission = "artifactregistry.repositories.get"
            if self._may(permission) and last not in self.repositories:
                return _error(404, "NOT_FOUND", "Requested entity was not found.")
            refusal = f"Permission '{permission}' denied on resource '//artifactregistry/{path}' (or it may not exist)."
            return self._if(permission, {"name": path.removeprefix("v1/"), "format": "DOCKER"}, refusal)
        return self._of_bucket(path)

    def _of_bucket(self, path: str) -> tuple[int, dict[str, Any]]:
        if not path.startswith("storage/v1/b/bucket"):
            return _error(404, "NOT_FOUND", "The specified bucket does not exist.")
        words = (
            "me@example.com does not have {} access to the Google Cloud Storage bucket. Permission '{}' denied on "
            "resource (or it may not exist)."
        )
        permission = "storage.buckets.getIamPolicy" if path.endswith("/iam") else "storage.buckets.get"
        found = self._policy() if path.endswith("/iam") else {"name": "bucket", "location": self.location}
        return self._if(permission, found, words.format(permission, permission))

    def _may(self, permission: str) -> bool:
        return OWNER in self.roles or any(permission in PERMISSIONS.get(role, ()) for role in self.roles)

    def _if(self, permission: str, answer: dict[str, Any], refusal: str) -> tuple[int, dict[str, Any]]:
        return (200, answer) if self._may(permission) else _error(403, "PERMISSION_DENIED", refusal)

    def _policy(self) -> dict[str, Any]:
        return {
            "bindings": [{"role": role, "members": [f"serviceAccount:{WORKERS}"]} for role in sorted(self.worker_roles)]
        }


def _printed(command: Sequence[str], answer: object) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(command, 0, json.dumps(answer), "")


def _error(code: int, status: str, message: str) -> tuple[int, dict[str, Any]]:
    return code, {"error": {"code": code, "status": status, "message": message}}


def _handler_of(project: FakeProject) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = project.answer(self.command, self.path, json.loads(body or b"{}"))
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler
