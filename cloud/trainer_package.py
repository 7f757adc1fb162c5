"""The project's source as one file that pip installs, and the lock of its dependencies, for containers without them.

The same source gives the same bytes, so the digest in the name shows whether the file was sent before.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import os
import tarfile
import tomllib

from configs.errors import InputError
from configs.source_files import REPOSITORY, source_files

_LOCK = "requirements-trainer.lock"
_DIGEST_LENGTH = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainerPackage:
    """The files that a container installs.

    Attributes:
      name: `hugs-VERSION-DIGEST.tar.gz`.
      content: the source distribution.
      lock_name: `requirements-DIGEST.txt`.
      lock: the packages that the trainer needs, with versions and checksums: requirements-trainer.lock.
    """

    name: str
    content: bytes
    lock_name: str
    lock: bytes


def build_package(root: str = REPOSITORY) -> TrainerPackage:
    """Packs the source distribution of the checkout.

    Args:
      root: the folder of the checkout.

    Raises:
      InputError: the folder is not a checkout.
    """
    try:
        with open(os.path.join(root, "pyproject.toml"), "rb") as stream:
            version = tomllib.load(stream)["project"]["version"]
        content = _pack(root, source_files(root), folder=f"hugs-{version}")
        with open(os.path.join(root, _LOCK), "rb") as stream:
            lock = stream.read()
    except FileNotFoundError as error:
        raise InputError(
            f"trainer package: {error.filename} is not there. Run hugs_train.sh from a checkout of the project, or set "
            "vertex.trainer_in_image with an image that has the trainer."
        ) from error
    return TrainerPackage(
        name=f"hugs-{version}-{_digest(content)}.tar.gz",
        content=content,
        lock_name=f"requirements-{_digest(lock)}.txt",
        lock=lock,
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGEST_LENGTH]


def _pack(root: str, paths: list[str], *, folder: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in paths:
            with open(os.path.join(root, path), "rb") as stream:
                content = stream.read()
            # Times, owners and modes are left out, because they are not part of the source.
            entry = tarfile.TarInfo(f"{folder}/{path}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)
