"""A `VersionedObject` of `s3://`, by the entity tags of its object."""

from __future__ import annotations

import dataclasses
import email.utils
import io
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from preprocess.storage.retry import RetryPolicy, call
from preprocess.storage.s3_objects import client_of_process, fault_of, passing_faults, split_uri, status_of, upload
from preprocess.storage.versioned_object import Version

_Result = TypeVar("_Result")


class S3VersionedObject:
    """A `VersionedObject` of `s3://`.

    Args:
      path: s3://bucket/name.
      retry: the storage retries of each operation.
    """

    def __init__(self, path: str, retry: RetryPolicy):
        self.path = path
        self._retry = retry

    def within(self, limit_sec: float) -> S3VersionedObject:
        """See `VersionedObject`."""
        retry = dataclasses.replace(self._retry, limit_sec=min(limit_sec, self._retry.limit_sec))
        return S3VersionedObject(self.path, retry)

    def create(self, text: str) -> Version | None:
        """See `VersionedObject`."""
        return self._call(lambda: self._write(text, {"only_new": True}))

    def replace(self, text: str, found: Version) -> Version | None:
        """See `VersionedObject`."""
        return self._call(lambda: self._write(text, {"replaced": str(found.generation)}))

    def _write(self, text: str, condition: dict[str, Any]) -> Version:
        # An entity tag is the digest of the content, and a renewed lease has the same text: the last line differs.
        data = f"{text}\n{uuid.uuid4().hex}".encode()
        answer = upload(self.path, io.BytesIO(data), len(data), **condition)
        return Version(text=text, generation=answer["ETag"])

    def look(self) -> Version | None:
        """See `VersionedObject`."""
        return self._call(lambda: self._ask("get_object")[0])

    def _ask(self, request: str) -> tuple[Version, dict[str, Any]]:
        bucket, name = split_uri(self.path)
        answer = getattr(client_of_process(), request)(Bucket=bucket, Key=name)
        data = answer["Body"].read() if "Body" in answer else b""
        text = data.decode(errors="replace").rpartition("\n")[0]
        return Version(text=text, generation=answer["ETag"]), answer

    def age_sec(self, found: Version) -> float | None:
        """See `VersionedObject`. An answer has the time when the object was written, and its own, in whole seconds."""

        def age_once() -> float | None:
            now, answer = self._ask("head_object")
            if now.generation != found.generation:
                return None
            try:
                asked = email.utils.parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
                return max(0.0, (asked - answer["LastModified"]).total_seconds())
            except (KeyError, TypeError, ValueError) as error:
                raise OSError(f"{self.path}: the service does not say when it was written") from error

        return self._call(age_once)

    def delete(self, found: Version) -> None:
        """See `VersionedObject`. Servers that do not know a condition for deletions get one without, just after a look.

        Raises:
          OSError: storage failed.
        """

        def delete_once() -> None:
            if self._ask("head_object")[0].generation == found.generation:
                bucket, name = split_uri(self.path)
                try:
                    client_of_process().delete_object(Bucket=bucket, Key=name, IfMatch=str(found.generation))
                except Exception as error:
                    if status_of(error) != 501:
                        raise
                    client_of_process().delete_object(Bucket=bucket, Key=name)

        self._call(delete_once)

    def _call(self, function: Callable[[], _Result]) -> _Result | None:
        """Calls with storage retries. Returns None if the object has another version or does not exist."""

        def call_once() -> _Result:
            with passing_faults():
                return function()

        try:
            return call(call_once, self._retry, service="s3")
        except FileExistsError:
            return None
        except Exception as error:
            if status_of(error) == 412:
                return None
            fault = fault_of(error, self.path)
            if isinstance(fault, FileNotFoundError) and not str(fault).startswith("No such bucket"):
                return None
            raise fault from error
