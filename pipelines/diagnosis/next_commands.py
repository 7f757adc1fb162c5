"""The command that goes on with a job: as the note of its last run has it, or made of the job's definition."""

from __future__ import annotations

import os
import posixpath
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from configs.errors import InputError
from configs.given_flags import by_flag
from configs.list_names import DICT_NAME, SPLITS
from configs.option import defining_flags
from configs.printed_commands import PROGRAMS, program_command
from configs.several_backbones import PLACEHOLDER
from configs.view_options import flags_to_get, without_view_flags
from pipelines.diagnosis.look import Look
from preprocess.lists.labels import dictionary_beside
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
    return next(reversed([value for name, value, _ in by_flag(words) if name == flag]), None)


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
    from configs.recipe import PreprocessOptions  # here: answers without such a command are sooner there

    try:
        lists = [str(path) for path, _ in definition["input_path"]]
    except (KeyError, TypeError, ValueError):
        return None, "its definition names no lists"
    dictionary = dictionary_beside(lists, str(definition.get("input_dict")), look.read)
    if dictionary is None:
        where = posixpath.join(posixpath.dirname(lists[0]), DICT_NAME) if lists else DICT_NAME
        return None, f"its dictionary is not at {where}, or has changed"
    if not has_scheme(dictionary):
        dictionary = os.path.relpath(dictionary)
    words = [word for path in lists for word in ("--input_path", path)]
    words += ["--input_dict", dictionary, "--output_path", prefix]
    words += defining_flags(PreprocessOptions, "records", definition)
    return program_command("embed", *words, *more), None


def command_of_job_dir(
    notes: Mapping[str, Mapping[str, Any]], of_training: Mapping[str, Any] | None = None
) -> str | None:
    """The command that goes on with all lists of a job directory; None if `preproc` did not begin it.

    Args:
      notes: the notes of the directory's unfinished sets by prefix.
      of_training: the definition of the job of its training list; None if it is not known.
    """
    from configs.recipe import load_recipe  # here, as above

    for prefix, note in notes.items():
        words = note["arguments"]
        recipe, input_path = value_of(words, "--recipe"), value_of(words, "--input_path")
        split = posixpath.basename(prefix)
        if recipe is None or input_path is None or split not in SPLITS:
            continue
        try:
            loaded = load_recipe(recipe)
        except InputError:
            continue
        relative = getattr(loaded.lists, split)
        if not relative or not input_path.endswith(f"/{relative}"):
            continue
        data_dir = input_path.removesuffix(f"/{relative}")
        output = value_of(words, "--output_path") or prefix
        # As the noted run named it, since the command is given in the folder of that run.
        directory = output.removesuffix(f"/preproc/{split}").removesuffix(f"/{PLACEHOLDER}")
        own = ["--recipe", recipe, "--data_dir", data_dir, "--job_dir", directory]
        kept = [word for flag, _, given in by_flag(words) if flag not in _OF_ONE_LIST for word in given]
        if split != "train":  # `preproc` gave it other views than the training list.
            kept = without_view_flags(kept)
            kept += flags_to_get(of_training, loaded.preprocess) if of_training is not None else []
        return in_its_folder(note, program_command("preproc", *own, *kept))
    return None
