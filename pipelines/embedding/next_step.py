"""The commands that come after an embedded list: for the next list of the same folder, or for the training."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence

from configs.given_flags import by_flag
from configs.list_names import SPLITS
from configs.printed_commands import program_command
from configs.several_backbones import path_for, path_of_each
from configs.view_options import flags_of_held_out, without_view_flags
from pipelines.checks.embed_flags import of_each_backbone, read_flags
from preprocess.records.record_set import MANIFEST_NAME, sidecar_path
from preprocess.storage.base import Storage, has_file

# Flags that name the list, or that belong to one run. All others matter for the next list as well.
_LIST_FLAGS = ("--input_path", "--output_path")
_OF_ONE_RUN = ("--against", "--retry_failures", "--overwrite", "--verify", "--prediction", "--dry_run", "--job_name")
_FOLDER_OF_RECORDS = "preproc"


def next_steps(argv: Sequence[str], storage: Storage) -> list[str]:
    """The next commands after a list was embedded to its end.

    Args:
      argv: the command line of `pipelines.embed` that embedded it.
      storage: of the lists and of the sets.

    Returns:
      A command line, or a training for each of several backbones; empty if the list is not one of those that
      `pipelines.ingest` writes, or the rest is not there.

    Raises:
      OSError: storage failed.
    """
    flags = read_flags(argv)
    options = flags.options
    split = posixpath.basename(options.output_path)
    if split not in SPLITS or len(options.input_path) != 1:
        return []
    data_dir, name = posixpath.split(options.input_path[0])
    if name != f"{split}.csv":
        return []
    # The folder of the sets as the command line has it, and that of each backbone.
    each = of_each_backbone(options)
    output = path_of_each(options.output_path) if len(each) > 1 else options.output_path
    records = posixpath.dirname(output)
    folders = [path_for(records, backbone) for backbone in each]
    finished = [
        other
        for other in SPLITS
        if all(has_file(storage, sidecar_path(posixpath.join(folder, other), MANIFEST_NAME)) for folder in folders)
    ]
    for other in SPLITS:
        path = posixpath.join(data_dir, f"{other}.csv")
        if other not in finished and has_file(storage, path):
            paths = dict(zip(_LIST_FLAGS, (path, posixpath.join(records, other)), strict=True))
            against = ["--against", posixpath.join(records, "train")] if "train" in finished else []
            words = [*_with_paths(argv, paths), *against]
            if other != "train":
                words = flags_of_held_out(words, flags.recipe.preprocess)
            elif split != "train":  # The recipe says which views there are.
                words = without_view_flags(words)
            return [program_command("embed", *words)]
    if not {"train", "eval"} <= set(finished):
        return []
    return [_train_command(folder, finished) for folder in folders]


def _train_command(records: str, splits: Sequence[str]) -> str:
    sets = [word for of in splits for word in (f"--{of}_data_paths", posixpath.join(records, of))]
    return program_command("train", *sets, "--output_path", _training_folder(records))


def _training_folder(records: str) -> str:
    """The folder beside that of the records. None inside it: `train*`, which names the records, would match it, too."""
    if posixpath.basename(records) == _FOLDER_OF_RECORDS:
        return posixpath.join(posixpath.dirname(records), "training")
    return f"{records}_training" if records else "model"


def _with_paths(argv: Sequence[str], paths: dict[str, str]) -> Iterator[str]:
    """The words of a command line with other paths and without what belongs to one run."""
    for flag, _, words in by_flag(argv):
        if flag in paths:
            yield from (flag, paths[flag])
        elif flag not in _OF_ONE_RUN:
            yield from words
