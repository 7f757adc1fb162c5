"""The files of a set by their names, and reading the results of its blocks from them."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator

from configs.errors import InputError
from preprocess.jobs.block_results import BlockResult
from preprocess.jobs.job import JOURNAL_NAME
from preprocess.records.record_set import set_of_shard, sidecar_path
from preprocess.storage.base import Storage

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


def name_of_part(path: str) -> str:
    """The name of a part, relative to the set's folder: its last two folders and its file name."""
    return "/".join(path.split("/")[-3:])


def read_block_results(prefix: str, storage: Storage) -> Iterator[BlockResult]:
    """The results of the blocks of a finished set, in order, with the shards of the set. One is in memory at a time.

    Raises:
      InputError: the set has no such file, it is damaged, or it names files that do not belong to the set.
    """
    return read_results_file(sidecar_path(prefix, JOURNAL_NAME), prefix, storage)


def read_results_file(path: str, prefix: str, storage: Storage) -> Iterator[BlockResult]:
    """Reads the results in a file of lines that `BlockResult.to_json_line` wrote, one after the other.

    Args:
      path: of the file.
      prefix: of the set whose blocks they are.
      storage: where the file lies.

    Raises:
      InputError: there is no such file, it is damaged, or it names files that do not belong to the set.
    """
    for _, _, result in places_of_results(path, prefix, storage):
        yield result


def places_of_results(path: str, prefix: str, storage: Storage) -> Iterator[tuple[int, int, BlockResult]]:
    """The results in a file as `read_results_file` gives them, each with the offset and the bytes of its line."""
    try:
        stream = storage.open(path)
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: there is no such file. The set was made by another version, or is not finished: embed it again."
        ) from error
    with stream:
        offset = 0
        for number, line in enumerate(stream, start=1):
            result = BlockResult.from_json(line, where=f"{path}:{number}")
            for part in result.parts:
                own_path(prefix, part.name, where=f"{path}:{number}")
            yield offset, len(line), result
            offset += len(line)


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
