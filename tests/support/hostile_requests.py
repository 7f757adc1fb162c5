"""Requests that a server must survive, sent over plain sockets, and the statuses that are right for each."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator

from PIL import Image

# No request may take longer, however the server and its limits are set in a test.
HANG_SEC = 60.0
CLOSED = 0
"""The status of a request that is not answered: the connection is closed."""
HANGS = -1
"""The status of a request to which nothing happens."""


@dataclasses.dataclass(frozen=True)
class HostileRequest:
    """A request: what it is, how it is sent to a port, and the statuses that are right."""

    name: str
    send: Callable[[int], int]
    right: frozenset[int]


def raw(data: bytes, *more: bytes, pause: float = 0.0, half_close: bool = False) -> Callable[[int], int]:
    """Sends bytes, then further pieces with a pause before each, and reads the status of the answer."""

    def send(port: int) -> int:
        with socket.create_connection(("127.0.0.1", port), timeout=HANG_SEC) as client:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(data)
                for piece in more:
                    time.sleep(pause)
                    client.sendall(piece)
                if half_close:
                    client.shutdown(socket.SHUT_WR)
            return status_of(client)

    return send


def status_of(client: socket.socket) -> int:
    """The status of the answer; CLOSED if there is none, HANGS if nothing comes."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while b"\r\n" not in received:
            try:
                piece = client.recv(65536)
            except TimeoutError:
                return HANGS
            if not piece:
                break
            received += piece
    return int(received.split()[1]) if received.startswith(b"HTTP/1.1 ") else CLOSED


def post(path: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {len(body) if length is None else length}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def get(target: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: localhost", *headers]).encode() + b"\r\n\r\n"


def png(width: int, height: int, rows: bytes) -> bytes:
    """A PNG of any declared size, whose pixels are `rows`, compressed."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def photo(**options: object) -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(stream, **{"format": "JPEG", **options})
    return stream.getvalue()


def form(*files: bytes, end: bytes = b"--x--\r\n", name: str = "a.jpg") -> bytes:
    head = f'--x\r\nContent-Disposition: form-data; name="f"; filename="{name}"\r\n\r\n'.encode()
    return b"".join(head + file + b"\r\n" for file in files) + end


def hostile_requests(max_body_bytes: int) -> Iterator[HostileRequest]:
    """All of them, for a server with this limit of bodies, at most a few MB, and deadlines of a few seconds."""

    def case(name: str, send: Callable[[int], int], *right: int) -> HostileRequest:
        return HostileRequest(name, send, frozenset(right))

    good = photo()
    b64 = base64.b64encode(good).decode()
    multipart = "Content-Type: multipart/form-data; boundary=x"
    as_json = "Content-Type: application/json"
    rows = "/v1/models/hugs:predict"

    # Files that are no photos, whatever their names say.
    files: dict[str, tuple[bytes, tuple[int, ...]]] = {
        "nothing": (b"", (400,)),
        "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', (415,)),
        "html": (b"<!doctype html><script>alert(1)</script>", (415,)),
        "xml entities": (
            b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><svg>&b;</svg>',
            (415,),
        ),
        "pdf": (b"%PDF-1.7\n", (415,)),
        "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file\n", (415,)),
        "zip": (b"PK\x03\x04" + bytes(100), (415,)),
        "program": (b"\x7fELF" + bytes(100), (415,)),
        "path": (b"/etc/passwd", (415,)),
        "address": (b"http://127.0.0.1/a.jpg", (415,)),
        "imagemagick": (b"push graphic-context\nimage over 0,0 0,0 'https://127.0.0.1/a'\n", (415,)),
        "pickle": (b"cos\nsystem\n(S'touch /tmp/hostile'\ntR.", (415,)),
        "zeros": (bytes(100_000), (415,)),
        "truncated jpeg": (good[: len(good) // 2], (422,)),
        "jpeg of two bytes": (good[:2], (415, 422)),
        "corrupt jpeg": (good[:200] + bytes(300), (422,)),
        "truncated png": (png(300, 300, bytes(301 * 300))[:-30], (422,)),
        "truncated gif": (photo(format="GIF")[:300], (422,)),
        "truncated webp": (photo(format="WEBP")[:-20], (422,)),
        "truncated tiff": (photo(format="TIFF")[:1000], (422,)),
        "png of 10 gigapixels": (png(100_000, 100_000, b""), (413,)),
        "png of no width": (png(0, 100, b""), (413, 415, 422)),
        "png bomb": (png(10_000, 10_000, bytes(10_001 * 10_000)), (200, 422)),  # 422 if it takes too long
        "png whose pixels are too many": (png(10, 10, bytes(5_000_000)), (200, 422)),
        "gif of 4 gigapixels": (
            b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x00;",
            (413, 422),
        ),
        "bmp of a negative size": (
            b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, -5, -(2**31), 1, 24, 0, 0, 0, 0, 0, 0),
            (413, 415, 422),
        ),
        "tiff that leads to itself": (
            b"II*\x00\x08\x00\x00\x00\x01\x00\x00\x01\x03\x00\x01\x00\x00\x00\x01\x00\x00\x00\x08\x00\x00\x00",
            (415, 422),
        ),
        "jpeg with html behind": (good + b"<script>alert(1)</script>", (200,)),
        "html before a jpeg": (b"<html>" + good, (415,)),
    }
    for name, (content, right) in files.items():
        yield case(f"file: {name}", raw(post("/predict", content, "Content-Type: image/jpeg")), *right)
        yield case(f"form: {name}", raw(post("/predict", form(content), multipart)), *right)
        row = {"instances": [{"image_bytes": {"b64": base64.b64encode(content).decode()}}]}
        yield case(f"row: {name}", raw(post(rows, json.dumps(row).encode(), as_json)), 200)

    # Forms.
    names = ["../../etc/passwd", "/tmp/hostile", "a\\..\\b", "a" * 5000, "%00", "a.jpg\0.html"]
    for name in names:
        yield case(f"form: name {name[:20]!r}", raw(post("/predict", form(good, name=name), multipart)), 200, 400)
    yield case("form: two files", raw(post("/predict", form(good, good), multipart)), 400)
    yield case("form: no file", raw(post("/predict", b"--x--\r\n", multipart)), 400)
    yield case("form: no end", raw(post("/predict", form(good, end=b""), multipart)), 200, 400)
    yield case("form: no boundary", raw(post("/predict", form(good), "Content-Type: multipart/form-data")), 400)
    yield case("form: another boundary", raw(post("/predict", form(good), multipart + "y")), 400)
    yield case("form: not a form", raw(post("/predict", good, multipart)), 400)
    yield case("form: 10,000 parts", raw(post("/predict", form(*[b""] * 10_000), multipart)), 400)
    yield case("form: huge header", raw(post("/predict", b"--x\r\n" + b"a" * 100_000 + b": b\r\n\r\n", multipart)), 400)
    long_boundary = "Content-Type: multipart/form-data; boundary=" + "x" * 5000
    yield case("form: long boundary", raw(post("/predict", form(good), long_boundary)), 400)

    # JSON.
    bodies: dict[str, tuple[bytes, tuple[int, ...]]] = {
        "10,000 lists deep": (b"[" * 10_000 + b"]" * 10_000, (400,)),
        "10,000 objects deep": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, (400,)),
        "10,000 deep in an instance": (b'{"instances":[' + b"[" * 10_000 + b"]" * 10_000 + b"]}", (400,)),
        "never closed": (b"[" * 100_000, (400,)),
        "many empty lists": (b"[" + b"[]," * (max_body_bytes // 3 - 2) + b"[]]", (413,)),
        "long number": (b'{"instances":' + b"9" * 100_000 + b"}", (400,)),
        "NaN": (b'{"signature_name":"embeddings","instances":[[NaN]]}', (400,)),
        "not UTF-8": (b'{"instances":"\xff\xfe"}', (400,)),
        "half a character": (b'{"instances":[{"key":"\\ud800","image_bytes":{"b64":""}}]}', (400,)),
        "two documents": (b"{}{}", (400,)),
        "nothing": (b"", (400,)),
        "a photo": (good, (400,)),
        "instances twice": (b'{"instances":[1],"instances":[]}', (400,)),
        "prototype": (b'{"__proto__":{"instances":[1]}}', (400,)),
        "bytes that are no text": (b'{"instances":[{"image_bytes":{"b64":{"b64":"AAAA"}}}]}', (400,)),
        "other fields": (b'{"instances":[{"image_bytes":{"b64":"","path":"/etc/passwd"}}]}', (400,)),
        "a path": (b'{"instances":[{"image_bytes":"/etc/passwd"}]}', (400,)),
        "a file address": (b'{"instances":[{"image_bytes":{"uri":"file:///etc/passwd"}}]}', (400,)),
        "the metadata server": (b'{"instances":[{"image_bytes":"http://169.254.169.254/"}]}', (400,)),
        "a bucket": (b'{"inputs":{"image_bytes":"gs://bucket/a.jpg"}}', (400,)),
        "a million instances": (b'{"instances":[' + b"1," * min(400_000, max_body_bytes // 3) + b"1]}", (400,)),
        "too many photos": (json.dumps({"instances": [{"image_bytes": {"b64": ""}}] * 5000}).encode(), (413,)),
        "a bomb in a key": (
            json.dumps({"instances": [{"key": "a" * 500_000, "image_bytes": {"b64": b64}}]}).encode(),
            (200,),
        ),
    }
    for name, (content, right) in bodies.items():
        for path in (rows, "/predict"):
            yield case(f"json at {path}: {name}", raw(post(path, content, as_json)), *right)

    # Paths and addresses.
    targets = {
        "/../../../../etc/passwd": (404,),
        "/page/../../../etc/passwd": (404,),
        "/page/%2e%2e/%2e%2e/etc/passwd": (404,),
        "/page/..%2f..%2fetc%2fpasswd": (404,),
        "/page/....//....//etc/passwd": (404,),
        "/page/%c0%ae%c0%ae/etc/passwd": (404,),
        "/page/%00": (404,),
        "/page//etc/passwd": (404,),
        "/page/": (404,),
        "/%2500": (404,),
        "//evil.example/": (404,),
        "http://evil.example/": (400, 404),
        "http://169.254.169.254/latest/meta-data/": (400, 404),
        "file:///etc/passwd": (400, 404),
        "*": (400, 404),
        "/v1/models/..%2f..%2fetc": (404,),
        "/v1/models/hugs/versions/-1": (400, 404),
        "/v1/models/hugs/versions/1e9": (400,),
        "/v1/models/hugs/versions/%D9%A1": (400,),
        "/v1/models/" + "a" * 10_000: (404,),
        "/?" + "a=b&" * 5000: (200,),
        "/predict?top_k=" + "9" * 5000: (405,),
        "/" + "a/" * 10_000: (404,),
    }
    for target, right in targets.items():
        yield case(f"target {target[:40]}", raw(get(target)), *right)
    yield case("top_k", raw(post("/predict?top_k=" + "9" * 5000, good)), 400)
    yield case("top_k: another digit", raw(post("/predict?top_k=%D9%A1", good)), 400)

    # HTTP.
    heads: dict[str, tuple[bytes, tuple[int, ...]]] = {
        "noise": (bytes(range(256)) * 10, (400,)),
        "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), (400,)),
        "http/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, 505)),
        "http/0.9": (b"GET /\r\n\r\n", (400,)),
        "http/9.9": (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", (400, 505)),
        "no host": (b"GET / HTTP/1.1\r\n\r\n", (400,)),
        "two hosts": (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: b\r\n\r\n", (400,)),
        "10,000 headers": (get("/", *[f"A{i}: b" for i in range(10_000)]), (431,)),
        "a long header": (get("/", "A: " + "b" * 100_000), (431,)),
        "a long target": (get("/" + "a" * 100_000), (431,)),
        "a long method": (b"A" * 100_000 + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n", (400, 431)),
        "an unknown method": (b"HACK / HTTP/1.1\r\nHost: localhost\r\n\r\n", (405,)),
        "connect": (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", (400, 404, 405)),
        "trace": (b"TRACE / HTTP/1.1\r\nHost: localhost\r\nCookie: secret\r\n\r\n", (405,)),
        "header in the target": (b"GET /\r\nX: y HTTP/1.1\r\nHost: localhost\r\n\r\n", (400,)),
        "zero in a header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\x00c\r\n\r\n", (400,)),
        "folded header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n", (200, 400)),
        "space before the colon": (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", (400,)),
        "negative length": (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", (400,)),
        "length of another digit": (
            "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: ١\r\n\r\n".encode(),
            (400,),
        ),
        "two lengths": (post("/predict", good, "Content-Length: 1"), (400,)),
        "length and chunks": (post("/predict", b"0\r\n\r\n", "Transfer-Encoding: chunked"), (400,)),
        "unknown encoding": (post("/predict", good, "Transfer-Encoding: gzip"), (400, 501)),
        "websocket": (get("/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: a"), (200, 400, 426)),
        "a chunk of no size": (
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            (400,),
        ),
        "a huge chunk size": (
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 50 + b"\r\n",
            (400, 413),
        ),
        "compressed": (post("/predict", zlib.compress(bytes(10_000_000)), "Content-Encoding: deflate"), (415,)),
        "a forged sender": (get("/healthz", "X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1"), (200,)),
        "ranges": (get("/", "Range: bytes=" + ",".join(f"{i}-" for i in range(2000))), (200, 416)),
    }
    for name, (content, right) in heads.items():
        yield case(f"http: {name}", raw(content), *right)

    # Sizes and time.
    half_gigabyte = 500 * 1024 * 1024
    slow = [bytes(1000)] * 20
    chunked = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n" % 65536 + bytes(65536) + b"\r\n"
    yield case("size: 500 MB are announced", raw(post("/predict", b"", length=half_gigabyte)), 413)
    yield case("size: 500 MB come slowly", raw(post("/predict", b"", length=half_gigabyte), *slow, pause=0.02), 413)
    yield case(
        "size: 500 MB wait for a word",
        raw(post("/predict", b"", "Expect: 100-continue", length=half_gigabyte)),
        413,
    )
    yield case("size: one byte too many", raw(post("/predict", bytes(max_body_bytes + 1))), 413)
    yield case("size: chunks without an end", raw(chunked, *[chunk] * (max_body_bytes // 65536 + 2)), 413)
    yield case("size: json", raw(post(rows, b" " * (max_body_bytes + 1), as_json)), 413)
    yield case("time: a body that stops", raw(post("/predict", good[:10], length=len(good))), 408)
    yield case("time: chunks that stop", raw(chunked + chunk), 408)
    yield case("time: silence", raw(b""), CLOSED)
    yield case("time: half a head", raw(b"GET / HTT"), CLOSED)
    yield case("time: a head without an end", raw(get("/")[:-2], *[b"A: b\r\n"] * 100, pause=0.05), CLOSED, 431)
    yield case("half closed: a whole request", raw(post("/predict", good), half_close=True), 200)
    yield case("half closed: half a body", raw(post("/predict", good[:10], length=99), half_close=True), CLOSED, 400)
    yield case("half closed: half a head", raw(b"POST /pre", half_close=True), CLOSED, 400)
    yield case("half closed: nothing", raw(b"", half_close=True), CLOSED)
    yield case("gone: in the middle of a body", _gone(post("/predict", good[:10], length=99)), CLOSED)
    yield case("gone: before the answer", _gone(post("/predict", good)), CLOSED)
    yield case("reset: before the answer", _gone(post("/predict", good), reset=True), CLOSED)
    yield case("pipeline: a hundred requests", raw(get("/healthz") * 100), 200)
    yield case("pipeline: a photo, then noise", raw(post("/predict", good) + bytes(100)), 200, CLOSED)


def _gone(data: bytes, *, reset: bool = False) -> Callable[[int], int]:
    """Sends a request and goes away without reading."""

    def send(port: int) -> int:
        with socket.create_connection(("127.0.0.1", port), timeout=HANG_SEC) as client:
            client.sendall(data)
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return CLOSED

    return send
