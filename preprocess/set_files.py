"""The sidecar files of a set that say what became of its blocks, for those who go on from a finished set."""

from __future__ import annotations

import posixpath

import numpy as np

from configs.errors import InputError
from preprocess.block_results import BlockResult, join_content
from preprocess.job import PLAN_NAME
from preprocess.record_set import sidecar_path
from preprocess.storage import Storage, read_file


def read_block_results(prefix: str, storage: Storage) -> list[BlockResult]:
    """The results of the blocks of a finished set, in order; their shards are those of the set.

    Raises:
      InputError: the set has no such file, or it is damaged.
    """
    return read_results_file(sidecar_path(prefix, PLAN_NAME), storage)


def read_results_file(path: str, storage: Storage) -> list[BlockResult]:
    """The results in a file of lines as `BlockResult.to_json_line` makes them.

    Raises:
      InputError: there is no such file, or it is damaged.
    """
    try:
        lines = read_file(storage, path).splitlines()
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: there is no such file. The set was made by another version, or is not finished: embed it again."
        ) from error
    return [BlockResult.from_json(line, where=f"{path}:{number}") for number, line in enumerate(lines, start=1)]


def read_content(prefix: str, storage: Storage) -> np.ndarray:
    """What is remembered of the records of a finished set, in order: `CONTENT_DTYPE`, shape [records].

    Raises:
      InputError: the set has no such file, or it is damaged.
    """
    return join_content(read_block_results(prefix, storage))


def in_folder_of(prefix: str, name: str) -> str:
    """The path of a file of a set, for example of a shard by its name."""
    return posixpath.join(posixpath.dirname(prefix), name)
