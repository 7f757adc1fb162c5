"""What to do with the tables of these programs: commands that run as they are printed, or words that say what to do."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence

from configs.errors import InputError
from configs.printed_commands import program_command
from preprocess.lists.labels import DICT_NAME, MAX_LABEL_DICT_BYTES, parse_label_dict
from trainer.data.photos import lists_of_sets
from trainer.data.record_sets import RecordSet, find_record_sets
from trainer.storage.files import storage

# What the pages of `hugs audit` and `hugs next` call the files that they download. Both are files of corrections; with
# one name, the one would be taken for the other.
CORRECTIONS_NAME = "corrections.csv"
LABELS_NAME = "labels.csv"
# The names of the sets that `hugs ingest` and `hugs embed` make to choose and to measure a model.
_EVALUATION, _TEST = "eval", "test"


def steps_with_corrections(
    sets: Sequence[RecordSet], *, input_dict: str | None, output_path: str
) -> Iterator[tuple[str, str]]:
    """The ways to use corrections.csv, each with a word before it: "then", "or", "and".

    Args:
      sets: those that were audited.
      input_dict: the dict.txt of sets that were made elsewhere.
      output_path: the folder of the audit; a training with the corrections gets one in it.
    """
    yield "then", training_step(sets, input_dict=input_dict, output_path=output_path)
    commands = [command for found in sets if (command := _relabel_command(found)) is not None]
    yield from zip(["or", *["and"] * len(commands)], commands, strict=False)
    if len(commands) < len(sets):
        rest = "the other lists" if commands else "each list"
        yield (
            "and" if commands else "or",
            f"correct {rest} with `hugs relabel`, which takes {CORRECTIONS_NAME}, a list and its {DICT_NAME}: they are "
            "not where the sets were made from them",
        )


def training_step(
    sets: Sequence[RecordSet],
    *,
    input_dict: str | None,
    output_path: str,
    flag: str = "corrections",
    table: str = CORRECTIONS_NAME,
) -> str:
    """The command that trains on some sets with a table, in the folder `training` in `output_path`; or words.

    Args:
      sets: those that a program looked at. Those that are named eval or test are not trained on.
      input_dict: the dict.txt of sets that were made elsewhere.
      output_path: the folder of the program.
      flag: the option of the trainer that takes the table.
      table: its path.
    """
    training = [found.prefix for found in sets if posixpath.basename(found.prefix) not in (_EVALUATION, _TEST)]
    evaluation, test = (_set_beside(sets, name, input_dict) for name in (_EVALUATION, _TEST))
    if not training or evaluation is None:
        lacks = (
            f"no set named {_EVALUATION} lies beside them"
            if training
            else f"none of them has another name than {_EVALUATION} or {_TEST}"
        )
        return (
            f"give {table} to the training of these sets, as --{flag}: {lacks}, so only you know with which ones they "
            "are trained"
        )
    words = ["--train_data_paths", ",".join(training), "--eval_data_paths", evaluation]
    words += [] if test is None else ["--test_data_paths", test]
    words += [] if input_dict is None else ["--input_dict", input_dict]
    words += [f"--{flag}", table, "--output_path", posixpath.join(output_path, "training")]
    return program_command("train", *words)


def audit_step(sets: Sequence[RecordSet], *, input_dict: str | None, group_by: str, output_path: str) -> str:
    """The command that audits some sets, with the groups of a table.

    Args:
      sets: the sets.
      input_dict: the dict.txt of sets that were made elsewhere.
      group_by: the path of the table.
      output_path: the folder of the program; the audit gets one in it.
    """
    words = ["--data_paths", ",".join(found.prefix for found in sets), "--group_by", group_by]
    words += [] if input_dict is None else ["--input_dict", input_dict]
    return program_command("audit", *words, "--output_path", posixpath.join(output_path, "audit"))


def _relabel_command(found: RecordSet) -> str | None:
    """The command that corrects the list of a set, with a new list beside it; None if that is not known to be there."""
    lists = lists_of_sets([found])
    dictionary = _dictionary_of(lists, found.manifest.labels)
    if dictionary is None:
        return None
    stem, _ = posixpath.splitext(lists[0])
    words = ["--corrections", CORRECTIONS_NAME, "--input_path", lists[0], "--input_dict", dictionary]
    return program_command("relabel", *words, "--data_paths", found.prefix, "--output_path", f"{stem}-corrected.csv")


def _set_beside(sets: Sequence[RecordSet], name: str, input_dict: str | None) -> str | None:
    """The prefix of a set beside some others; None if there is no finished one of their kind."""
    folders = {posixpath.dirname(found.prefix) for found in sets}
    if len(folders) != 1:
        return None
    prefix = posixpath.join(*folders, name)
    try:
        (found,) = find_record_sets([prefix], flag=f"{name}_data_paths", input_dict=input_dict)
    except (InputError, ValueError):
        return None
    ours = sets[0].manifest
    is_ours = found.manifest.backbone.agrees_with(ours.backbone) and found.manifest.labels == ours.labels
    return prefix if is_ours else None


def _dictionary_of(lists: Sequence[str], labels: tuple[str, ...]) -> str | None:
    """The dict.txt beside the only list, if both are there and it has these labels."""
    if len(lists) != 1:
        return None
    path = posixpath.join(posixpath.dirname(lists[0]), DICT_NAME)
    try:
        if not storage().match(lists[0]):
            return None
        raw = storage().read(path, max_bytes=MAX_LABEL_DICT_BYTES)
        return path if parse_label_dict(raw, where=path).names == labels else None
    except (OSError, InputError):
        return None
