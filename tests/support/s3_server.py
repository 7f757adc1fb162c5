"""An S3 server on loopback: moto's, without Amazon. `with S3Server(buckets=["bucket"]) as s3: s3.put(...)`."""

from __future__ import annotations

import collections
import dataclasses
import os
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import boto3
import botocore.config
from moto.backends import get_backend
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """Requests whose "METHOD path?query" `only` is found in get this answer, `number` times.

    Status 200 stands for a connection that is closed after half of the right answer.

    Attributes:
      only: a regular expression.
      status: of the answer; 0 closes the connection.
      code: of the error in the answer.
      number: of requests.
      condition: concerns only requests with this header.
    """

    only: str
    status: int = 503
    code: str = "SlowDown"
    number: int = 10**9
    condition: str | None = None


class _QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_: object, **__: object) -> None:
        pass


class S3Server:
    """The server; a context manager."""

    def __init__(self, buckets: Sequence[str] = ()):
        self.faults: list[Fault] = []
        self.met: collections.Counter[str] = collections.Counter()
        self.ignores_conditions = False
        self._lock = threading.Lock()
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_QuietHandler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._buckets = buckets
        self._folder = tempfile.TemporaryDirectory()
        self.client: Any = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which programs find it; all others that name accounts of AWS lead nowhere."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing-secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.path.join(self._folder.name, "config"),
            "AWS_SHARED_CREDENTIALS_FILE": os.path.join(self._folder.name, "credentials"),
        }

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"
        with self._lock:
            fault = next(
                (
                    fault
                    for fault in self.faults
                    if re.search(fault.only, request)
                    and self.met[fault.only] < fault.number
                    and (fault.condition is None or fault.condition in environ)
                ),
                None,
            )
            if fault is not None:
                self.met[fault.only] += 1
        if fault is not None and fault.status == 200:
            whole = b"".join(self._app(environ, start_response))
            return self._half(whole, environ["werkzeug.socket"])
        if fault is not None:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            if not fault.status:
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                raise ConnectionAbortedError
            body = f"<Error><Code>{fault.code}</Code><Message>as planned</Message></Error>".encode()
            start_response(
                f"{fault.status} Planned", [("Content-Length", str(len(body))), ("Content-Type", "text/xml")]
            )
            return [body]
        if self.ignores_conditions:
            for name in ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"):
                environ.pop(name, None)
        return self._app(environ, start_response)

    @staticmethod
    def _half(whole: bytes, connection: socket.socket) -> Iterator[bytes]:
        yield whole[: len(whole) // 2]
        connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError

    def __enter__(self) -> S3Server:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing-secret",
            config=botocore.config.Config(retries={"total_max_attempts": 1}),
        )
        for bucket in self._buckets:
            self.client.create_bucket(Bucket=bucket)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for by_region in get_backend("s3").values():
            by_region.reset()
        self._folder.cleanup()

    def put(self, bucket: str, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=bucket, Key=name, Body=data)

    def get(self, bucket: str, name: str) -> bytes:
        return self.client.get_object(Bucket=bucket, Key=name)["Body"].read()

    def names(self, bucket: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]
