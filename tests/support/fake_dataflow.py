"""The Dataflow service on loopback, as far as Beam's DataflowRunner talks to it: jobs that run as the test says.

    with FakeDataflow() as service:
        subprocess.run([..., "--runner=DataflowRunner", f"--dataflow_endpoint={service.url}"])
        service.jobs[0].posted  # what was sent, as JSON
        service.jobs[0].states = ["JOB_STATE_RUNNING", "JOB_STATE_DONE"]

It runs nothing. Jobs whose workers could not start for their disks fail as with the service. Beam does not check its
options against an endpoint that is called localhost.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import itertools
import json
import re
import threading
import urllib.parse
from typing import Any

from tests.support.loopback_server import served

_JOBS = re.compile(
    r"/v1b3/projects/(?P<project>[^/]+)/locations/(?P<region>[^/]+)/jobs(/(?P<id>[^/]+))?(?P<part>/\w+)?"
)
# https://cloud.google.com/dataflow/docs/reference/rest/v1b3/projects.jobs#jobstate
_TERMINAL = {"JOB_STATE_DONE", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_UPDATED", "JOB_STATE_DRAINED"}


@dataclasses.dataclass(kw_only=True)
class FakeJob:
    """A job of the service.

    Attributes:
      id: that the service gave it.
      project: that it was sent to.
      region: that it was sent to.
      posted: what was sent, as JSON.
      states: those that the next requests see, one each; the last one stays.
      messages: (importance, text) of what the job logs.
    """

    id: str
    project: str
    region: str
    posted: dict[str, Any]
    states: list[str] = dataclasses.field(default_factory=lambda: ["JOB_STATE_RUNNING"])
    messages: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> str:
        return self.posted["name"]

    def seen(self) -> dict[str, Any]:
        """The job as the next request sees it."""
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {
            "id": self.id,
            "name": self.name,
            "projectId": self.project,
            "location": self.region,
            "currentState": state,
            "clientRequestId": self.posted.get("clientRequestId", ""),
        }


class FakeDataflow:
    """The server; a context manager.

    Attributes:
      url: of the server.
      jobs: in the order in which they were created.
      new_states: of each job that is created from now on.
      new_messages: of each job that is created from now on.
      refusal: (HTTP status, message, of which requests) answered in place of anything else.
      hides_jobs: the list of active jobs is empty, as it is for a job that was created this very moment.
    """

    def __init__(self) -> None:
        self.jobs: list[FakeJob] = []
        self.new_states = ["JOB_STATE_RUNNING"]
        self.new_messages: list[tuple[str, str]] = []
        self.refusal: tuple[int, str, str] | None = None
        self.hides_jobs = False
        self.requests: list[str] = []
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def __enter__(self) -> FakeDataflow:
        self._open = contextlib.ExitStack()
        self.url = f"http://localhost:{self._open.enter_context(served(_handler_of(self)))}"
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Carries out a request."""
        path, _, query = target.partition("?")
        fields = urllib.parse.parse_qs(query)
        with self._lock:
            self.requests.append(f"{method} {path}")
            if self.refusal is not None and method in self.refusal[2]:
                return _error(self.refusal[0], self.refusal[1])
            found = _JOBS.fullmatch(path)
            if found is None:
                return _error(404, f"no such resource: {path}")
            if method == "POST":
                return self._create(json.loads(body), found["project"], found["region"])
            if found["id"] is None:
                jobs = [] if self.hides_jobs else self._active()
                wanted = fields.get("name", [None])[0]
                return 200, {"jobs": [job.seen() for job in jobs if wanted in (None, job.name)]}
            job = next((job for job in self.jobs if job.id == found["id"]), None)
            if job is None:
                return _error(404, f"no such job: {found['id']}")
            if found["part"] == "/messages":
                return 200, {"jobMessages": [_message(number, *one) for number, one in enumerate(job.messages)]}
            if found["part"] == "/metrics":
                return 200, {"metrics": []}
            return 200, job.seen()

    def _active(self) -> list[FakeJob]:
        return [job for job in self.jobs if job.states[0] not in _TERMINAL]

    def _create(self, posted: dict[str, Any], project: str, region: str) -> tuple[int, dict[str, Any]]:
        # Of two active jobs of one name the service keeps the first, and answers with it.
        for job in self._active():
            if job.name == posted["name"]:
                return 200, job.seen()
        job = FakeJob(
            id=f"2026-01-02_03_04_05-{next(self._ids)}",
            project=project,
            region=region,
            posted=posted,
            states=list(self.new_states),
            messages=list(self.new_messages),
        )
        if refused := _refused_disk(posted):
            job.states, job.messages = ["JOB_STATE_RUNNING", "JOB_STATE_FAILED"], [("JOB_MESSAGE_ERROR", refused)]
        self.jobs.append(job)
        return 200, {**job.seen(), "currentState": "JOB_STATE_PENDING"}


def _refused_disk(posted: dict[str, Any]) -> str | None:
    """What Compute Engine says of the disks of the workers; None if it starts them.

    Its words are in the reports of many users, such as https://github.com/GoogleCloudPlatform/compute-image-tools.
    """
    for pool in posted.get("environment", {}).get("workerPools", ()):
        machine, disk = str(pool.get("machineType")), str(pool.get("diskType", "")).rpartition("/")[2]
        if (
            (disk.startswith("hyperdisk-") and machine.startswith(("n1-", "n2-", "n2d-")))
            or (disk.startswith("pd-") and machine.startswith(("c4-", "n4-")))
            or (disk in ("", "pd-standard") and machine.startswith(("c3-", "c4-", "n4-")))
        ):
            return f"{disk or 'pd-standard'} disk type cannot be used by {machine} machine type."
    return None


def _message(number: int, importance: str, text: str) -> dict[str, str]:
    return {
        "id": str(number),
        "time": f"2026-01-02T03:04:{number:02d}Z",
        "messageImportance": importance,
        "messageText": text,
    }


def _error(status: int, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"code": status, "message": message}}


def _handler_of(service: FakeDataflow) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = service.answer(self.command, self.path, body)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler
