"""URIs of members of tar archives: `shard.tar#000012.jpg@1536+20480` is 20,480 bytes from byte 1,536 of `shard.tar`.

The range makes a URI complete: whoever reads the image needs no index of the archive, and reads nothing else of it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_MEMBER = re.compile(r"(?P<archive>.+\.tar)#(?P<name>.*)@(?P<offset>\d{1,18})\+(?P<size>\d{1,18})", re.DOTALL)


class TarMember(NamedTuple):
    """A member of an archive: the location of the archive, and the range of the member's bytes in it."""

    archive: str
    offset: int
    num_bytes: int


def member_uri(archive: str, name: str, *, offset: int, num_bytes: int) -> str:
    """The URI of a member. The name is there for people; the range says which bytes are meant."""
    return f"{archive}#{name}@{offset}+{num_bytes}"


def parse_member(location: str) -> TarMember | None:
    """The member that a location names; None if it is the location of a whole file."""
    match = _MEMBER.fullmatch(location) if ".tar#" in location else None
    return TarMember(match["archive"], int(match["offset"]), int(match["size"])) if match else None
