"""What a power cut leaves of a job that finishes its set over an older one."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib

import numpy as np
import pytest

from preprocess.jobs.block_writer import BlockWriter
from preprocess.jobs.commit import finish_record_set
from preprocess.jobs.finished_set import find_damage
from preprocess.jobs.journal import commit_journal
from preprocess.lists.blocks import RowBlock
from preprocess.lists.rows import Row
from preprocess.storage import durable
from preprocess.storage.base import LocalStorage, write_file
from tests.support.power_cut import forgetful, lay_out
from tests.support.stand_ins import StandInEngine, make_job


def embed(job, seed: int):
    """The results of two blocks of five rows, written as workers write them."""
    results = []
    for index in range(2):
        rows = tuple(Row(f"{index}-{row}.jpg", (), (), row + 1) for row in range(5))
        block = RowBlock(list_index=0, block_index=index, list_path="train.csv", rows=rows)
        writer = BlockWriter(
            block, storage=LocalStorage(), parts_dir=job.parts_dir, compression="none", engine=StandInEngine()
        )
        for number, row in enumerate(rows):
            embedding = np.full(3, seed + index + number, np.float32)
            writer.write_record(row, embedding, image_sha256=bytes([index, number] * 16), source="computed")
        results.append(writer.finish())
    return results


def digest(path: str) -> str | None:
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest() if os.path.isfile(path) else None


def test_a_power_cut_at_each_step_leaves_a_whole_set_or_a_journal_of_one(tmp_path, monkeypatch):
    root = tmp_path / "disk"
    root.mkdir()
    job = make_job(root)
    finish_record_set(embed(job, 1), job=job, storage=LocalStorage())
    older = digest(f"{root}/out/_train/manifest.json")
    newer_job = dataclasses.replace(job, definition={"seed": 1}, run_id="r2")
    with forgetful(root, monkeypatch) as disk:
        finish_record_set(embed(newer_job, 100), job=newer_job, storage=LocalStorage())
    seen = []
    for number, state in enumerate(disk.cuts):
        cut = lay_out(state, tmp_path / "cuts" / str(number))
        manifest = cut / "out/_train/manifest.json"
        if manifest.exists():
            seen.append("older" if digest(manifest) == older else "newer")
        else:
            # What lies there is enough to go on from.
            commit_journal(dataclasses.replace(newer_job, output_prefix=f"{cut}/out/train"), LocalStorage())
            seen.append("journal")
        assert find_damage(f"{cut}/out/train", LocalStorage(), digests=True) == []
    assert seen == sorted(seen, key=["older", "journal", "newer"].index)
    assert set(seen) == {"older", "journal", "newer"}


def test_a_block_of_rows_waits_for_its_files_only(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or fsync(fd))
    embed(make_job(tmp_path), 1)
    assert len(synced) == 4  # Two blocks, each of them a shard and a result.
    assert all(os.path.basename(path).endswith(".partial") for path in synced)
    write_file(LocalStorage(), f"{tmp_path}/x", b"x")
    assert f"{tmp_path}/out/_train" in {os.path.dirname(path) for path in synced[4:]}


def test_moves_share_a_sync_and_deletions_wait_for_it(tmp_path, monkeypatch):
    storage = LocalStorage()
    for name in "abc":
        write_file(storage, f"{tmp_path}/from/{name}", b"x")
    steps = []
    monkeypatch.setattr(durable, "sync_folder", lambda path: steps.append(os.path.basename(path)))
    for name in "abc":
        storage.move(f"{tmp_path}/from/{name}", f"{tmp_path}/to/{name}")
    assert steps == []
    storage.delete_file(f"{tmp_path}/from/d")
    assert steps == [tmp_path.name, "from", "to"]


@pytest.mark.parametrize("number", [22, 13])
def test_a_filesystem_that_cannot_sync_folders_is_no_fault(tmp_path, monkeypatch, number):
    def refuse(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, "no")

    monkeypatch.setattr(os, "fsync", refuse)
    write_file(LocalStorage(), f"{tmp_path}/a/b", b"x")
    assert (tmp_path / "a/b").read_bytes() == b"x"


def test_a_disk_that_fails_is_a_fault(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        durable.sync_folder(str(tmp_path))
