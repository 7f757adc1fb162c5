"""The project's source as one file that pip installs: the trainer of a container that does not have it.

The same source gives the same bytes, so the digest in the name tells whether it was sent before.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import tomllib

from configs.errors import InputError

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_BESIDE_PACKAGES = ("pyproject.toml", "setup.py", "README.md")
_DIGEST_LENGTH = 12


def build_package(root: str = REPOSITORY) -> tuple[str, bytes]:
    """Packs the source distribution of the checkout.

    Args:
      root: of the checkout.

    Returns:
      The file's name, `hugs-VERSION-DIGEST.tar.gz`, and its content.

    Raises:
      InputError: this is no checkout.
    """
    try:
        with open(os.path.join(root, "pyproject.toml"), "rb") as stream:
            metadata = tomllib.load(stream)
        paths = [*_BESIDE_PACKAGES, *_modules(root, metadata["tool"]["setuptools"]["packages"])]
        version = metadata["project"]["version"]
        content = _pack(root, paths, folder=f"hugs-{version}")
    except FileNotFoundError as error:
        raise InputError(
            f"trainer package: {error.filename} is not there. Run hugs_train.sh from a checkout of the project, or set "
            "vertex.trainer_in_image with an image that has the trainer."
        ) from error
    return f"hugs-{version}-{hashlib.sha256(content).hexdigest()[:_DIGEST_LENGTH]}.tar.gz", content


def _modules(root: str, packages: list[str]) -> list[str]:
    suffixes = (".py", ".yaml", ".txt")
    return [
        f"{package}/{name}"
        for package in sorted(packages)
        for name in sorted(os.listdir(os.path.join(root, package)))
        if name.endswith(suffixes)
    ]


def _pack(root: str, paths: list[str], *, folder: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in paths:
            with open(os.path.join(root, path), "rb") as stream:
                content = stream.read()
            # Without times, owners and modes, which say nothing of the source.
            entry = tarfile.TarInfo(f"{folder}/{path}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)
