"""Files of weights: checks that they are available, and downloads or copies them to this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator

from configs.activity import doing
from configs.errors import InputError, cause_in_one_line
from preprocess.storage import router
from preprocess.storage.base import Storage
from preprocess.storage.digests import digest_of_file
from preprocess.storage.uris import has_scheme, is_in_bucket

_PROBE_TIMEOUT_SEC = 10
_USABLE = "imagenet, random, or the path of a weights file that Keras can read (.weights.h5, .h5, .keras)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file of weights that Keras publishes.

    Attributes:
      url: the URL of the file.
      md5: the MD5 of its content, 32 hex digits.
    """

    url: str
    md5: str

    @property
    def cache_path(self) -> str:
        """The path at which keras.utils.get_file caches it, so files that other Keras programs cached are used too."""
        home = os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")
        return os.path.join(home, "models", os.path.basename(self.url))


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagedFile:
    """A file of weights that workers can read.

    Attributes:
      uri: a local path (on a disk that all workers share) or gs://.
      sha256: the SHA-256 of its content, 64 hex digits.
    """

    uri: str
    sha256: str


def check_published(file: PublishedFile) -> None:
    """Checks in seconds that a published file is on this machine or can be downloaded.

    Raises:
      InputError: the file is not here and cannot be downloaded.
    """
    if os.path.isfile(file.cache_path):
        return
    request = urllib.request.Request(file.url, method="HEAD")
    try:
        with doing("looking for the ImageNet weights on the network"):
            urllib.request.urlopen(request, timeout=_PROBE_TIMEOUT_SEC).close()
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(file, error) from error


def fetch_published(file: PublishedFile) -> str:
    """The path of a published file on this machine, after a check of its digest. If it is not here, Keras downloads it.

    Raises:
      InputError: it cannot be downloaded.
    """
    if os.path.isfile(file.cache_path) and digest_of_file(file.cache_path, "md5") == file.md5:
        return file.cache_path
    from preprocess.backbones.tensorflow_import import import_tensorflow

    import_tensorflow()
    import keras

    try:
        return keras.utils.get_file(os.path.basename(file.url), file.url, cache_subdir="models", file_hash=file.md5)
    except Exception as error:  # Keras raises bare Exception for a failed download.
        raise _unreachable(file, error) from error


def _unreachable(file: PublishedFile, error: Exception) -> InputError:
    cause = error.reason if isinstance(error, urllib.error.URLError) else cause_in_one_line(error)
    return InputError(
        f"weights: the ImageNet weights are not on this machine and {file.url} cannot be reached ({cause}). Fetch that "
        f"file on a machine that can and pass it as --weights FILE, or put it at {file.cache_path}; or pass --weights "
        "random to try the pipeline without them."
    )


def check_file(path: str, storage: Storage | None = None) -> None:
    """Checks that a file of weights exists. For a file in a bucket, this takes one request.

    Args:
      path: a local path or gs://.
      storage: opens files in buckets with the credentials of the job; None for the credentials of this machine.

    Raises:
      InputError: there is no such file, or the bucket cannot be asked.
    """
    if has_scheme(path) and not is_in_bucket(path):
        raise InputError(f"weights: must be {_USABLE}, local, gs:// or s3://. Received: {path!r}")
    try:
        found = is_in_bucket(path) and (storage or router.UriStorage()).match(path) == [path]
    except OSError as error:
        raise InputError(f"weights: {path!r} cannot be read ({cause_in_one_line(error)}).") from error
    if not found and not os.path.isfile(path):
        raise InputError(f"weights: no such file: {path!r}. Pass {_USABLE}.")


@contextlib.contextmanager
def local_copy(path: str, storage: Storage | None = None) -> Iterator[str]:
    """The path of a file on this machine, valid within the `with` block. A remote file is copied to this machine.

    Args:
      path: a local path or gs://.
      storage: opens files in buckets with the credentials of the job; None for the credentials of this machine.

    Raises:
      InputError: it cannot be read.
    """
    with contextlib.ExitStack() as stack:
        try:
            copy = stack.enter_context(router.local_copy(path, storage or router.UriStorage()))
        except OSError as error:
            raise InputError(f"weights: {path!r} cannot be read ({cause_in_one_line(error)}).") from error
        yield copy


@contextlib.contextmanager
def staged_copy(staged: StagedFile, storage: Storage | None = None) -> Iterator[str]:
    """Like `local_copy`, for a staged file. Checks that its content is the content that was staged.

    Raises:
      InputError: the file cannot be read, or has other content.
    """
    with local_copy(staged.uri, storage) as path:
        try:
            sha256 = digest_of_file(path)
        except OSError as error:
            raise InputError(f"weights: {staged.uri!r} cannot be read ({cause_in_one_line(error)}).") from error
        if sha256 != staged.sha256:
            raise InputError(
                f"weights: {staged.uri!r} is damaged or was replaced: its SHA-256 must be {staged.sha256}. Received: "
                f"{sha256}. Put the file back as it was, or delete it if it lies in a staging folder, and give the "
                "same command again."
            )
        yield path
