"""Files of weights: checks that they are available, and downloads or copies them to this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import importlib.util
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Literal

from configs.activity import doing
from configs.errors import InputError, cause_in_one_line
from configs.install_hint import install_hint
from preprocess.storage import router
from preprocess.storage.base import Storage, is_file
from preprocess.storage.digests import digest_of_file
from preprocess.storage.uris import has_scheme, is_in_bucket

_PROBE_TIMEOUT_SEC = 10
_USABLE = "imagenet, random, or the path of a weights file (.weights.h5, .h5 or .keras of Keras, .pth of PyTorch)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file of weights that Keras publishes.

    Attributes:
      url: where.
      digest: of its content, as Keras gives it: an MD5 of 32 hex digits or a SHA-256 of 64; None if it gives none.
      cached_as: its name in Keras's cache; None for that of the URL.
    """

    url: str
    digest: str | None
    cached_as: str | None = None

    @property
    def name(self) -> str:
        """The file's name in Keras's cache."""
        return self.cached_as or os.path.basename(self.url)

    @property
    def cache_path(self) -> str:
        """The path at which keras.utils.get_file caches it, so files that other Keras programs cached are used too."""
        home = os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")
        return os.path.join(home, "models", self.name)

    def find(self) -> str | None:
        """The file's path on this machine; None if it is not there. The content is not looked at."""
        return self.cache_path if os.path.isfile(self.cache_path) else None

    def check(self) -> None:
        """Finds out in seconds whether the file is on this machine or can be fetched.

        Raises:
          InputError: it is neither.
        """
        if self.find():
            return
        request = urllib.request.Request(self.url, method="HEAD")
        try:
            with doing("looking for the ImageNet weights on the network"):
                urllib.request.urlopen(request, timeout=_PROBE_TIMEOUT_SEC).close()
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(self, error) from error

    def fetch(self) -> str:
        """The file's path on this machine, its digest checked if Keras gives one; fetched by Keras if it is not there.

        Raises:
          InputError: it cannot be fetched.
        """
        found = self.find()
        if found and (self.digest is None or digest_of_file(found, _kind(self.digest)) == self.digest):
            return found
        from preprocess.backbones.tensorflow_import import import_tensorflow

        import_tensorflow()
        import keras

        try:
            return keras.utils.get_file(self.name, self.url, cache_subdir="models", file_hash=self.digest)
        except Exception as error:  # Keras raises bare Exception for a failed download.
            raise _unreachable(self, error) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackagedFile:
    """A file of weights that a package of the package index installs (the extra `weights`).

    Attributes:
      distribution: the name of the package on the index.
      package: the folder that it installs.
      path: of the file in that folder.
      sha256: of the file's content, 64 hex digits.
    """

    distribution: str
    package: str
    path: str
    sha256: str

    @property
    def digest(self) -> str:
        """As `PublishedFile.digest`."""
        return self.sha256

    def find(self) -> str | None:
        """The file's path on this machine; None if it is not there. Nothing of the package is run."""
        spec = importlib.util.find_spec(self.package)
        for folder in spec.submodule_search_locations or () if spec else ():
            path = os.path.join(folder, self.path)
            if os.path.isfile(path):
                return path
        return None

    def check(self) -> None:
        """Finds out whether the file is installed.

        Raises:
          InputError: it is not.
        """
        if not self.find():
            raise InputError(
                f"weights: the ImageNet weights of this network come with the package {self.distribution}, which is "
                f"not installed. {install_hint('weights')} Or pass --weights FILE, or --weights random to try the "
                "pipeline without them."
            )

    def fetch(self) -> str:
        """The file's path on this machine, its digest checked.

        Raises:
          InputError: it is not installed, or it has other content.
        """
        self.check()
        path = str(self.find())
        if digest_of_file(path) != self.sha256:
            raise InputError(
                f"weights: {path!r} is damaged or was replaced: its SHA-256 must be {self.sha256}. Install "
                f"{self.distribution} again."
            )
        return path


def _kind(digest: str) -> Literal["md5", "sha256"]:
    return "md5" if len(digest) == 32 else "sha256"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagedFile:
    """A file of weights that workers can read.

    Attributes:
      uri: a local path (on a disk that all workers share) or gs://.
      sha256: the SHA-256 of its content, 64 hex digits.
    """

    uri: str
    sha256: str


def _unreachable(file: PublishedFile, error: Exception) -> InputError:
    cause = error.reason if isinstance(error, urllib.error.URLError) else cause_in_one_line(error)
    return InputError(
        f"weights: the ImageNet weights are not on this machine and {file.url} cannot be reached ({cause}). Fetch that "
        f"file on a machine that can and pass it as --weights FILE, or put it at {file.cache_path}; or pass --backbone "
        "efficientnet_lite0, whose weights are installed with the project, or --weights random to try the "
        "pipeline without."
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
        found = is_in_bucket(path) and is_file(storage or router.UriStorage(), path)
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
