"""The command that goes on with a job: as the note of its last run has it, or made of the job's definition."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from configs.errors import InputError
from configs.list_names import DICT_NAME, SPLITS
from configs.printed_commands import PROGRAMS, program_command
from pipelines.diagnosis.look import Look
from preprocess.lists.labels import parse_label_dict
from preprocess.storage.uris import has_scheme

# What the program `preproc` sets by itself, for each list.
_OF_ONE_LIST = ("--input_path", "--input_dict", "--output_path", "--against", "--prediction", "--job_name", "--recipe")


def command_of_note(note: Mapping[str, Any]) -> str | None:
    """The command line of the run that a note is of; None if its program is not one of `hugs`."""
    names = [name for name, (module, _) in PROGRAMS.items() if module == note["module"]]
    return in_its_folder(note, program_command(names[0], *note["arguments"])) if names else None


def in_its_folder(note: Mapping[str, Any], command: str) -> str:
    """A command that names files relative to the folder in which the noted run was started."""
    folder = note.get("folder")
    if not isinstance(folder, str) or not folder or os.path.realpath(folder) == os.path.realpath(os.curdir):
        return command
    # Words such as ./hugs are relative to the current folder.
    first, *rest = shlex.split(command)
    if os.sep in first and not os.path.isabs(first):
        first = os.path.abspath(first)
    return f"cd {shlex.quote(folder)} && {shlex.join([first, *rest])}"


def value_of(words: Sequence[str], flag: str) -> str | None:
    """The last value of a flag on a command line; None if it is not given."""
    found = None
    for at, word in enumerate(words):
        if word == flag and at + 1 < len(words):
            found = words[at + 1]
        elif word.startswith(f"{flag}="):
            found = word.partition("=")[2]
    return found


def command_of_definition(
    definition: Mapping[str, Any], prefix: str, look: Look, *more: str
) -> tuple[str | None, str | None]:
    """The command that gives a job again, made of its definition.

    Args:
      definition: of the job, as `job.json` and the report hold it.
      prefix: of its set.
      look: reads the dictionaries that may be its own.
      *more: further words of the command line.

    Returns:
      The command, or None and why it cannot be made.
    """
    from configs.option import options_of  # here: answers without such a command do not need it, and are sooner there
    from pipelines.checks.embed_flags import JobOptions

    try:
        lists = [str(path) for path, _ in definition["input_path"]]
    except (KeyError, TypeError, ValueError):
        return None, "its definition names no lists"
    dictionary = find_dictionary(definition, lists, look)
    if dictionary is None:
        where = posixpath.join(posixpath.dirname(lists[0]), DICT_NAME) if lists else DICT_NAME
        return None, f"its dictionary is not at {where}, or has changed"
    words = [word for path in lists for word in ("--input_path", path)]
    words += ["--input_dict", dictionary, "--output_path", prefix]
    for name, described in options_of(JobOptions).items():
        if described.decides != "records" or described.held_as or name not in definition:
            continue
        value = definition[name]
        if value == described.default or (isinstance(value, list) and tuple(value) == described.default):
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [w for one in (value if isinstance(value, list) else [value]) for w in (f"--{name}", str(one))]
    return program_command("embed", *words, *more), None


def find_dictionary(definition: Mapping[str, Any], lists: Iterable[str], look: Look) -> str | None:
    """The dictionary with which a job was defined, if it lies beside one of its lists and is still the same."""
    for path in lists:
        candidate = posixpath.join(posixpath.dirname(path), DICT_NAME)
        if labels_digest(candidate, look) == definition.get("input_dict"):
            return candidate if has_scheme(candidate) else os.path.relpath(candidate)
    return None


def labels_digest(path: str, look: Look) -> str | None:
    """The digest of the labels of a dictionary, as a definition has it; None if there is no dictionary."""
    raw = look.read(path)
    try:
        names = parse_label_dict(raw or b"", where=path).names
    except InputError:
        return None
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()


def command_of_job_dir(job_dir: str, notes: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The command that goes on with all lists of a job directory; None if `preproc` did not begin it.

    Args:
      job_dir: the directory.
      notes: the notes of its unfinished sets by prefix.
    """
    from configs.recipe import load_recipe  # here, as above

    for prefix, note in notes.items():
        words = note["arguments"]
        recipe, input_path = value_of(words, "--recipe"), value_of(words, "--input_path")
        split = posixpath.basename(prefix)
        if recipe is None or input_path is None or split not in SPLITS:
            continue
        try:
            relative = getattr(load_recipe(recipe).lists, split)
        except InputError:
            continue
        if not relative or not input_path.endswith(f"/{relative}"):
            continue
        data_dir = input_path.removesuffix(f"/{relative}")
        output = value_of(words, "--output_path") or prefix
        # As the noted run named it, since the command is given in the folder of that run.
        directory = output.removesuffix(f"/preproc/{split}")
        own = ["--recipe", recipe, "--data_dir", data_dir, "--job_dir", directory]
        return in_its_folder(note, program_command("preproc", *own, *_without(words, _OF_ONE_LIST)))
    return None


def _without(words: Sequence[str], flags: Iterable[str]) -> list[str]:
    """A command line without some flags and their values."""
    kept, left = [], list(words)
    while left:
        word = left.pop(0)
        flag, has_value, _ = word.partition("=")
        own = [] if has_value or not left or left[0].startswith("--") else [left.pop(0)]
        if flag not in flags:
            kept += [word, *own]
    return kept
