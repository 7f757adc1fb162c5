"""The files of a set of answers: their names, what they are made of, and the file that completes them.

`out/answers` names the answers `out/answers-00000-of-00002.csv` and so on. All else lies in `out/_answers/`: the
records of the photos, and `answers.json`, which is written last. Answers without it are not finished.
"""

from __future__ import annotations

import dataclasses
import enum
import glob
import json
import posixpath
from collections.abc import Sequence
from typing import Any

from configs.choices import AnswerFormat
from configs.errors import InputError
from pipelines.answers.answer_names import BEGUN_NAME, answers_of_file
from preprocess.records.record_set import MANIFEST_NAME, definitions_glob, set_of_shard, sidecar_dir, sidecar_path
from preprocess.storage.base import Storage, has_file, read_file
from trainer.data.record_sets import RecordSet

ANSWERS_NAME = "answers.json"
"""Completes the answers."""
RECORDS_NAME = "photos"
"""The name of the record set of the photos."""
ANSWERS_FORMAT = 1

_PARTS_NAME = "answer_parts"
_HEAD_NAME = "head.npz"


class AnswersClaim(enum.Enum):
    """What is to be done with the output."""

    UNFINISHED = "unfinished"
    DONE = "done"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerFile:
    """A file of answers: its name, and the answers that it holds, by what they are.

    Attributes:
      name: of the file.
      rows: answers in it.
      confident: those whose best score reaches the threshold.
      labelled: those of images that have a label already.
      correct: of those, the ones that the model gives the same label.
      by_label: answers by label.
      num_bytes: of the file.
      sha256: of the file.
    """

    name: str
    rows: int
    confident: int
    labelled: int
    correct: int
    by_label: dict[str, int]
    num_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardRange:
    """The shards whose records become one file of answers.

    Attributes:
      index: of the file.
      shards: pairs (number of the record set, number of its shard), in order.
    """

    index: int
    shards: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerJob:
    """What the program that answers tells its workers.

    Attributes:
      definition: everything that decides the answers, as JSON.
      run_id: a unique id for each run.
      output_prefix: the answers to write.
      kind: their format.
      top_k: classes of each answer.
      names: of the classes.
      threshold: an answer is confident if its best score is at least this.
      several_labels: whether an image may have several labels.
      head_sha256: of the head, which lies in the folder of parts.
      sets: prefixes of the record sets.
      files: what goes into which file.
    """

    definition: dict[str, Any]
    run_id: str
    output_prefix: str
    kind: AnswerFormat
    top_k: int
    names: tuple[str, ...]
    threshold: float
    several_labels: bool
    head_sha256: str
    sets: tuple[str, ...]
    files: tuple[ShardRange, ...]

    @property
    def parts_dir(self) -> str:
        """The folder of files that have not their final name yet."""
        return sidecar_path(self.output_prefix, _PARTS_NAME)

    @property
    def head_path(self) -> str:
        """The file of the head."""
        return posixpath.join(self.parts_dir, _HEAD_NAME)

    def file_name(self, index: int) -> str:
        """The name of a file of answers."""
        name = posixpath.basename(self.output_prefix)
        return f"{name}-{index:05d}-of-{len(self.files):05d}.{self.kind}"


def ranges_of(sets: Sequence[RecordSet], rows_per_file: int) -> tuple[ShardRange, ...]:
    """Puts the shards of record sets in order into files of about as many rows, at least one shard in each."""
    ranges: list[list[tuple[int, int]]] = [[]]
    rows = 0
    for set_index, record_set in enumerate(sets):
        for shard_index, shard in enumerate(record_set.manifest.shards):
            if ranges[-1] and rows + shard.records > rows_per_file:
                ranges.append([])
                rows = 0
            ranges[-1].append((set_index, shard_index))
            rows += shard.records
    return tuple(ShardRange(index=index, shards=tuple(shards)) for index, shards in enumerate(ranges))


def answer_files(prefix: str, storage: Storage) -> list[str]:
    """The files at an output that are named like files of answers. Raises OSError."""
    name = posixpath.basename(prefix)
    found = storage.match(f"{glob.escape(prefix)}-*")
    return [path for path in found if answers_of_file(posixpath.basename(path)) == name]


def begun_path(prefix: str) -> str:
    """The file that says which answers were begun at an output."""
    return sidecar_path(prefix, BEGUN_NAME)


def answers_path(prefix: str) -> str:
    """The file that completes the answers."""
    return sidecar_path(prefix, ANSWERS_NAME)


def require_own(prefix: str, storage: Storage, *, overwrite: bool) -> None:
    """Makes sure that nothing lies at the output but what this program has written.

    Args:
      prefix: of the answers.
      storage: of the output.
      overwrite: whether files that are named like answers may be replaced.

    Raises:
      InputError: a record set lies there, finished or not, or other files; or storage cannot be read.
    """
    try:
        if has_file(storage, sidecar_path(prefix, MANIFEST_NAME)) or storage.match(definitions_glob(prefix)):
            raise InputError(f"output_path: a set of records lies at {prefix!r}. Choose another output_path.")
        if any(set_of_shard(path) == prefix for path in storage.match(f"{glob.escape(prefix)}-*")):
            raise InputError(f"output_path: shards of records lie at {prefix!r}. Choose another output_path.")
        if not overwrite and (files := answer_files(prefix, storage)) and not has_file(storage, begun_path(prefix)):
            raise InputError(
                f"output_path: files lie at {prefix!r} that this program did not write, such as {files[0]}. Pass "
                "--overwrite to replace them, or choose another output_path."
            )
    except OSError as error:
        raise InputError(f"output_path: cannot look at {prefix!r} ({error}).") from error


def claim_answers(prefix: str, definition: dict[str, Any], storage: Storage, *, overwrite: bool) -> AnswersClaim:
    """Decides what to do with what lies at the output.

    Args:
      prefix: of the answers.
      definition: of the answers that are wanted.
      storage: of the output.
      overwrite: whether other answers may be replaced.

    Raises:
      InputError: other answers lie there, or storage cannot be read.
    """
    try:
        finished = read_json(answers_path(prefix), storage)
        if overwrite or not finished:
            # What is embedded of other photos, `pipelines.embed` protects itself.
            return AnswersClaim.UNFINISHED
        theirs = finished.get("definition")
        theirs = theirs if isinstance(theirs, dict) else {}
        if different := sorted(name for name in {*theirs, *definition} if theirs.get(name) != definition.get(name)):
            raise InputError(
                f"output_path: answers lie at {prefix!r} that were made with other {', '.join(different)}. Pass "
                "--overwrite to replace them, or choose another output_path."
            )
        sizes = storage.sizes(f"{glob.escape(prefix)}-*")
        folder = posixpath.dirname(prefix)
        whole = all(sizes.get(posixpath.join(folder, file["name"])) == file["num_bytes"] for file in finished["files"])
        return AnswersClaim.DONE if whole else AnswersClaim.UNFINISHED
    except OSError as error:
        raise InputError(f"output_path: cannot look at {prefix!r} ({error}).") from error


def read_json(path: str, storage: Storage) -> dict[str, Any]:
    """A JSON object of a file; empty if there is none, or it is damaged. Raises OSError."""
    try:
        data = json.loads(read_file(storage, path))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def sidecars(prefix: str) -> str:
    """The folder of everything but the answers."""
    return sidecar_dir(prefix)
