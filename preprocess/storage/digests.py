"""Digests of the contents of local files."""

from __future__ import annotations

import hashlib
from typing import Literal


def digest_of_file(path: str, algorithm: Literal["md5", "sha256"] = "sha256") -> str:
    """The digest of a local file's content, hex digits. Raises OSError if it cannot be read."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()
