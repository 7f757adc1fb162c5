"""The command that finishes a set of records whose job was stopped, from what the job left on the disk."""

from __future__ import annotations

import json

from configs.option import defining_flags
from configs.printed_commands import program_command
from configs.recipe import PreprocessOptions
from preprocess.lists.labels import MAX_LABEL_DICT_BYTES, dictionary_beside
from preprocess.records.record_set import definitions_glob
from trainer.storage.files import storage


def is_unfinished(prefix: str) -> bool:
    """Whether the job of a set was begun and has not ended, so that its work lies beside the place of the set."""
    try:
        return bool(storage().match(definitions_glob(prefix)))
    except OSError:
        return False


def finishing_command(prefix: str) -> str | None:
    """The command line of `pipelines.embed` that goes on with the unfinished job of a set.

    Returns:
      None if several jobs are unfinished there, if the definition cannot be read, or if the dictionary with which the
      job was begun does not lie beside its lists: a command with another one would be refused.
    """
    try:
        definitions = storage().match(definitions_glob(prefix))
        if len(definitions) != 1:
            return None
        definition = json.loads(storage().read(definitions[0]))
        lists = [path for path, _ in definition["input_path"]]
        dictionary = dictionary_beside(lists, definition["input_dict"], _read)
        if dictionary is None:
            return None
        flags = defining_flags(PreprocessOptions, "records", definition)
        inputs = (word for path in lists for word in ("--input_path", path))
        words = [*inputs, "--input_dict", dictionary, "--output_path", prefix, *flags]
        return program_command("embed", *words)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _read(path: str) -> bytes | None:
    try:
        return storage().read(path, max_bytes=MAX_LABEL_DICT_BYTES)
    except OSError:
        return None
