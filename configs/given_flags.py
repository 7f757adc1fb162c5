"""The flags of a command line that another program parses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def by_flag(words: Sequence[str]) -> Iterator[tuple[str, str, Sequence[str]]]:
    """(flag, value, the words that give it) for each flag of a command line, in order.

    A flag has one value, which follows "=" or is the next word, or none; then it is an empty text. A word that belongs
    to no flag comes in the place of a flag, so that the words together are the command line.
    """
    at = 0
    while at < len(words):
        flag, has_value, value = words[at].partition("=")
        end = at + 1
        if not has_value and end < len(words) and not words[end].startswith("--"):
            value = words[end]
            end += 1
        yield flag, value, words[at:end]
        at = end
