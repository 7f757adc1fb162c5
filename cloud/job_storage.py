"""The bucket of a job: what is looked for, read and put there, with faults as one line."""

from __future__ import annotations

import contextlib
import posixpath
import re
import shutil
from collections.abc import Iterator, Sequence

from configs.errors import InputError, cause_in_one_line
from preprocess.retrying import RetryPolicy
from preprocess.storage import Storage

# A semicolon ends the name of a package for pip.
_FOLDER = re.compile(r"""gs://[a-z0-9][a-z0-9._-]+[a-z0-9](/[^,;*?\[\]"\\\x00-\x1f\x7f]+)?""")
# No folders, but steps from one to another, where the bucket is mounted as a disk.
_STEPS = frozenset(("", ".", ".."))
_COPY_BYTES = 1024 * 1024
_RETRY_LIMIT_SEC = 30.0  # A person waits.


def job_storage() -> Storage:
    """Storage for what a person waits for."""
    from preprocess.uri_storage import UriStorage

    return UriStorage(RetryPolicy(limit_sec=_RETRY_LIMIT_SEC))


def require_folder(uri: str, *, field: str, within_bucket: bool = True) -> str:
    """A folder in a bucket, without the slash at its end.

    Args:
      uri: as given.
      field: names it in messages.
      within_bucket: whether it may not be the bucket itself.

    Raises:
      InputError: it is none, or has a character that flags or patterns give a meaning to.
    """
    folder = uri.rstrip("/")
    steps = not _STEPS.isdisjoint(folder.removeprefix("gs://").split("/"))
    if not _FOLDER.fullmatch(folder) or steps or (within_bucket and folder.count("/") < 3):
        rule = "gs://BUCKET/FOLDER" if within_bucket else "gs://BUCKET or a folder in it"
        raise InputError(
            f"{field}: must be {rule}, without commas, semicolons, quotes, backslashes and * ? [ ], and without "
            f"folders named '', '.' or '..'. Received: {uri!r}."
        )
    return folder


@contextlib.contextmanager
def faults_of(uri: str) -> Iterator[None]:
    """Turns faults of storage into an InputError that names what was read or written."""
    try:
        yield
    except OSError as error:
        cause = cause_in_one_line(error).removeprefix(f"{uri}: ").rstrip(".")
        raise InputError(
            f"{uri}: {cause}. Check the name of the bucket, and that you may use it: "
            "gcloud auth application-default login"
        ) from error


def is_there(uri: str, storage: Storage) -> bool:
    """Whether there is such a file.

    Raises:
      InputError: the bucket is not there, or not for us.
    """
    with faults_of(uri):
        return bool(storage.match(uri))


def read_file(uri: str, storage: Storage) -> bytes | None:
    """The content of a file; None if there is none.

    Raises:
      InputError: the bucket is not there, or the file cannot be read.
    """
    with faults_of(uri):
        try:
            return storage.read(uri)
        except FileNotFoundError:
            storage.match(uri)  # Raises if it is the bucket that is missing.
            return None


def put_file(content: bytes, uri: str, storage: Storage) -> None:
    """Writes a file, unless it is there; its name must follow from its content.

    Raises:
      InputError: it cannot be written.
    """
    if is_there(uri, storage):
        return
    with faults_of(uri), storage.create(uri) as stream:
        stream.write(content)


def copy_files(names: Sequence[str], source: str, target: str, storage: Storage) -> None:
    """Copies files from one folder to another, in order.

    Raises:
      InputError: one cannot be read, or not be written.
    """
    for name in names:
        path = posixpath.join(target, name)
        with faults_of(path), storage.open(posixpath.join(source, name)) as old, storage.create(path) as new:
            shutil.copyfileobj(old, new, _COPY_BYTES)
