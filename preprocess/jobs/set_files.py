"""The files of a set by their names, and reading the results of its blocks from them."""

from __future__ import annotations

import hashlib
import posixpath
import re

import numpy as np

from configs.errors import InputError
from preprocess.jobs.block_results import BlockResult, join_content
from preprocess.jobs.job import JOURNAL_NAME
from preprocess.records.record_set import set_of_shard, sidecar_path
from preprocess.storage.base import Storage, read_file

_PART_NAME = re.compile(r"_(?P<set>[^/]+)/parts-[0-9a-f]+/[^/\0]+")
_READ_BYTES = 1 << 20


def own_path(prefix: str, name: str, *, where: str) -> str:
    """The path of a file that a block wrote, from its name in a result.

    Somebody may have edited or copied the file that the name comes from. So only names of the set's own shards and
    parts are accepted; these lie below the set's own folder.

    Args:
      prefix: of the set.
      name: relative to the set's folder.
      where: the file that the name comes from, for the message.

    Raises:
      InputError: it is the name of another file.
    """
    set_name = posixpath.basename(prefix)
    is_shard = "/" not in name and "\0" not in name and set_of_shard(name) == set_name
    part = _PART_NAME.fullmatch(name)
    is_part = part is not None and part["set"] == set_name and posixpath.basename(name) not in (".", "..")
    if not is_shard and not is_part:
        raise InputError(
            f"{where}: {name!r} is no file of this set: shards and parts of {prefix} are wanted. The file was edited, "
            "or another version wrote it."
        )
    return in_folder_of(prefix, name)


def read_block_results(prefix: str, storage: Storage) -> list[BlockResult]:
    """The results of the blocks of a finished set, in order, with the shards of the set.

    Raises:
      InputError: the set has no such file, it is damaged, or it names files that do not belong to the set.
    """
    return read_results_file(sidecar_path(prefix, JOURNAL_NAME), prefix, storage)


def read_results_file(path: str, prefix: str, storage: Storage) -> list[BlockResult]:
    """Reads the results in a file of lines that `BlockResult.to_json_line` wrote.

    Args:
      path: of the file.
      prefix: of the set whose blocks they are.
      storage: where the file lies.

    Raises:
      InputError: there is no such file, it is damaged, or it names files that do not belong to the set.
    """
    try:
        lines = read_file(storage, path).splitlines()
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: there is no such file. The set was made by another version, or is not finished: embed it again."
        ) from error
    results = []
    for number, line in enumerate(lines, start=1):
        result = BlockResult.from_json(line, where=f"{path}:{number}")
        for part in result.parts:
            own_path(prefix, part.name, where=f"{path}:{number}")
        results.append(result)
    return results


def read_content(prefix: str, storage: Storage) -> np.ndarray:
    """The digests of the records of a finished set, in order: `CONTENT_DTYPE`, shape [records].

    Raises:
      InputError: the set has no such file, or it is damaged.
    """
    return join_content(read_block_results(prefix, storage))


def in_folder_of(prefix: str, name: str) -> str:
    """The path of a file of a set, for example of a shard by its name."""
    return posixpath.join(posixpath.dirname(prefix), name)


def digest_of(path: str, storage: Storage) -> tuple[int, str]:
    """(bytes, SHA-256 in hex) of a file, read in pieces. Raises OSError; FileNotFoundError if there is no such file."""
    digest, num_bytes = hashlib.sha256(), 0
    with storage.open(path) as stream:
        while piece := stream.read(_READ_BYTES):
            digest.update(piece)
            num_bytes += len(piece)
    return num_bytes, digest.hexdigest()
