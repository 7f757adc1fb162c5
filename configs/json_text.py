"""JSON for our files: it is always valid UTF-8, even if it contains file names that are not."""

from __future__ import annotations

import json
from typing import Any

from configs.console import ESCAPES


def to_utf8(text: str) -> bytes:
    """JSON text as UTF-8. Lone surrogates, from file names that are not UTF-8, are written as `\\udcff`."""
    return text.encode("utf-8", ESCAPES)


def json_line(value: Any, *, indent: int | None = None) -> bytes:
    """A value as JSON that ends with a line feed."""
    return to_utf8(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")
