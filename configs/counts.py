"""Numbers of things as text, with the right plural."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun, for example "1 shard", "4 shards" or "12,500 rows".

    Args:
      number: how many there are.
      noun: the name of one of them.
      plural: the name of several, if it is not the noun with an "s".
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
