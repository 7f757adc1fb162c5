"""How the results of blocks reach the last step of a job: they lie in files, and the runner passes only their names.

A result has 24 bytes for each record. What a runner passes to one step it may keep in memory, on each machine.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from preprocess.jobs.block_results import BlockResult, StoredResult
from preprocess.jobs.job import RESULT_SUFFIX, Job
from preprocess.jobs.set_files import own_path
from preprocess.storage.base import Storage, read_file
from preprocess.storage.in_order import map_in_order

# Object stores take 50 ms or more for each.
_READS_AT_ONCE = 32
_KEPT = f"-kept{RESULT_SUFFIX}"


def read_stored(results: Iterable[StoredResult], job: Job, storage: Storage) -> Iterator[BlockResult]:
    """Reads the results of blocks from their files, in the given order.

    Args:
      results: their names.
      job: the job.
      storage: where the files lie.

    Raises:
      InputError: a file is not the result of a block, or not a file of this set.
      FileNotFoundError: a file is gone.
      OSError: storage failed.
    """

    def read(stored: StoredResult) -> BlockResult:
        path = own_path(job.output_prefix, stored.name, where=job.parts_dir)
        result = BlockResult.from_json(read_file(storage, path), where=path)
        return result.of_earlier_run() if stored.of_earlier_run else result

    return map_in_order(read, results, at_once=_READS_AT_ONCE)


def kept_result_path(job: Job, result: BlockResult) -> str:
    """The path among the parts for the result of a block that a retry keeps from the finished set.

    It follows from the block, so the commit finds it in order to delete it. A later run does not use it.
    """
    list_index, block_index = result.order
    return posixpath.join(job.parts_dir, f"{list_index:05d}-{block_index:07d}{_KEPT}")


def is_kept_result(path: str) -> bool:
    """Whether a path is one of `kept_result_path`."""
    return path.endswith(_KEPT)
