"""Storage for local paths, `gs://` and `s3://`, and through Beam's filesystems for `hdfs://` and other schemes."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar, cast

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from configs.errors import InputError
from preprocess.storage.base import Storage, TooLarge, is_file, read_stream
from preprocess.storage.buckets import SPOOL_BYTES
from preprocess.storage.gcs import GcsStorage
from preprocess.storage.retry import RetryPolicy, as_os_error, call
from preprocess.storage.router import UriStorage, refuse_web
from preprocess.storage.uris import has_scheme, is_in_bucket

_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class _ClientOfOptions:
    """Makes a client with the credentials, project and headers of a pipeline's options, as Beam does.

    Attributes:
      credentials: the options about credentials and billing as a text; equal texts share one client.
      options: the options.
    """

    credentials: str
    options: PipelineOptions = dataclasses.field(compare=False)

    def __call__(self) -> Any:
        from apache_beam.internal.gcp import auth
        from apache_beam.io.gcp.gcsio import create_storage_client

        with auth._Credentials._credentials_lock:
            # Otherwise Beam would keep the first credentials of the process, even if later options differ.
            auth._Credentials._credentials_init = False
        return create_storage_client(self.options)


# Reading the options takes a millisecond, too long to do it for each image. So they are read once.
_last_maker: tuple[PipelineOptions | None, _ClientOfOptions] | None = None


def _gcs_client_maker() -> _ClientOfOptions:
    """The maker of clients for the options that Beam's filesystems have in this process."""
    global _last_maker
    last, current = _last_maker, FileSystems._pipeline_options
    if last is not None and last[0] is current:
        return last[1]
    options = current or PipelineOptions([])
    named = options.view_as(GoogleCloudOptions)
    fields = ("impersonate_service_account", "gcp_oauth_scopes", "project", "gcs_custom_audit_entries")
    maker = _ClientOfOptions(repr([getattr(named, field) for field in fields]), options)
    _last_maker = (current, maker)
    return maker


class _BeamFiles:
    """A `Storage` over Beam's filesystems. All operations use storage retries, because not all their clients retry."""

    def __init__(self, retry: RetryPolicy):
        self._retry = retry
        if FileSystems._pipeline_options is None:
            # Some of them ask the options for credentials as soon as they are made.
            FileSystems.set_options(PipelineOptions([]))

    def _call(self, function: Callable[[], _Result], path: str) -> _Result:
        try:
            return call(function, self._retry, service=path.partition("://")[0])
        except TooLarge:
            raise
        except Exception as error:
            raise as_os_error(error, path) from error

    def open(self, path: str) -> BinaryIO:
        # The whole file is read first, because a reader could not retry a stream that breaks in the middle.
        spool = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 (the caller closes it)

        def read_once() -> None:
            spool.seek(0)
            spool.truncate()
            with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
                shutil.copyfileobj(stream, spool, 1024 * 1024)

        try:
            self._call(read_once, path)
        except BaseException:
            spool.close()
            raise
        spool.seek(0)
        return cast(BinaryIO, spool)

    def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        def read_once() -> bytes:
            with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
                return read_stream(stream, path, max_bytes=max_bytes)

        return self._call(read_once, path)

    def read_part(self, path: str, *, offset: int, num_bytes: int) -> bytes:
        def read_once() -> bytes:
            with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
                stream.seek(offset)
                return stream.read(num_bytes)

        return self._call(read_once, path)

    @contextlib.contextmanager
    def create(self, path: str, *, keep_partial: bool = False, durable: bool = True) -> Iterator[BinaryIO]:
        """A new file that is sent when its stream is closed. Nothing is sent if the `with` block raises."""
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            yield cast(BinaryIO, spool)

            def write_once() -> None:
                spool.seek(0)
                # Not in a `with` block: closing the stream after a fault would store an incomplete file as complete.
                stream = FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)
                shutil.copyfileobj(spool, stream, 1024 * 1024)
                stream.close()

            self._call(write_once, path)

    def create_new(self, path: str, data: bytes) -> bool:
        # Beam's filesystems have no atomic creation. So the file is read afterwards to see whose data is there.
        if is_file(self, path):
            return False
        with self.create(path) as stream:
            stream.write(data)
        return self.read(path) == data

    def match(self, pattern: str) -> list[str]:
        (result,) = self._call(lambda: FileSystems.match([pattern]), pattern)
        return sorted(metadata.path for metadata in result.metadata_list)

    def sizes(self, pattern: str) -> dict[str, int]:
        (result,) = self._call(lambda: FileSystems.match([pattern]), pattern)
        return {
            metadata.path: metadata.size_in_bytes for metadata in sorted(result.metadata_list, key=lambda m: m.path)
        }

    def move(self, source: str, target: str) -> None:
        tries = 0

        def move_once() -> None:
            nonlocal tries
            tries += 1
            # An earlier attempt may have moved the file, and only its answer was lost.
            if tries > 1 and not FileSystems.exists(source) and FileSystems.exists(target):
                return
            FileSystems.rename([source], [target])

        self._call(move_once, source)

    def delete_file(self, path: str) -> None:
        def delete_once() -> None:
            if FileSystems.exists(path):
                FileSystems.delete([path])

        self._call(delete_once, path)

    def delete_tree(self, path: str) -> None:
        def delete_once() -> None:
            (result,) = FileSystems.match([f"{path}/**"])
            FileSystems.delete([metadata.path for metadata in result.metadata_list])

        self._call(delete_once, path)


class BeamStorage(UriStorage):
    """A `Storage` of local paths, of buckets through their own clients, and of other schemes through Beam.

    Args:
      retry: the storage retries for each operation on remote files.
    """

    def __init__(self, retry: RetryPolicy = RetryPolicy()) -> None:  # noqa: B008 (frozen)
        super().__init__(retry)
        self._others = _BeamFiles(retry)

    def _gcs(self) -> GcsStorage:
        return GcsStorage(self._retry, make=_gcs_client_maker())

    def _of(self, path: str) -> Storage:
        if has_scheme(path) and not is_in_bucket(path):
            refuse_web(path)
            return self._others
        return super()._of(path)

    def require_scheme(self, path: str) -> None:
        """Makes sure that paths like this one can be opened. It asks no service.

        Raises:
          InputError: it is a web address, no filesystem has its scheme, or a package is missing.
        """
        if self._of(path) is not self._others:
            return
        try:
            FileSystems.get_filesystem(path)
        except ValueError as error:
            raise InputError(
                f"{path}: nothing here opens {path.partition('://')[0]}://. Copy it to a disk, gs:// or s3://, or "
                "install what Beam needs for it."
            ) from error
