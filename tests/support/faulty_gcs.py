"""Google Cloud Storage on loopback that fails as planned: gcp-storage-emulator behind a server of ours.

    with FaultyGcs(buckets=["bucket"]) as gcs:
        subprocess.run([...], env=os.environ | gcs.environment)
        gcs.plan = FaultPlan(share=0.2)

It also gives out the tokens that Google's client libraries ask for; `environment` points them here.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import functools
import http.server
import io
import json
import os
import random
import re
import tempfile
import threading
import urllib.parse
from collections.abc import Callable, Sequence

from gcp_storage_emulator import server as emulator
from gcp_storage_emulator.handlers import buckets as emulated_buckets
from gcp_storage_emulator.storage import Storage

# A number is an HTTP status. The request is carried out before "lost", "cut", "short" and "damaged", not before others.
ALL_FAULTS = ("429", "500", "503", "stall", "drop", "lost", "cut", "short", "damaged")
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_OF_MEDIA = {"short", "damaged"}
_MESSAGES = {404: "No such object: {name}", 403: "The caller lacks storage.objects access.", 503: "Backend error"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaultPlan:
    """Which requests fail, and how.

    Attributes:
      share: of the requests fail, from 0 to 1.
      faults: what they meet, each as often as the others: an HTTP status as the answer; "stall" (no answer for
        `stall_sec`), "drop" (the connection is closed, nothing done), "lost" (done, but closed without an answer),
        "cut" (closed in the middle of the answer), "short" (a shorter body with a length that agrees), "damaged"
        (one byte of the body is another). The last two befall what has a checksum: the content of objects.
      seed: of the choice.
      stall_sec: how long a stall lasts.
      latency_sec: before each answer.
      max_faults: no more than these.
      only: a regular expression found in "METHOD path" of the requests that may fail.
    """

    share: float = 0.0
    faults: Sequence[str] = ALL_FAULTS
    seed: int = 0
    stall_sec: float = 1.0
    latency_sec: float = 0.0
    max_faults: int = 10**9
    only: str = ""


@dataclasses.dataclass(frozen=True)
class Exchange:
    """One request, the status answered without a fault, and the fault."""

    request: str
    status: int | None
    fault: str | None


class _Call:
    """What the emulator takes for its request handler; collects the answer instead of sending it."""

    def __init__(self, handler: http.server.BaseHTTPRequestHandler, body: bytes, storage: Storage):
        self.path = handler.path
        self.headers = handler.headers
        self.server = handler.server
        self.storage = storage
        self.rfile = io.BytesIO(body)
        self.wfile = io.BytesIO()
        self.status = 0
        self.answer_headers: dict[str, str] = {}

    def send_response(self, status: int, _phrase: str) -> None:
        self.status = int(status)

    def send_header(self, name: str, value: str) -> None:
        self.answer_headers[name] = value

    def end_headers(self) -> None:
        pass


def _handler_of(gcs: FaultyGcs) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body are written separately: with Nagle's algorithm the body waits 40 ms for an acknowledgement.
        disable_nagle_algorithm = True

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:  # Clients may leave in the middle of an answer.
                self.close_connection = True

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            gcs.answer(self, body)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class FaultyGcs:
    """The server; a context manager.

    Args:
      buckets: made at the start.
      plan: faults from the start; `plan` may be set at any time, and starts the choice anew.
      host: the address at which it listens.

    Attributes:
      url: of the server.
      environment: what a process has to have in its environment to use it.
      exchanges: the requests so far (without those for tokens).
      alter_upload: what becomes of the body of a request before it is carried out.
    """

    def __init__(self, *, buckets: Sequence[str] = ("bucket",), plan: FaultPlan = FaultPlan(), host: str = "127.0.0.1"):
        self._host = host
        self._storage = Storage(use_memory_fs=True)
        self._storage.buckets = {}
        for bucket in buckets:
            emulated_buckets.create_bucket(bucket, self._storage)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.exchanges: list[Exchange] = []
        self.alter_upload: Callable[[bytes], bytes] = bytes
        self.plan = plan

    @property
    def plan(self) -> FaultPlan:
        return self._plan

    @plan.setter
    def plan(self, plan: FaultPlan) -> None:
        with self._lock:
            self._plan = plan
            self._random = random.Random(plan.seed)
            self._faults_left = plan.max_faults

    def __enter__(self) -> FaultyGcs:
        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 128  # Threads that all connect at once must not find the queue (5) full.

        self._server = Server((self._host, 0), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.url = f"http://{self._host}:{self._server.server_address[1]}"
        self._folder = tempfile.TemporaryDirectory()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()

    @property
    def environment(self) -> dict[str, str]:
        """Points Google's libraries here. Without credentials they search for some for half a minute."""
        path = os.path.join(self._folder.name, "service_account.json")
        if not os.path.exists(path):
            with open(path, "w") as stream:
                json.dump(_service_account(f"{self.url}/token"), stream)
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "GOOGLE_APPLICATION_CREDENTIALS": path,
            "GOOGLE_CLOUD_PROJECT": "loopback",
            "NO_GCE_CHECK": "true",
            "NO_PROXY": f"{self._host},localhost",
            "no_proxy": f"{self._host},localhost",
        }

    def put(self, bucket: str, name: str, data: bytes) -> None:
        """Makes an object without a request."""
        from gcp_storage_emulator.handlers import objects

        resource = objects._make_object_resource(self.url, bucket, name, "image/jpeg", str(len(data)))
        with self._lock:
            self._storage.create_file(bucket, name, data, objects._checksums(data, resource))

    def get(self, bucket: str, name: str) -> bytes:
        """The content of an object, without a request."""
        with self._lock:
            return self._storage.get_file(bucket, name)

    def names(self, bucket: str) -> list[str]:
        """The objects of a bucket, without a request."""
        with self._lock:
            return [one["name"] for one in self._storage.get_file_list(bucket)[0]]

    def make_older(self, bucket: str, name: str, seconds: float) -> None:
        """Makes an object one that was written so much earlier."""
        with self._lock:
            found = self._storage.objects[bucket][name]
            written = datetime.datetime.strptime(found["timeCreated"], _TIME) - datetime.timedelta(seconds=seconds)
            found["timeCreated"] = written.strftime(_TIME)

    def faults(self) -> collections.Counter[str]:
        """How often each fault was met so far."""
        return collections.Counter(one.fault for one in self.exchanges if one.fault)

    def _choose_fault(self, request: str) -> str | None:
        plan = self._plan
        if not re.search(plan.only, request) or not self._faults_left or self._random.random() >= plan.share:
            return None
        media = "alt=media" in request
        faults = [fault for fault in plan.faults if media or fault not in _OF_MEDIA]
        if not faults:
            return None
        self._faults_left -= 1
        return self._random.choice(faults)

    def _is_as_wanted(self, handler: http.server.BaseHTTPRequestHandler, body: bytes) -> bool:
        """Whether an object has the generation that a request wants; the emulator does not look at that."""
        target = urllib.parse.urlsplit(handler.path)
        wanted = urllib.parse.parse_qs(target.query).get("ifGenerationMatch")
        if wanted is None:
            return True
        bucket, _, name = target.path.partition("/b/")[2].partition("/o")
        name = urllib.parse.unquote(name.removeprefix("/"))
        if not name:  # An upload: the name is in the first part of the body.
            text = body.decode("latin-1")
            name = json.JSONDecoder().raw_decode(text, text.index("{"))[0]["name"]
        found = self._storage.objects.get(bucket, {}).get(name)
        if found is not None and handler.command == "PATCH":
            found["updated"] = datetime.datetime.now(datetime.UTC).strftime(_TIME)  # Nor does it do that.
        return int(wanted[0]) == (0 if found is None else int(found["generation"]))

    def answer(self, handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        """Carries out a request, and answers as the plan says."""
        if handler.path == "/token":
            token = {"access_token": "loopback", "expires_in": 3600, "token_type": "Bearer"}
            _send(handler, 200, {"Content-Type": "application/json"}, json.dumps(token).encode())
            return
        request = f"{handler.command} {handler.path}"
        with self._lock:
            plan, fault = self._plan, self._choose_fault(request)
            done = fault is None or fault in ("lost", "cut", "short", "damaged")
            call = _Call(handler, self.alter_upload(body), self._storage)
            if done and not self._is_as_wanted(handler, body):
                call.status = 412
                call.wfile.write(_error(412, handler.path, self._storage))
            elif done:
                emulator.Router(call).handle(handler.command)
            self.exchanges.append(Exchange(request, call.status if done else None, fault))
        if plan.latency_sec:
            self._closing.wait(plan.latency_sec)
        if fault == "stall":
            self._closing.wait(plan.stall_sec)
        if fault in ("stall", "drop", "lost"):
            handler.close_connection = True
            return
        if fault is not None and fault.isdigit():
            _send(
                handler,
                int(fault),
                {"Content-Type": "application/json"},
                _error(int(fault), handler.path, self._storage),
            )
            return
        content = call.wfile.getvalue()
        if call.status == 404 and not content:
            content = _error(404, handler.path, self._storage)
        if call.status == 200 and content and fault == "short":
            content = content[: len(content) // 2]
        if call.status == 200 and content and fault == "damaged":
            content = bytes([content[0] ^ 1]) + content[1:]
        _send(handler, call.status, call.answer_headers, content, cut=fault == "cut")


def _send(
    handler: http.server.BaseHTTPRequestHandler,
    status: int,
    headers: dict[str, str],
    content: bytes,
    *,
    cut: bool = False,
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        if name.lower() != "content-length":
            handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    if cut:
        handler.close_connection = True
        content = content[: len(content) // 2]
    handler.wfile.write(content)


def _error(status: int, path: str, storage: Storage) -> bytes:
    name = urllib.parse.unquote(path.partition("/b/")[2].partition("?")[0].replace("/o/", "/"))
    message = _MESSAGES.get(status, f"Fault {status}").format(name=name)
    if status == 404 and name.partition("/")[0] not in storage.buckets:
        message = "The specified bucket does not exist."
    return json.dumps({"error": {"code": status, "message": message}}).encode()


@functools.cache
def _private_key() -> str:
    """In PEM format; one for all servers, because it takes a tenth of a second."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _service_account(token_uri: str) -> dict[str, str]:
    return {
        "type": "service_account",
        "project_id": "loopback",
        "private_key_id": "1",
        "private_key": _private_key(),
        "client_email": "nobody@loopback.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }
