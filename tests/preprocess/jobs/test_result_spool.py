import dataclasses
import os

import numpy as np
import pytest

from preprocess.jobs import result_spool
from preprocess.jobs.block_results import CONTENT_DTYPE, BlockResult
from preprocess.jobs.result_spool import SpooledResults, temporary_folder
from tests.support.stand_ins import IDENTITY, INFO, make_job


def results(count):
    numbers = np.random.default_rng(0)
    return [
        BlockResult(
            order=(index // 3, index % 3),
            rows=index,
            sources={"computed": index},
            failed={},
            skipped={},
            label_counts={5: index, 10**30: 1},
            unlabeled=0,
            content=numbers.bytes(index * CONTENT_DTYPE.itemsize),
            shard=None,
            failed_ledger=None,
            skipped_ledger=None,
            backbone=dataclasses.replace(IDENTITY),
            engine=dataclasses.replace(INFO),
            read_sec=0.1 * index,
        )
        for index in range(count)
    ]


@pytest.mark.parametrize("memory_bytes", [1, 10**6])
def test_results_come_back_whole_and_in_order(tmp_path, monkeypatch, memory_bytes):
    monkeypatch.setattr(result_spool, "_MEMORY_BYTES", memory_bytes)
    given = results(8)
    shuffled = [given[index] for index in (4, 0, 7, 2, 6, 1, 5, 3)]
    with SpooledResults(iter(shuffled), folder=str(tmp_path)) as spooled:
        for _ in range(2):
            assert list(spooled.whole()) == given
        assert [content.tobytes() for content in spooled.contents()] == [result.content for result in given]
        assert spooled.label_counts == {5: 28, 10**30: 8}
        # What stays in memory says nothing of single records, and each network is there once.
        assert all(not summary.content and not summary.label_counts for summary in spooled.summaries)
        assert len({id(summary.backbone) for summary in spooled.summaries}) == 1
        assert len({id(summary.engine) for summary in spooled.summaries}) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_fault_while_results_arrive_leaves_nothing(tmp_path):
    def arriving():
        yield from results(3)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        SpooledResults(arriving(), folder=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_temporary_files_lie_beside_the_parts(tmp_path):
    job = make_job(tmp_path)
    assert temporary_folder(job) is None
    os.makedirs(job.parts_dir)
    assert temporary_folder(job) == job.parts_dir
    assert temporary_folder(dataclasses.replace(job, output_prefix="gs://bucket/train")) is None
