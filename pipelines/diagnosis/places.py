"""Finds lists, sets and trainings in a folder and below it, within a limit of time."""

from __future__ import annotations

import collections
import dataclasses
import os
import posixpath
import time

from configs.list_names import SPLITS
from configs.written_tables import writer_of
from pipelines.diagnosis.list_rows import header_of
from pipelines.diagnosis.look import Look
from preprocess.answers.answer_files import BEGUN_NAME, answers_of_file
from preprocess.machine.run_note import NOTE_NAME
from preprocess.records.record_set import MANIFEST_NAME, PARTS_PREFIX, REPORT_NAME, set_of_shard
from preprocess.storage.uris import has_scheme

METRICS_NAME = "metrics.json"
PREDICTIONS_NAME = "predictions.csv"
SHARED_TABLE_NAME = "shared_images.csv"

_LIST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
_NO_LISTS = (PREDICTIONS_NAME, SHARED_TABLE_NAME)
# Folders that hold many files and none of these places.
_NOT_ENTERED = ("checkpoints", "logs", "model", "model.partial", "model.previous", "node_modules", "__pycache__")
SEARCH_SEC = 0.8
_MAX_DEPTH = 7
# The folders of a job in a bucket, where a search of everything would list every photo.
_IN_BUCKETS = ("", "preproc/", "hugs_*/", "hugs_*/preproc/", "training/", "hugs_*/training/")
# Of several backbones each has a folder in that of the job.
_OF_BACKBONES = ("*/preproc/", "*/training/")
_JOB = "hugs_"


@dataclasses.dataclass
class Places:
    """What lies in a folder and below it.

    Attributes:
      lists: the lists, without the tables.
      tables: tables that programs of the project wrote, each with what wrote it.
      sets: prefixes of sets.
      trainings: output folders of trainings.
      answers: prefixes of answers of `hugs predict_all`.
      whole: whether everything was looked at.
    """

    lists: list[str] = dataclasses.field(default_factory=list)
    tables: dict[str, str] = dataclasses.field(default_factory=dict)
    sets: list[str] = dataclasses.field(default_factory=list)
    trainings: list[str] = dataclasses.field(default_factory=list)
    answers: list[str] = dataclasses.field(default_factory=list)
    whole: bool = True


def find_places(folder: str, look: Look) -> Places:
    """Finds what lies in a folder and below it. Folders at the top are looked at first.

    Raises:
      OSError: a bucket cannot be read. Folders of this machine that cannot be read are left out.
    """
    places = _in_bucket(folder, look) if has_scheme(folder) else _on_disk(folder)
    if not has_scheme(folder):
        places.tables = {path: wrote for path in places.lists if (wrote := writer_of(header_of(path)))}
        places.lists = [path for path in places.lists if path not in places.tables]
    for found in (places.lists, places.sets, places.trainings, places.answers):
        found.sort(key=_order)
    return places


def _order(path: str) -> tuple[str, int]:
    """Sorts train before eval before test."""
    folder, name = posixpath.split(path)
    stem = name.partition(".")[0]
    return folder, SPLITS.index(stem) if stem in SPLITS else len(SPLITS)


def _on_disk(top: str) -> Places:
    places = Places()
    until = time.monotonic() + SEARCH_SEC
    waiting = collections.deque([(top, 0)])
    while waiting:
        folder, depth = waiting.popleft()
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(folder or ".") as entries:
                for entry in entries:
                    (folders if entry.is_dir(follow_symlinks=depth < 2) else files).append(entry.name)
                    if time.monotonic() > until:
                        places.whole = False
                        break
        except OSError:
            continue
        _sort_in(places, folder, folders, files)
        if depth < _MAX_DEPTH and places.whole:
            inner = [name for name in sorted(folders) if not name.startswith((".", "_")) and name not in _NOT_ENTERED]
            waiting.extend((os.path.join(folder, name), depth + 1) for name in inner)
    return places


def _sort_in(places: Places, folder: str, folders: list[str], files: list[str]) -> None:
    beside = [name for name in folders if name.startswith("_")]
    answers = {name[1:] for name in beside if os.path.exists(os.path.join(folder, name, BEGUN_NAME))}
    places.answers.extend(os.path.join(folder, name) for name in answers)
    found = {os.path.join(folder, name[1:]) for name in beside if name[1:] not in answers and _is_sidecar(folder, name)}
    found |= {prefix for name in files if (prefix := set_of_shard(os.path.join(folder, name)))}
    places.sets.extend(found)
    lists = (name for name in files if is_list_name(name) and answers_of_file(name) not in answers)
    places.lists.extend(os.path.join(folder, name) for name in lists)
    if is_training(folders, files):
        places.trainings.append(folder)


def _is_sidecar(folder: str, name: str) -> bool:
    try:
        with os.scandir(os.path.join(folder, name)) as entries:
            return any(
                entry.name in (MANIFEST_NAME, REPORT_NAME, ".lock") or entry.name.startswith(PARTS_PREFIX)
                for entry in entries
            )
    except OSError:
        return False


def is_list_name(name: str) -> bool:
    """Whether a file has the name of a list of images."""
    return name.endswith(_LIST_SUFFIXES) and name not in _NO_LISTS and not name.startswith(".")


def is_training(folders: list[str], files: list[str]) -> bool:
    """Whether a folder with these names in it is the output folder of a training."""
    return METRICS_NAME in files or "checkpoints" in folders or NOTE_NAME in files


def _in_bucket(top: str, look: Look) -> Places:
    places = Places()
    top = top.rstrip("/")
    sets: set[str] = set()
    trainings: set[str] = set()
    answers: set[str] = set()
    for split in SPLITS:
        places.lists.extend(look.storage.match(f"{top}/{split}.csv"))
    is_job = posixpath.basename(top).startswith(_JOB)
    for inner in (*_IN_BUCKETS, *(inner if is_job else f"{_JOB}*/{inner}" for inner in _OF_BACKBONES)):
        if "training" in inner:
            for name in (METRICS_NAME, NOTE_NAME, "checkpoints/last/checkpoint"):
                trainings.update(path.removesuffix(f"/{name}") for path in look.storage.match(f"{top}/{inner}{name}"))
            continue
        depth = f"{top}/{inner}".count("/")
        for path in look.storage.match(f"{top}/{inner}_*/**"):
            parts = path.split("/")
            sets.add("/".join((*parts[:depth], parts[depth][1:])))
            if parts[depth + 1 :] == [BEGUN_NAME]:
                answers.add("/".join((*parts[:depth], parts[depth][1:])))
    places.sets.extend(sets - answers)
    places.answers.extend(answers)
    places.trainings.extend(trainings)
    return places
