"""What a request for similar photos says in its address: how many, and which file it sends a smaller copy of."""

from __future__ import annotations

import dataclasses
import hashlib
import re

from starlette.requests import Request

from serving.refusals import RefusedError

# Up to so many, an index with cells answers without comparing all photos.
MOST = 50
_DEFAULT_COUNT = 10
_COUNT = re.compile(r"[1-9][0-9]?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """How a request searches.

    Attributes:
      count: how many photos are wanted.
      image_sha256: the SHA-256 of the file, in hexadecimal, from a client that sends a smaller copy of it; else None.
    """

    count: int
    image_sha256: str | None

    def digest_of(self, image: bytes) -> str:
        """The SHA-256 of the file that the request is about, in hexadecimal. `image`: the bytes that it sent."""
        return self.image_sha256 or hashlib.sha256(image).hexdigest()


def read_search(request: Request, *, parameter: str) -> SearchRequest:
    """Reads the parameters of an address.

    Args:
      request: of HTTP.
      parameter: the name of the one that says how many photos are wanted.

    Raises:
      RefusedError: a parameter breaks its rule.
    """
    count = request.query_params.get(parameter, str(_DEFAULT_COUNT))
    if not _COUNT.fullmatch(count) or int(count) > MOST:
        raise RefusedError(400, f"{parameter} must be a whole number from 1 to {MOST}.")
    digest = request.query_params.get("image_sha256")
    if digest is not None and not _SHA256.fullmatch(digest):
        raise RefusedError(400, "image_sha256 must be the SHA-256 of the photo: 64 hexadecimal digits.")
    return SearchRequest(count=int(count), image_sha256=None if digest is None else digest.lower())
