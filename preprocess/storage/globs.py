"""Globs of the names of objects in buckets: listings find what begins with a text, so the rest is matched here."""

from __future__ import annotations

import re
from collections.abc import Iterable

_GLOB_START = re.compile(r"[*?\[]")
_GLOB_PART = re.compile(
    r"(?P<folders>\*\*/)|(?P<all>\*\*)|(?P<some>\*)|(?P<one>\?)|\[(?P<set>!?\]?[^\]]*)\]|(?P<plain>.)", re.DOTALL
)


def glob_regex(pattern: str) -> re.Pattern[str]:
    """A glob as a regular expression: `*` and `?` do not match a slash, `**` does, and `**/` may match nothing."""
    parts = []
    for match in _GLOB_PART.finditer(pattern):
        match match.lastgroup:
            case "folders":
                parts.append("(?:.*/)?")
            case "all":
                parts.append(".*")
            case "some":
                parts.append("[^/]*")
            case "one":
                parts.append("[^/]")
            case "set":
                members = match["set"].replace("\\", "\\\\")
                negated, members = members.startswith("!"), members.removeprefix("!")
                # "[" and a leading "]" are plain members of a set.
                members = members.replace("[", "\\[").replace("]", "\\]").replace("^", "\\^")
                parts.append(f"(?!/)[{'^' if negated else ''}{members}]")
            case _:
                parts.append(re.escape(match[0]))
    return re.compile("".join(parts), re.DOTALL)


def plain_start(glob: str) -> str:
    """The part of a glob before its first wildcard; the whole of it if it has none."""
    start = _GLOB_START.search(glob)
    return glob[: start.start()] if start else glob


def has_wildcard(glob: str) -> bool:
    """Whether a name may be a glob."""
    return _GLOB_START.search(glob) is not None


def matching(glob: str, names: Iterable[str]) -> list[str]:
    """The names that a glob matches, in their order. If one of them is the glob itself, it is that one alone.

    Consoles make objects whose names end with a slash, to show empty folders. They are left out.
    """
    found = list(names)
    if glob in found:
        return [glob]
    regex = glob_regex(glob)
    return [name for name in found if regex.fullmatch(name) and not name.endswith("/")]
