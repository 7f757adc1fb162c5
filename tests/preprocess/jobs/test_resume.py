"""What a run that was stopped leaves, and what the next one makes of it."""

import dataclasses
import io
import json
import pathlib
import pickle
import posixpath

import numpy as np
import pytest

from configs.errors import InputError
from preprocess.images.loader import ImageLoader
from preprocess.jobs.block_embedder import BlockEmbedder
from preprocess.jobs.block_results import BlockResult, StoredResult, stored_name
from preprocess.jobs.block_writer import BlockWriter
from preprocess.jobs.commit import finish_record_set
from preprocess.jobs.finished_blocks import DeadLetters
from preprocess.jobs.job import Retry
from preprocess.jobs.journal import tidy
from preprocess.jobs.resume import ResumeIndex
from preprocess.jobs.stored_results import read_stored
from preprocess.lists.blocks import into_blocks
from preprocess.lists.labels import LabelDict
from preprocess.lists.outcomes import RowFailure
from preprocess.lists.rows import parse_rows
from preprocess.records.record_set import sidecar_path
from preprocess.storage.base import LocalStorage
from tests.support.stand_ins import IDENTITY, INFO, StandInEngine, decode_stand_in, make_job, read_stand_in

LABELS = LabelDict(("a", "b"))
TEXT = "".join(f"{i}.jpg,a\n" if i % 7 else f"missing{i}.jpg,b\n" for i in range(1, 41))


class Engine(StandInEngine):
    """An image's embedding says nothing of its batch; an engine with a limit dies after so many images."""

    limit = 10**6

    def embed(self, pixels):
        if sum(self.batches) >= self.limit:
            raise RuntimeError("the power fails")
        embeddings = super().embed(pixels)
        embeddings[:, 2] = 7
        return embeddings


@pytest.fixture
def job(tmp_path):
    return make_job(tmp_path, labels=LABELS.names, input_paths=("d/list.csv",), rows_expected=40)


def blocks(text=TEXT, rows_per_block=12):
    rows = parse_rows(io.BytesIO(text.encode()), list_path="d/list.csv", labels=LABELS, unknown_labels="skip")
    return list(into_blocks(rows, list_index=0, list_path="d/list.csv", rows_per_block=rows_per_block))


def embed(job, engine, *, read=read_stand_in, text=TEXT):
    """One run over all blocks, as the stage of the pipeline does it; gives what it read, too."""
    storage, locations = LocalStorage(), []

    def note_and_read(location):
        locations.append(location)
        return read(location)

    resume_index = ResumeIndex(storage, job, engine)
    embedder = BlockEmbedder(
        loader=ImageLoader(read=note_and_read, decode=decode_stand_in, max_ahead=4),
        engine=engine,
        open_writer=lambda block: BlockWriter(
            block, storage=storage, parts_dir=job.parts_dir, compression=job.compression, engine=engine
        ),
        batch_size=3,
        on_rows_done=lambda rows: None,
    )
    results = []
    for block in blocks(text):
        earlier = resume_index.find(block)
        if earlier.result is not None:
            results.append(earlier.result)
            continue
        embedder.submit(block, earlier)
        while embedder.submitted > 1:
            results.append(embedder.complete_next())
    while embedder.submitted:
        results.append(embedder.complete_next())
    return results, locations


def finish(job, results):
    report = finish_record_set(results, job=job, storage=LocalStorage())
    tidy(job, LocalStorage())
    folder = pathlib.Path(job.output_prefix).parent
    files = {
        path.name: path.read_bytes() for path in folder.rglob("*") if path.name != "report.json" and path.is_file()
    }
    return report, {name: data for name, data in files.items() if name != "blocks.jsonl"}


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("limit", [0, 1, 3, 10, 17, 30])
def test_a_job_that_was_stopped_goes_on_and_gives_the_same_set(tmp_path, job, compression, limit):
    job = dataclasses.replace(job, compression=compression)
    elsewhere = dataclasses.replace(job, output_prefix=str(tmp_path / "whole" / "train"))
    engine = Engine()
    _, undisturbed = finish(elsewhere, embed(elsewhere, engine)[0])
    computed = sum(engine.batches)

    dying = Engine()
    dying.limit = limit
    if limit < computed:
        with pytest.raises(RuntimeError, match="the power fails"):
            embed(job, dying)
    surviving = Engine()
    results, locations = embed(job, surviving)
    report, files = finish(job, results)
    assert files == undisturbed
    assert report["embedded_by"].get("earlier_run", 0) + sum(surviving.batches) == report["embedded"] == computed
    # What a dead run had written is not read again; what it was embedding may be.
    assert len(locations) <= 40 - report["embedded_by"].get("earlier_run", 0)
    if limit > 3:
        assert report["embedded_by"]["earlier_run"] >= limit - 3


def test_a_shard_that_ends_anywhere_gives_the_records_before(job):
    dying = Engine()
    dying.limit = 9
    with pytest.raises(RuntimeError):
        embed(job, dying)
    (partial,) = pathlib.Path(job.parts_dir).glob("00000-0000000-*.partial")
    data = partial.read_bytes()
    known = []
    for size in range(0, len(data) + 1, 7):
        partial.write_bytes(data[:size])
        known.append(len(ResumeIndex(LocalStorage(), job, Engine()).find(blocks()[0]).records))
    assert known == sorted(known)
    assert known[0] == 0
    partial.write_bytes(data[: len(data) // 2] + b"\xff" + data[len(data) // 2 + 1 :])
    assert 0 < len(ResumeIndex(LocalStorage(), job, Engine()).find(blocks()[0]).records) < known[-1]


def test_what_another_engine_embedded_is_not_mixed_in(job):
    dying = Engine()
    dying.limit = 20
    with pytest.raises(RuntimeError):
        embed(job, dying)
    other = Engine(identity=dataclasses.replace(IDENTITY, weights_digest="sha256:1"))
    work = ResumeIndex(LocalStorage(), job, other)
    assert all(work.find(block).result is None and not work.find(block).records for block in blocks())
    for change in ({"precision": "int8"}, {"libraries": ("pillow 2",)}):
        work = ResumeIndex(LocalStorage(), job, Engine(info=dataclasses.replace(INFO, **change)))
        assert all(work.find(block).result is None and not work.find(block).records for block in blocks())


def test_a_result_without_its_shard_does_not_count(job):
    embed(job, Engine())
    next(pathlib.Path(job.parts_dir).glob("00000-0000001-*.tfrecord")).unlink()
    work = ResumeIndex(LocalStorage(), job, Engine())
    assert [work.find(block).result is not None for block in blocks()] == [True, False, True, True]


def test_failures_of_a_finished_set_are_tried_again_and_the_rest_is_kept(tmp_path, job):
    report, _ = finish(job, embed(job, Engine())[0])
    assert report["failed"] == {"not_found": 5}

    def read(location):
        if "missing7" in location:
            raise RowFailure("read", "no_permission", "still not")
        return read_stand_in(location.replace("missing", ""))

    again = dataclasses.replace(job, run_id="r2", retry=Retry(of_finished_set=True))
    engine = Engine()
    results, locations = embed(again, engine, read=read)
    report, _ = finish(again, results)
    assert sorted(locations) == sorted(f"d/missing{n}.jpg" for n in (7, 14, 21, 28, 35))
    assert (report["embedded"], report["failed"]) == (39, {"no_permission": 1})
    assert report["embedded_by"] == {"earlier_run": 35, "computed": 4}

    # By reason: what failed for another one keeps its place among the dead letters.
    by_reason = dataclasses.replace(
        job, run_id="r3", retry=Retry(of_finished_set=True, reasons=frozenset({"not_found"}))
    )
    results, locations = embed(by_reason, Engine())
    assert locations == []
    _, files = finish(by_reason, results)
    assert b"still not" in files["failed.jsonl"]

    # In the end, the set is the one that a run without failures makes.
    all_well = dataclasses.replace(job, run_id="r4", retry=Retry(of_finished_set=True))

    def read_all(location):
        return read_stand_in(location.replace("missing", ""))

    _, files = finish(all_well, embed(all_well, Engine(), read=read_all)[0])
    elsewhere = dataclasses.replace(job, output_prefix=str(tmp_path / "whole" / "train"))
    assert files == finish(elsewhere, embed(elsewhere, Engine(), read=read_all)[0])[1]


def test_the_results_of_all_blocks_lie_in_files_that_a_runner_passes_by_name(job):
    finish(job, embed(job, Engine())[0])
    again = dataclasses.replace(job, run_id="r2", retry=Retry(of_finished_set=True))

    def read_some(location):
        return read_stand_in(location.replace("missing7", "7"))

    # Three kinds: blocks of this run, blocks of the finished set, and in the second run blocks of an earlier run.
    for kinds in ({"computed", "earlier_run"}, {"earlier_run"}):
        results, _ = embed(again, Engine(), read=read_some)
        assert {kind for result in results for kind in result.sources} == kinds
        names = [pickle.loads(pickle.dumps(stored_name(result))) for result in results]
        assert sum(len(pickle.dumps(name)) for name in names) < 200 * len(results)
        read = list(read_stored(iter(names), again, LocalStorage()))
        assert [result.to_json_line() for result in read] == [result.to_json_line() for result in results]
        read_some = read_stand_in
    finish_record_set(read_stored(names, again, LocalStorage()), job=again, storage=LocalStorage())
    # (What is left is of the first of the two retries.)
    assert not list(pathlib.Path(job.parts_dir).glob("*-kept.result.json"))


def test_a_file_that_is_no_result_or_not_of_the_set_is_refused(job):
    results, _ = embed(job, Engine())
    name = stored_name(results[0])
    pathlib.Path(job.parts_dir, posixpath.basename(name.name)).write_text("{}")
    with pytest.raises(InputError, match="not the result of a block"):
        list(read_stored([name], job, LocalStorage()))
    for path in ("../elsewhere.result.json", "_other/parts-00/x.result.json"):
        with pytest.raises(InputError, match="is no file of this set"):
            list(read_stored([StoredResult(path)], job, LocalStorage()))


def test_overwriting_uses_nothing_of_the_finished_set(job):
    finish(job, embed(job, Engine())[0])
    embed(dataclasses.replace(job, run_id="r2", retry=Retry(of_finished_set=True)), Engine())
    # The retry was stopped; now the set is to be embedded anew.
    results, locations = embed(dataclasses.replace(job, run_id="r3"), Engine())
    # The other blocks had failures, so the retry had written them anew.
    assert locations == [f"d/{number}.jpg" for number in (37, 38, 39, 40)]
    assert all("parts-" in result.shard.name for result in results)


def test_a_dead_letter_that_cannot_be_read_is_tried_again(job):
    finish(job, embed(job, Engine())[0])
    path = pathlib.Path(sidecar_path(job.output_prefix, "failed.jsonl"))
    lines = path.read_text().splitlines()
    edited = [
        lines[0],
        "no JSON",
        json.dumps({**json.loads(lines[1]), "line": [1]}),
        json.dumps({**json.loads(lines[2]), "line": 2**70}),
        json.dumps({**json.loads(lines[3]), "message": "the first"}),
        json.dumps({**json.loads(lines[3]), "message": "the last"}),
    ]
    path.write_text("\n".join(edited) + "\n")
    dead_letters = DeadLetters(job.output_prefix, LocalStorage())
    found = {line: failure for block in blocks() for line, failure in dead_letters.failures_of(block).items()}
    assert [(line, failure.message) for line, failure in found.items()] == [
        (7, "No such file: d/missing7.jpg"),
        (28, "the last"),
    ]
    path.unlink()
    assert DeadLetters(job.output_prefix, LocalStorage()).failures_of(blocks()[0]) == {}


def test_a_result_that_is_nested_without_end_is_one_line():
    with pytest.raises(InputError, match="^here: not the result of a block"):
        BlockResult.from_json(b"[" * 200_000, where="here")


def test_results_survive_their_own_file(job):
    for result in embed(job, Engine())[0]:
        again = BlockResult.from_json(result.to_json_line(), where="here")
        assert again == dataclasses.replace(
            result, **{name: getattr(again, name) for name in ("label_counts", "sources", "failed", "skipped")}
        )
        assert dict(again.label_counts) == dict(result.label_counts)
        assert np.array_equal(np.frombuffer(again.content, "V24"), np.frombuffer(result.content, "V24"))


@pytest.mark.parametrize(
    "damage",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        {"rows": 13},
        {"rows": "12"},
        {"rows": 12.0},
        {"sources": {"computed": "x"}},
        {"sources": {"computed": 10**9}},
        {"failed": [1, 2]},
        {"failed": {"not_found": -1}},
        {"skipped": None},
        {"label_counts": {"0": -3}},
        {"unlabeled": [1]},
        {"content": "AAAA"},
        {"read_sec": "long"},
        {"read_sec": float("nan")},
        {"decode_sec": None},
        {"shard": None},
        {"engine": {**dataclasses.asdict(INFO), "device": []}},
        {"engine": None},
        {"backbone": []},
    ],
)
def test_a_damaged_result_is_none_and_its_block_is_embedded_again(job, damage):
    embed(job, Engine())
    path = sorted(pathlib.Path(job.parts_dir).glob("00000-0000001-*.result.json"))[0]
    whole = path.read_bytes()
    path.write_text(damage if isinstance(damage, str) else json.dumps({**json.loads(whole), **damage}))
    result = ResumeIndex(LocalStorage(), job, Engine()).find(blocks()[1]).result
    assert result is None
    path.write_bytes(whole)
    assert ResumeIndex(LocalStorage(), job, Engine()).find(blocks()[1]).result is not None
