"""Reads the bodies of requests within limits: bytes, time, and how much JSON may grow when it is read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from serving.admission import Admission
from serving.refusals import RefusedError

# Each value of JSON takes some fifty bytes of memory, and two bytes of a body. Reading it holds up all other requests.
# These are two hundred embeddings of Inception v3.
_MAX_JSON_VALUES = 500_000

# It prints a line about each broken form, with a byte of it.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


@contextlib.asynccontextmanager
async def body_of(
    request: Request, admission: Admission, *, max_bytes: int, deadline_sec: float
) -> AsyncIterator[bytes]:
    """The body of a request. Within this context its bytes count as in memory.

    Raises:
      RefusedError: it is too large or too slow, or there is no room for it now.
      ClientDisconnect: the client has gone.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        # A small body could stand for any number of bytes; photos are compressed already.
        raise RefusedError(415, "The body must not be compressed: send it without Content-Encoding.")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    try:
        try:
            async with asyncio.timeout(deadline_sec):
                async for chunk in request.stream():
                    if len(body) + len(chunk) > max_bytes:
                        raise _too_large(max_bytes)
                    admission.take_bytes(len(chunk))
                    body += chunk
        except TimeoutError:
            raise RefusedError(408, f"The body did not arrive within {deadline_sec:g} s.") from None
        yield bytes(body)
    finally:
        admission.give_bytes(len(body))


def _too_large(max_bytes: int) -> RefusedError:
    return RefusedError(
        413, f"A request may have at most {max_bytes} bytes ({max_bytes / 2**20:.3g} MiB).", reason="too_large"
    )


def parse_json(body: bytes) -> Any:
    """Reads JSON without NaN and infinities, which JSON does not have.

    Raises:
      RefusedError: it is not JSON, or has too many values or levels.
    """
    if body.count(b",") + body.count(b"[") + body.count(b"{") > _MAX_JSON_VALUES:
        raise RefusedError(413, f"JSON may have at most {_MAX_JSON_VALUES} values.")
    try:
        return json.loads(body, parse_constant=_no_constant)
    except RecursionError:
        raise RefusedError(400, "The body is JSON of too many levels.") from None
    except (ValueError, MemoryError):
        raise RefusedError(400, "The body is not JSON.") from None


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def file_of(body: bytes, content_type: str) -> bytes:
    """The only file of a form, or the whole body if it is no form.

    Raises:
      RefusedError: the form is broken, or has not one file.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        return body
    files = _Files()
    try:
        parser = MultipartParser(options.get(b"boundary", b""), files.callbacks)
        parser.write(body)
        parser.finalize()
    except (MultipartParseError, ValueError, TypeError):
        raise RefusedError(400, "The form (multipart/form-data) is broken.") from None
    if len(files.found) != 1:
        raise RefusedError(400, f"The form must have one file. It has {len(files.found)}.")
    return bytes(files.found[0])


class _Files:
    """Collects the parts of a form that are files, in memory. A part is a file if its header names one."""

    def __init__(self) -> None:
        self.found: list[bytearray] = []
        self._name = b""
        self._value = b""
        self._is_file = False

    @property
    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._data,
        }

    def _begin(self) -> None:
        self._is_file = False
        self._name = self._value = b""

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition" and b"filename" in parse_options_header(self._value)[1]:
            self._is_file = True
            self.found.append(bytearray())
        self._name = self._value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.found[-1] += data[start:end]
