"""The values of a table with types (JSON, Parquet) as the texts that a cell of a CSV would hold."""

from __future__ import annotations

import math
from typing import Any

# The separator in the name of a field within an object, as in `classificationAnnotation.displayName`.
_DOT = "."


def texts_of(value: Any) -> list[str]:
    """The texts of a value: none for null, several for a list. Raises TypeError for objects and other values."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if isinstance(value, bool):
        return ["1" if value else "0"]
    if isinstance(value, int | float):
        if math.isnan(value):  # pandas writes a missing value so
            return []
        return [str(int(value)) if float(value).is_integer() else repr(value)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in texts_of(item)]
    raise TypeError(f"a text, a number or a list is wanted, not {type(value).__name__}")


def field_of(row: dict[str, Any], name: str) -> Any:
    """The value of a field; "a.b" is the field b of the object a, or of each object of the list a."""
    if name in row:
        return row[name]
    outer, dot, inner = name.partition(_DOT)
    value = row.get(outer) if dot else None
    if isinstance(value, list):
        return [item.get(inner) for item in value if isinstance(item, dict)]
    return value.get(inner) if isinstance(value, dict) else None


def fields_of_json(row: dict[str, Any]) -> dict[str, list[str]]:
    """The fields of a JSON object that are texts, numbers or lists of these, also one level down, by their names."""
    found: dict[str, list[str]] = {}
    for name, value in row.items():
        inner = value[:1] if isinstance(value, list) else [value]
        names = [f"{name}{_DOT}{key}" for item in inner if isinstance(item, dict) for key in item] or [name]
        for full_name in names:
            try:
                found[full_name] = texts_of(field_of(row, full_name))
            except (TypeError, ValueError, OverflowError):
                continue
    return found
