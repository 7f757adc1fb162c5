"""JSON as our files have it: UTF-8 that everybody can read, whatever names it holds."""

from __future__ import annotations

import json
from typing import Any

from configs.console import ESCAPES


def to_utf8(text: str) -> bytes:
    """JSON text as UTF-8. Half characters, which names of files that are no UTF-8 have, stand as `\\udcff`."""
    return text.encode("utf-8", ESCAPES)


def json_line(value: Any, *, indent: int | None = None) -> bytes:
    """A value as JSON that ends with a line feed."""
    return to_utf8(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")
