"""What to do with corrections.csv: commands that run as they are printed, or words that say what is needed."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence

from configs.errors import InputError
from configs.printed_commands import program_command
from preprocess.lists.labels import DICT_NAME, MAX_LABEL_DICT_BYTES, parse_label_dict
from trainer.data.photos import lists_of_sets
from trainer.data.record_sets import RecordSet, find_record_sets
from trainer.storage.files import storage

# What the pages of `hugs audit` and `hugs next` call the file that they download.
CORRECTIONS_NAME = "corrections.csv"
# The name of the evaluation set that `hugs ingest` and `hugs embed` make.
_EVALUATION = "eval"


def next_commands(sets: Sequence[RecordSet], *, input_dict: str | None, output_path: str) -> Iterator[tuple[str, str]]:
    """The ways to use corrections.csv, each with a word before it: "then", "or".

    Args:
      sets: those that were audited.
      input_dict: the dict.txt of sets that were made elsewhere.
      output_path: the folder of the audit; a training with the corrections gets one in it.
    """
    yield "then", training_step(sets, input_dict=input_dict, output_path=output_path)
    lists = lists_of_sets(sets)
    dictionary = _dictionary_of(lists, sets[0].manifest.labels)
    if len(lists) == 1 and dictionary is not None:
        stem, _ = posixpath.splitext(lists[0])
        words = ["--corrections", CORRECTIONS_NAME, "--input_path", lists[0], "--input_dict", dictionary]
        words += ["--data_paths", ",".join(found.prefix for found in sets), "--output_path", f"{stem}-corrected.csv"]
        yield "or", program_command("relabel", *words)
    else:
        yield "or", f"correct each list with `hugs relabel`: {program_command('relabel', '--help')}"


def training_step(sets: Sequence[RecordSet], *, input_dict: str | None, output_path: str) -> str:
    """The command that trains on some sets with corrections.csv; see `next_commands`. Or words that say how."""
    training = [found.prefix for found in sets if posixpath.basename(found.prefix) != _EVALUATION]
    evaluation = _evaluation_set(sets, input_dict)
    if not training or evaluation is None:
        return (
            f"give {CORRECTIONS_NAME} to the training of these sets, as --corrections: no set named {_EVALUATION} lies "
            "beside them, so only you know with which one they are trained"
        )
    words = ["--train_data_paths", ",".join(training), "--eval_data_paths", evaluation]
    words += [] if input_dict is None else ["--input_dict", input_dict]
    words += ["--corrections", CORRECTIONS_NAME, "--output_path", posixpath.join(output_path, "training")]
    return program_command("train", *words)


def _evaluation_set(sets: Sequence[RecordSet], input_dict: str | None) -> str | None:
    """The prefix of the evaluation set beside the audited sets; None if there is no finished one of their kind."""
    folders = {posixpath.dirname(found.prefix) for found in sets}
    if len(folders) != 1:
        return None
    prefix = posixpath.join(*folders, _EVALUATION)
    try:
        (found,) = find_record_sets([prefix], flag="eval_data_paths", input_dict=input_dict)
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
