"""Checks that a worker runs the same code as the program that started the job.

Workers in a container that was built from other code could fail with obscure errors, or silently decode other pixels.
"""

from __future__ import annotations

import functools
import hashlib
import pathlib

import configs
import preprocess
from configs.errors import InputError


@functools.cache
def source_digest() -> str:
    """The digest of the code that makes records: paths and contents of all modules below configs and preprocess."""
    digest = hashlib.sha256()
    for package in (configs, preprocess):
        folder = pathlib.Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{package.__name__}/{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def check_same_code(launcher: str, image: str | None) -> None:
    """Makes sure that this process runs the same code as the program that started the job.

    Args:
      launcher: `source_digest()` of that program.
      image: the container image of the workers; None if they use no image of ours.

    Raises:
      InputError: the code differs.
    """
    if launcher == source_digest():
        return
    where = f"the container image {image!r}" if image else "the workers' environment"
    raise InputError(
        f"worker: {where} has other code of hugs than the program that started the job (digest of its modules there "
        f"{source_digest()[:12]}, here {launcher[:12]}). Rebuild it from the same checkout (Dockerfile, target "
        "worker), or install the project there anew, and give the same command again."
    )
