"""The command that finishes a set of records whose job was stopped, from what the job left on the disk."""

from __future__ import annotations

import glob
import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from configs.errors import InputError
from configs.option import options_of
from configs.printed_commands import program_command
from configs.recipe import PreprocessOptions
from preprocess.lists.labels import MAX_LABEL_DICT_BYTES, parse_label_dict
from preprocess.records.record_set import DEFINITION_NAME, PARTS_PREFIX, sidecar_dir
from trainer.storage.files import storage

_DICT_NAME = "dict.txt"


def is_unfinished(prefix: str) -> bool:
    """Whether the job of a set was begun and has not ended, so that its work lies beside the place of the set."""
    try:
        return bool(_definitions(prefix))
    except OSError:
        return False


def finishing_command(prefix: str) -> str | None:
    """The command line of `pipelines.embed` that goes on with the unfinished job of a set.

    Returns:
      None if several jobs are unfinished there, if the definition cannot be read, or if the dictionary with which the
      job was begun does not lie beside its lists: a command with another one would be refused.
    """
    try:
        definitions = _definitions(prefix)
        if len(definitions) != 1:
            return None
        definition = json.loads(storage().read(definitions[0]))
        lists = [path for path, _ in definition["input_path"]]
        dictionary = _dictionary(lists, definition["input_dict"])
        if dictionary is None:
            return None
        inputs = (word for path in lists for word in ("--input_path", path))
        words = [*inputs, "--input_dict", dictionary, "--output_path", prefix, *_flags(definition)]
        return program_command("embed", *words)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _definitions(prefix: str) -> list[str]:
    return storage().match(f"{glob.escape(sidecar_dir(prefix))}/{PARTS_PREFIX}*/{DEFINITION_NAME}")


def _dictionary(lists: Sequence[str], sha256: str) -> str | None:
    """The path of the dictionary beside one of the lists that has the digest; None if there is none."""
    for folder in dict.fromkeys(posixpath.dirname(path) for path in lists):
        path = posixpath.join(folder, _DICT_NAME)
        try:
            if parse_label_dict(storage().read(path, max_bytes=MAX_LABEL_DICT_BYTES), where=path).sha256 == sha256:
                return path
        except (OSError, InputError):
            continue
    return None


def _flags(definition: Mapping[str, Any]) -> Iterator[str]:
    """The flags of what decides the records and differs from the defaults."""
    for name, described in options_of(PreprocessOptions).items():
        if described.decides == "records" and name in definition and definition[name] != described.default:
            yield from (f"--{name}", str(definition[name]))
