"""Finds the lists of a recipe in a directory or bucket, and names the directories of their jobs."""

from __future__ import annotations

import dataclasses
import datetime
import getpass
import os
import posixpath
import re
from collections.abc import Collection, Iterable

from configs.errors import InputError
from configs.file_uris import path_argument
from configs.option import REQUIRED, option
from configs.printed_commands import program_command
from configs.recipe import Recipe, RecipeChoice
from configs.rules import Text
from configs.several_backbones import PLACEHOLDER
from preprocess.records.record_set import DEFINITION_NAME, MANIFEST_NAME, PARTS_PREFIX
from preprocess.storage.base import Storage
from preprocess.storage.uris import has_scheme

_TIME = "%Y%m%d_%H%M%S"
_MAX_USER = 32
# The flags of `pipelines.embed` that depend on the list.
LIST_FLAGS = ("--input_path", "--input_dict", "--output_path")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeListOptions(RecipeChoice):
    """The options of programs that work on all lists of a recipe: the recipe, and where its lists are."""

    data_dir: str = option(
        REQUIRED,
        Text(anything=True),
        help="directory or bucket that has the lists",
        decides="neither",
        metavar="DIR",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeList:
    """A list of a recipe, to be embedded.

    Attributes:
      split: "train", "eval" or "test".
      input_path: the list, or a glob of lists.
      input_dict: its dict.txt.
      output_path: prefix of the record set.
    """

    split: str
    input_path: str
    input_dict: str
    output_path: str

    def flags(self) -> list[str]:
        """The list as flags of `pipelines.embed`."""
        paths = (self.input_path, self.input_dict, self.output_path)
        return [word for pair in zip(LIST_FLAGS, paths, strict=True) for word in pair]


def check_data_dir(path: str) -> str:
    """The directory or bucket of lists that a user names, without `file://` and without a slash at its end.

    Raises:
      InputError: there is no such directory.
    """
    path = path_argument(path)
    path = path.rstrip("/") or path[:1]  # "/" stays "/"
    if not has_scheme(path) and not os.path.isdir(path):
        raise InputError(f"--data_dir: there is no directory {path!r}. Give the one that has the lists.")
    return path


def folder_of_each(job_dir: str, backbones: Collection[str]) -> dict[str, str]:
    """The directory of the records of each backbone. Of one it is that of the job, of several there is one in it.

    Args:
      job_dir: the directory of the job.
      backbones: the names of their folders.
    """
    return {name: in_folder(job_dir, name) if len(backbones) > 1 else job_dir for name in backbones}


def find_lists(
    recipe: Recipe, *, data_dir: str, job_dir: str, storage: Storage, backbones: Collection[str] = ("",)
) -> list[RecipeList]:
    """The lists of a recipe that exist. Only the test list may be missing.

    Args:
      recipe: the recipe that names them.
      data_dir: the directory of the lists.
      job_dir: the directory for their records, as `folder_of_each`'s.
      storage: of `data_dir`.
      backbones: the names of their folders; of several, outputs have a placeholder.

    Raises:
      InputError: the dictionary, the training list or the evaluation list is missing.
    """
    lists = {"train": recipe.lists.train, "eval": recipe.lists.eval, "test": recipe.lists.test}
    input_dict = in_folder(data_dir, recipe.lists.dict)
    required = {
        "dict": input_dict,
        "train": in_folder(data_dir, recipe.lists.train),
        "eval": in_folder(data_dir, recipe.lists.eval),
    }
    missing = [f"{path} (lists.{field})" for field, path in required.items() if not exists(path, storage)]
    if missing:
        raise InputError(
            f"recipe {recipe.name}: {', '.join(missing)} not found. To make the lists from a folder of class "
            f"folders: {program_command('ingest', '--image_dir', 'PHOTOS', '--output_dir', data_dir)}"
        )
    return [
        RecipeList(
            split=split,
            input_path=in_folder(data_dir, path),
            input_dict=input_dict,
            output_path=in_folder(job_dir, f"{f'{PLACEHOLDER}/' if len(backbones) > 1 else ''}preproc/{split}"),
        )
        for split, path in lists.items()
        if path is not None and (split in required or exists(in_folder(data_dir, path), storage))
    ]


def newest_job_dir(
    recipe: Recipe, splits: Iterable[str], *, data_dir: str, storage: Storage, backbones: Collection[str] = ("",)
) -> tuple[str, bool] | None:
    """The newest job directory of a recipe, and whether it is finished; None if there is none.

    Args:
      recipe: a job directory has the name of its recipe, in a bucket that of the user, and a time; other names with the
        same beginning are ignored.
      splits: the splits that a finished job has.
      data_dir: the directory in which they lie.
      storage: of `data_dir`.
      backbones: as `find_lists`'. Of several, a finished job has all splits of each.
    """
    folders: dict[str, set[str]] = {}
    before_time = _before_time(recipe, data_dir)
    inner = [f"{backbone}/preproc/_" if len(backbones) > 1 else "preproc/_" for backbone in backbones]
    for folder in inner:
        for name in (MANIFEST_NAME, f"{PARTS_PREFIX}*/{DEFINITION_NAME}"):
            for path in storage.match(in_folder(data_dir, f"{before_time}*/{folder}*/{name}")):
                job_dir, _, rest = path.rpartition(f"/{folder}")
                if _time_of(job_dir, before_time) is not None:
                    folders.setdefault(job_dir, set()).add(folder + rest)
    if not folders:
        return None
    newest = max(folders)
    found = folders[newest]
    has_all_sets = all(f"{folder}{split}/{MANIFEST_NAME}" in found for folder in inner for split in splits)
    return newest, has_all_sets and not any(rest.endswith(DEFINITION_NAME) for rest in found)


def new_job_dir(recipe: Recipe, newest: str | None, *, data_dir: str) -> str:
    """The name of a new job directory, with the current time; if the clock was set back, a time after the newest.

    Args:
      recipe: the name of the directory begins with the name of the recipe, in a bucket followed by that of the user:
        colleagues share buckets, and none must go on with the work of another by mistake.
      newest: the newest existing directory; None if there is none.
      data_dir: the directory in which they lie.
    """
    time = datetime.datetime.now()
    before_time = _before_time(recipe, data_dir)
    there = _time_of(newest, before_time) if newest is not None else None
    if there is not None and time <= there + datetime.timedelta(seconds=1):
        time = there + datetime.timedelta(seconds=1)
    return in_folder(data_dir, f"{before_time}{time:{_TIME}}")


def _before_time(recipe: Recipe, data_dir: str) -> str:
    """What the names of a user's job directories have before the time."""
    user = _user_name() if has_scheme(data_dir) else ""
    return f"{recipe.name}_{user}_" if user else f"{recipe.name}_"


def _user_name() -> str:
    """The name of the user on this machine, as a part of a folder's name; empty if the system does not tell it."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # In a container, a user may have only a number.
        return ""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:_MAX_USER]


def _time_of(job_dir: str, before_time: str) -> datetime.datetime | None:
    """The time in the name of a job directory; None if it is not the name of one."""
    text = posixpath.basename(job_dir).removeprefix(before_time)
    try:
        time = datetime.datetime.strptime(text, _TIME)
    except ValueError:
        return None
    # What else can be read as a time, with fewer digits, does not sort by it.
    return time if f"{before_time}{time:{_TIME}}" == posixpath.basename(job_dir) else None


def plan_path(data_dir: str, recipe_name: str) -> str:
    """The default path of a recipe's plan."""
    return in_folder(data_dir, f"{recipe_name}_plan.json")


def in_folder(folder: str, path: str) -> str:
    """A path that may be relative to a folder; `file://` URIs become local paths."""
    path = path_argument(path)
    return path if has_scheme(path) else os.path.join(folder, path)


def exists(path: str, storage: Storage) -> bool:
    """Whether a file is there.

    Raises:
      InputError: storage does not say.
    """
    try:
        return bool(storage.match(path))
    except OSError as error:
        hint = " Check the name of the bucket, and that you may read it." if has_scheme(path) else ""
        raise InputError(f"{path}: cannot be looked for ({error}).{hint}") from error
