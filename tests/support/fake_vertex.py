"""Vertex AI and Artifact Registry on loopback, as far as gcloud asks them for training and serving.

    with FakeVertex() as vertex:
        subprocess.run(["gcloud", "ai", "custom-jobs", "list", ...], env=os.environ | vertex.environment)
        vertex.posted("customJobs")

What it answers has the fields that gcloud 528 reads. It refuses what `refusal` says, and to predict at an endpoint with
an address of its own. It checks nothing else: tests look at what was posted.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import tempfile
from typing import Any

from tests.support.loopback_server import served

_TYPE = "type.googleapis.com/google.cloud.aiplatform.v1."
_PATH = re.compile(r"/v1(?:beta1)?/projects/[^/]+/locations/[^/]+/(?P<rest>[^?]*)")
_PARENT = "projects/42/locations/us-central1"


class FakeVertex:
    """The server; a context manager.

    Attributes:
      url: of the server.
      requests: method, path below the location, and body of every request.
      jobs: custom jobs by number; a test may put some there.
      models: uploaded models by number.
      endpoints: endpoints by number.
      repositories: of Artifact Registry.
      states: of a custom job, one for each time that it is described; the last stays.
      prediction: what an endpoint answers.
      refusal: HTTP status, status name and message that everything that posts gets; None for none.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.repositories = {"docker-hub"}
        self.states = ["JOB_STATE_SUCCEEDED"]
        self.prediction: dict[str, Any] = {}
        self.refusal: tuple[int, str, str] | None = None

    def __enter__(self) -> FakeVertex:
        self._open = contextlib.ExitStack()
        self.url = f"http://127.0.0.1:{self._open.enter_context(served(_handler_of(self)))}/"
        self._folder = self._open.enter_context(tempfile.TemporaryDirectory())
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def environment(self) -> dict[str, str]:
        """Points gcloud here, with settings of its own and without credentials."""
        return {
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM": self.url,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_ARTIFACTREGISTRY": self.url,
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
            "CLOUDSDK_CONFIG": self._folder,
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def posted(self, path: str) -> list[dict[str, Any]]:
        """The bodies that were posted to a path below the location."""
        return [body for method, rest, body in self.requests if method == "POST" and rest == path]

    def answer(self, method: str, rest: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Carries a request out."""
        self.requests.append((method, rest, body))
        if method == "POST" and self.refusal is not None:
            code, status, message = self.refusal
            return code, {"error": {"code": code, "status": status, "message": message}}
        kind, _, number = rest.partition("/")
        match (method, kind):
            case ("GET", "repositories"):
                name = f"{_PARENT}/{rest}"
                return (200, {"name": name, "format": "DOCKER"}) if number in self.repositories else _missing(name)
            case ("GET", "customJobs" | "models" | "endpoints"):
                return self._get(kind, number)
            case ("POST", "customJobs"):
                return 200, self._add(self.jobs, "customJobs", {**body, "state": "JOB_STATE_PENDING"})
            case ("POST", "models:upload"):
                model = {**body["model"], "supportedDeploymentResourcesTypes": ["DEDICATED_RESOURCES"]}
                return _done("UploadModelResponse", {"model": self._add(self.models, "models", model)["name"]})
            case ("POST", "endpoints"):
                if number.endswith(":predict"):
                    return self._predict(number.partition(":")[0])
                if number.endswith(":deployModel"):
                    deployed = {**body["deployedModel"], "id": "77"}
                    self.endpoints[number.partition(":")[0]].setdefault("deployedModels", []).append(deployed)
                    return _done("DeployModelResponse", {"deployedModel": deployed})
                if number.endswith(":undeployModel"):
                    endpoint = self.endpoints[number.partition(":")[0]]
                    models = endpoint["deployedModels"]
                    endpoint["deployedModels"] = [one for one in models if one["id"] != body["deployedModelId"]]
                    endpoint["trafficSplit"] = body.get("trafficSplit", {})
                    return _done("UndeployModelResponse", {})
                return _done("Endpoint", self._add(self.endpoints, "endpoints", body))
            case ("PATCH", "endpoints"):
                self.endpoints[number] |= body
                return 200, self.endpoints[number]
        return _missing(rest)

    def _predict(self, number: str) -> tuple[int, dict[str, Any]]:
        if not self.endpoints[number].get("dedicatedEndpointEnabled"):
            return 200, self.prediction
        # As users of the real service report it, for example in the notebooks of google/generative-ai.
        message = (
            "This endpoint is a dedicated endpoint via CloudESF and cannot be accessed through the Vertex AI API. "
            "Please access the endpoint using its dedicated dns name "
            f"'{number}.us-central1-42.prediction.vertexai.goog'"
        )
        return 400, {"error": {"code": 400, "status": "FAILED_PRECONDITION", "message": message}}

    def _get(self, kind: str, number: str) -> tuple[int, dict[str, Any]]:
        known = {"customJobs": self.jobs, "models": self.models, "endpoints": self.endpoints}[kind]
        if not number:
            return 200, {kind: list(known.values())}
        if number not in known:
            return _missing(f"{kind}/{number}")
        if kind == "customJobs":
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            known[number]["state"] = state
            if state == "JOB_STATE_FAILED":
                known[number]["error"] = {
                    "code": 3,
                    "message": "The replica workerpool0-0 exited with a non-zero status.",
                }
        return 200, known[number]

    def _add(self, known: dict[str, dict[str, Any]], kind: str, resource: dict[str, Any]) -> dict[str, Any]:
        number = str(1001 + len(known))
        known[number] = {"name": f"{_PARENT}/{kind}/{number}", **resource}
        return known[number]


def _done(kind: str, response: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return 200, {"name": f"{_PARENT}/operations/9", "done": True, "response": {"@type": _TYPE + kind, **response}}


def _missing(name: str) -> tuple[int, dict[str, Any]]:
    return 404, {"error": {"code": 404, "status": "NOT_FOUND", "message": f"{name} is not found."}}


def _handler_of(vertex: FakeVertex) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = _PATH.match(self.path)
            status, answer = vertex.answer(self.command, path["rest"] if path else self.path, json.loads(body or b"{}"))
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = do_PATCH = _any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler
