"""Commands of `pipelines.embed` on a set in memory: everything but Beam and images is the real code.

The list has three blocks: one of two images, one of an image that is missing until somebody brings it, and one of two
images that are the same. So a retry changes the number of shards, and with it the name of each.
"""

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import io
import itertools
import json
import re

import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions

from configs.errors import InputError
from pipelines.embedding import local_run, prepared_job
from pipelines.embedding.prepared_job import PreparedJob
from preprocess.beam.transforms import EmbedOptions
from preprocess.jobs.block_writer import BlockWriter
from preprocess.jobs.commit import finish_record_set
from preprocess.jobs.job import Job, Retry
from preprocess.jobs.report import COMPLETE
from preprocess.jobs.resume import ResumeIndex
from preprocess.lists.blocks import into_blocks
from preprocess.lists.labels import LabelDict
from preprocess.lists.outcomes import RowFailure
from preprocess.lists.rows import parse_rows
from preprocess.records.record_set import Manifest
from tests.support.memory_storage import Killed, MemoryStorage
from tests.support.stand_ins import StandInEngine

PREFIX = "/a/out/train"
LABELS = LabelDict(("a", "b"))
LISTS = {"mine": "1.jpg,a\n2.jpg,b\nlate.jpg,a\n\n3.jpg,a\n3.jpg,b\n", "other": "7.jpg,a\n8.jpg,b\n9.jpg,b\n"}
_BEAM_OPTIONS = PipelineOptions([])
_STARTED = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_numbers = itertools.count()
_UNIQUE = re.compile(r"-[0-9a-f]{12}(?=\.)")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line: of which list, with which flags; an image that was missing is there or not."""

    list_name: str = "mine"
    overwrite: bool = False
    retry: bool = False
    verify: bool = False
    complete_images: bool = False


@dataclasses.dataclass
class Outcome:
    """How a command ended: finished, refused with a message, or "killed"; and how many images it embedded."""

    how: str
    message: str = ""
    embedded: int = 0


def _job(command, run_id):
    return Job(
        definition={"list": command.list_name},
        run_id=run_id,
        output_prefix=PREFIX,
        compression="none",
        labels=LABELS.names,
        input_paths=("list.csv",),
        input_sha256=("0" * 64,),
        rows_expected=LISTS[command.list_name].count("\n"),
        started=_STARTED,
        versions={},
        retry=Retry(of_finished_set=True) if command.retry else None,
    )


def _embed(job, command, storage, outcome):
    """What the pipeline does, block after block."""
    engine = StandInEngine()
    resume_index = ResumeIndex(storage, job, engine)
    text = io.BytesIO(LISTS[command.list_name].encode())
    rows = parse_rows(text, list_path="list.csv", labels=LABELS, unknown_labels="skip")
    results = []
    for block in into_blocks(rows, list_index=0, list_path="list.csv", rows_per_block=2):
        earlier = resume_index.find(block)
        if earlier.result is not None:
            results.append(earlier.result)
            continue
        writer = BlockWriter(
            block, storage=storage, parts_dir=job.parts_dir, compression=job.compression, engine=engine
        )
        try:
            for row in block.rows:
                known = earlier.records.get(row.uri)
                sha256 = hashlib.sha256(row.uri.encode()).digest()
                if row.outcome is not None:
                    writer.write_outcome(row, row.outcome)
                elif known is not None:
                    writer.write_record(row, known.embedding, image_sha256=known.image_sha256, source="earlier_run")
                elif row.line in earlier.failures:
                    writer.write_outcome(row, earlier.failures[row.line])
                elif row.uri.startswith("late") and not command.complete_images:
                    writer.write_outcome(row, RowFailure("read", "not_found", "not yet"))
                else:
                    outcome.embedded += 1
                    writer.write_record(
                        row, np.full(3, len(row.uri), np.float32), image_sha256=sha256, source="computed"
                    )
            results.append(writer.finish())
        except BaseException as error:
            writer.abandon(error)
            raise
    return finish_record_set(results, job=job, storage=storage)


def give(command, storage, monkeypatch):
    """Gives a command; the outcome says how it ended, the storage what it left."""
    outcome = Outcome("finished")
    job = _job(command, f"run-{next(_numbers)}")

    def run_here(jobs, transform, *, storage, **_):
        (job,) = jobs
        try:
            report = _embed(job, command, storage, outcome)
        except Exception as error:
            # As `local_run.run_here` does it.
            report = local_run.report_of(job, storage)
            if report is None:
                local_run._explain(job, error)
                raise
        assert report["status"] == COMPLETE
        return local_run.conclude(job, local_run.report_of(job, storage), storage=storage)

    monkeypatch.setattr(prepared_job, "run_here", run_here)
    monkeypatch.setattr(prepared_job, "is_dataflow", lambda _: False)  # Beam takes milliseconds to say so.
    monkeypatch.setattr(prepared_job, "locked", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(local_run, "print_summary", lambda *_, **__: None)
    prepared = PreparedJob(
        job=job,
        labels=LABELS,
        options=EmbedOptions(unknown_labels="skip", load_engine=StandInEngine),
        runner=None,
        beam_options=_BEAM_OPTIONS,
        storage=storage,
        flags=(),
        weights_folder=None,
        requirements=(),
        overwrite=command.overwrite,
        verify=command.verify,
        wait=False,
        dry_run=False,
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert prepared.start() == 0
    except Killed:
        outcome.how = "killed"
    except InputError as error:
        outcome.how, outcome.message = "refused", str(error)
    return outcome


def key_of(command):
    """What the folder of a command's parts is called after."""
    return _job(command, "any").key


def whole_set(files):
    """The shards and the dead letters of a set that is finished and whole; None if it is not."""
    raw = files.get("/a/out/_train/manifest.json")
    if raw is None:
        return None
    manifest = Manifest.from_bytes(raw, where="m")
    shards = {shard.name: files.get(f"/a/out/{shard.name}") for shard in manifest.shards}
    for shard in manifest.shards:
        data = shards[shard.name]
        if data is None or hashlib.sha256(data).hexdigest() != shard.sha256:
            return None
    return tuple(sorted(shards.items()))


def state_of(files):
    """What of the files decides what commands do, without names and times that no two runs have in common."""
    return tuple(sorted((_without_unique(path), _content_of(path, data)) for path, data in files.items()))


@functools.cache
def _without_unique(path):
    return _UNIQUE.sub("-U", path)


@functools.cache
def _content_of(path, data):
    if not path.startswith("/a/out/_train/") or not path.endswith((".json", ".jsonl", ".partial")):
        return hashlib.sha256(data).hexdigest()
    if path.endswith(".partial"):
        return "partial" if ".tfrecord" not in path else hashlib.sha256(data).hexdigest()
    return json.dumps([_without_times(json.loads(line)) for line in _documents(data.decode())], sort_keys=True)


def _documents(text):
    try:
        json.loads(text)
    except ValueError:
        return text.splitlines()
    return [text]


def _without_times(value):
    if isinstance(value, dict):
        # Of a file with times in it, the digest is another in each run.
        varying = {"run_id", "blocks.jsonl", "read_bytes", "images_per_sec", "first_batch_images"}
        varying |= {"startup_sec", "steady_images_per_sec"}
        return {_UNIQUE.sub("-U", key): _without_times(inner) for key, inner in value.items() if key not in varying}
    if isinstance(value, list):
        return [_without_times(inner) for inner in value]
    if isinstance(value, str):
        return _UNIQUE.sub("-U", value)
    return 0.0 if isinstance(value, float) else value


def fresh(command, monkeypatch):
    """The files of a set that a command makes where there was nothing."""
    storage = MemoryStorage()
    assert give(command, storage, monkeypatch).how == "finished"
    return storage.files
