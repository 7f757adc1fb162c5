"""The memory of the last step: it grows with the blocks, and not with their rows."""

import os
import tracemalloc

import numpy as np

from preprocess.jobs import duplicates_report, result_spool
from preprocess.jobs.block_results import CONTENT_DTYPE, BlockResult, PartFile
from preprocess.jobs.commit import finish_record_set
from preprocess.records import digest_table
from preprocess.storage.base import LocalStorage
from tests.support.stand_ins import IDENTITY, INFO, make_job

BLOCKS = 40
LABELS = 500


def peak_bytes(folder, rows_per_block):
    """The peak of the Python memory of the last step of a job of `BLOCKS` blocks."""
    rows = BLOCKS * rows_per_block
    job = make_job(folder, rows_expected=rows, labels=tuple(map(str, range(LABELS))))
    os.makedirs(job.parts_dir)
    numbers = np.random.default_rng(0)

    def results():
        for index in range(BLOCKS):
            name = f"_train/{os.path.basename(job.parts_dir)}/{index}.tfrecord"
            with open(f"{job.parts_dir}/{index}.tfrecord", "wb"):
                pass
            ids, counts = np.unique(numbers.integers(0, LABELS, rows_per_block), return_counts=True)
            yield BlockResult(
                order=(0, index),
                rows=rows_per_block,
                sources={"computed": rows_per_block},
                failed={},
                skipped={},
                label_counts=dict(zip(ids.tolist(), counts.tolist(), strict=True)),
                unlabeled=0,
                content=numbers.bytes(rows_per_block * CONTENT_DTYPE.itemsize),
                shard=PartFile(name, rows_per_block, 0, ""),
                failed_ledger=None,
                skipped_ledger=None,
                backbone=IDENTITY,
                engine=INFO,
            )

    tracemalloc.start()
    try:
        assert finish_record_set(results(), job=job, storage=LocalStorage())["embedded"] == rows
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_forty_times_the_rows_take_little_more_memory(tmp_path, monkeypatch):
    for module, name in ((result_spool, "_MEMORY_BYTES"), (duplicates_report, "_MEMORY_BYTES")):
        monkeypatch.setattr(module, name, 1)
    monkeypatch.setattr(digest_table, "_PART_MEMORY_BYTES", 1)
    monkeypatch.setattr(digest_table, "_ADDED_AT_ONCE", 1000)
    few, many = (peak_bytes(tmp_path / str(rows), rows) for rows in (100, 4000))
    digests = BLOCKS * 4000 * CONTENT_DTYPE.itemsize
    assert many - few < digests / 2
