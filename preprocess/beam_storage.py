"""Storage over Beam's filesystems: `gs://`, `s3://`, `hdfs://` and whatever else is installed; local paths too."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from preprocess.rows import has_scheme
from preprocess.storage import LocalStorage, Storage

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _innermost(error: BaseException) -> BaseException:
    """The cause that Beam wraps: BeamIOError keeps it by path in `exception_details`."""
    while isinstance(error, BeamIOError) and error.exception_details:
        cause = next(iter(error.exception_details.values()))
        if not isinstance(cause, BaseException):
            break
        error = cause
    return error


def as_os_error(error: Exception, path: str) -> OSError:
    """What a filesystem client raised, as the OSError that says the same.

    Cloud clients raise their own types; they are told apart by their HTTP status and their names, so that no
    client has to be imported.
    """
    cause = _innermost(error)
    status = getattr(cause, "code", None) or getattr(cause, "status_code", None)
    message = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    if isinstance(cause, FileNotFoundError) or status == 404 or type(cause).__name__ == "NotFound":
        return FileNotFoundError(f"No such object: {path}")
    if isinstance(cause, PermissionError) or status in (401, 403):
        return PermissionError(f"No permission for {path}: {message}")
    if isinstance(cause, OSError) and not isinstance(cause, BeamIOError):
        return cause
    return OSError(f"{path}: {message}")


def _raises_os_error(method: _Method) -> _Method:
    @functools.wraps(method)
    def wrapper(self: Any, path: str, *args: Any) -> Any:
        try:
            return method(self, path, *args)
        except Exception as error:
            raise as_os_error(error, path) from error

    return wrapper  # type: ignore[return-value]


class _RemoteStorage:
    @_raises_os_error
    def open(self, path: str) -> BinaryIO:
        return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)

    @contextlib.contextmanager
    def create(self, path: str) -> Iterator[BinaryIO]:
        try:
            stream = FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)
        except Exception as error:
            raise as_os_error(error, path) from error
        # An object appears when its stream is closed, so a fault before that must not close it: what was
        # written so far would pass for the whole.
        yield stream
        try:
            stream.close()
        except Exception as error:
            raise as_os_error(error, path) from error

    @_raises_os_error
    def match(self, pattern: str) -> list[str]:
        (result,) = FileSystems.match([pattern])
        return sorted(metadata.path for metadata in result.metadata_list)

    @_raises_os_error
    def move(self, source: str, target: str) -> None:
        FileSystems.rename([source], [target])

    @_raises_os_error
    def delete_file(self, path: str) -> None:
        if FileSystems.exists(path):
            FileSystems.delete([path])

    @_raises_os_error
    def delete_tree(self, path: str) -> None:
        (result,) = FileSystems.match([f"{path}/**"])
        FileSystems.delete([metadata.path for metadata in result.metadata_list])


class BeamStorage:
    """Local paths by the operating system (faster, and whole files or none), all others by Beam."""

    def __init__(self) -> None:
        self._local = LocalStorage()
        self._remote = _RemoteStorage()

    def _of(self, path: str) -> Storage:
        return self._remote if has_scheme(path) else self._local

    def open(self, path: str) -> BinaryIO:
        return self._of(path).open(path)

    def create(self, path: str) -> contextlib.AbstractContextManager[BinaryIO]:
        return self._of(path).create(path)

    def match(self, pattern: str) -> list[str]:
        return self._of(pattern).match(pattern)

    def move(self, source: str, target: str) -> None:
        self._of(source).move(source, target)

    def delete_file(self, path: str) -> None:
        self._of(path).delete_file(path)

    def delete_tree(self, path: str) -> None:
        self._of(path).delete_tree(path)
