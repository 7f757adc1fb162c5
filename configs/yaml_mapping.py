"""Reads YAML files that people write: strictly, and with the line of a fault in its message."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from configs.errors import InputError
from configs.section import FieldError, shown

# A recipe has a hundred lines. PyYAML takes a second for each half of a megabyte.
_MAX_BYTES = 256 * 1024
# Texts that YAML 1.1 reads as numbers, against the intention of most people: it reads 0777 as 511 and 1:30 as 90.
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_ODD_NUMBER = re.compile(r"[-+]?0[0-9_]+|.*:.*", re.DOTALL)


def read_yaml(path: str) -> bytes:
    """The content of a local file. If it is too long, only one byte more than allowed is read. Raises OSError."""
    with open(path, "rb") as file:
        return file.read(_MAX_BYTES + 1)


@contextlib.contextmanager
def located(where: str, lines: dict[str, int]) -> Iterator[None]:
    """Puts the file, and the line if it is known, in front of a message about a field."""
    try:
        yield
    except FieldError as error:
        line = lines.get(error.field)
        place = f"{where}, line {line}" if line else where
        raise InputError(" ".join(f"{place}: {error}".split())) from error


def parse_mapping(raw: bytes, *, where: str, what: str) -> tuple[dict[Any, Any], dict[str, int]]:
    """The mapping in a YAML document, and the line (from 1) of each key by its dotted name.

    Args:
      raw: UTF-8 YAML.
      where: the name of the file, for messages.
      what: the expected content, for messages: "a recipe is a mapping of fields such as `name: hugs`".

    Raises:
      InputError: the bytes are not YAML, are not a mapping or are too long; a key is written twice; a value refers to
        another one (`*name`, `<<`), or holds a character that no text and no file name has.
    """
    if len(raw) > _MAX_BYTES:
        raise InputError(f"{where}: {what}, and no longer than {_MAX_BYTES} bytes. Is this the file that you mean?")
    import yaml  # here, so that `--help` of the programs that take a recipe stays quick

    class Loader(yaml.SafeLoader):
        """Reads `1e-3` as a number. YAML 1.1 would read it as a text, and only `1.0e-3` as a number.

        Aliases are refused: a few lines of them can expand to more values than fit in memory, and no field needs them.
        """

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                event = self.peek_event()
                raise InputError(
                    f"{where}, line {event.start_mark.line + 1}: *{event.anchor} stands for a value that is written "
                    "elsewhere, which is not taken here. Write the value itself."
                )
            return super().compose_node(parent, index)

        def compose_scalar_node(self, anchor: Any) -> Any:
            node = super().compose_scalar_node(anchor)
            line = node.start_mark.line + 1
            if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in node.value):
                raise InputError(f"{where}, line {line}: {node.value[:60]!r} holds a character that no text has.")
            if node.tag == "tag:yaml.org,2002:merge":
                raise InputError(f"{where}, line {line}: << is not taken here. Write the fields themselves.")
            if node.tag in _NUMBERS and _ODD_NUMBER.fullmatch(node.value):
                node.tag = "tag:yaml.org,2002:str"
            return node

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+"), list("-+0123456789")
    )
    try:
        loader = Loader(raw.decode("utf-8-sig"))
        node = loader.get_single_node()
        lines = _lines_of_keys(node, where=where) if isinstance(node, yaml.MappingNode) else {}
        data = loader.construct_document(node) if node is not None else None
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"{place}: not valid YAML ({' '.join(problem.split())}).") from error
    except (
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:  # for example the date 2024-13-45
        raise InputError(f"{where}: a value cannot be read ({error}). Put it in quotes if it is text.") from error
    if not isinstance(data, dict):
        found = "nothing" if data is None else shown(data)[:60]
        raise InputError(f"{where}: {what}. Received: {found}.")
    return data, lines


def _lines_of_keys(node: Any, *, where: str, prefix: str = "", depth: int = 2) -> dict[str, int]:
    """The lines of the keys of a mapping and of its sections. Raises InputError if a key is written twice.

    PyYAML keeps the last of two equal keys without a message, so nobody would notice the first value.
    """
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        key, line = f"{prefix}{key_node.value}", key_node.start_mark.line + 1
        if key in lines:
            raise InputError(f"{where}, line {line}: {key} is given twice, first in line {lines[key]}. Remove one.")
        lines[key] = line
        if depth > 1 and value_node.id == "mapping":
            lines |= _lines_of_keys(value_node, where=where, prefix=f"{key}.", depth=depth - 1)
    return lines
