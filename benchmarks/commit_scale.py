"""The last step of a job with many rows: its time and memory, with made-up results of blocks.

    python -m benchmarks.commit_scale [--rows 1000000 5000000] [--labels 1000] [--duplicates PERCENT]

For each N a process writes the results of blocks of 1,024 rows as workers do, with random digests of images, and a
small file in place of each shard. Then another process does the last step: it reads the results, finds duplicates,
writes journal, manifest and report, and moves the shards. It measures the time of this step, and the peak memory of its
process (`VmHWM`, with the imports). "Linear" means that the core-seconds for a row at the largest N are at most 1.25
times those at any smaller N; the time itself depends on the disk and on what else the machine does.

With `--duplicates` so many percent of the rows have an image that another row has too. Then the shards hold records,
with embeddings of three numbers, and the step reads the URIs of these rows from them. Temporary files need about 60
bytes of disk a row, and the made-up results and each of the two journals 40.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.report import Figure, finish, limit, say
from configs.errors import EXIT_OK
from configs.program import run_program

_ROWS = (1_000_000, 5_000_000)
_QUICK_ROWS = (20_000, 100_000)
_ROWS_PER_BLOCK = 1024
_LINEAR = 1.25
_MOST_GB = 1.5


def _job(folder: str, *, rows: int, labels: int) -> Any:
    from preprocess.jobs.job import Job

    return Job(
        definition={"rows": rows},
        run_id="benchmark",
        output_prefix=f"{folder}/out/train",
        compression="none",
        labels=tuple(f"label {number}" for number in range(labels)),
        input_paths=("list.csv",),
        input_sha256=("0" * 64,),
        rows_expected=rows,
        started=datetime.datetime.now(datetime.UTC),
        versions={},
    )


def _write_results(folder: str, *, rows: int, labels: int, duplicates: float) -> None:
    """Writes the results and the shards of all blocks, as workers would."""
    import numpy as np

    from preprocess.engines.base import EngineInfo
    from preprocess.jobs.block_results import CONTENT_DTYPE, BlockResult, PartFile
    from preprocess.records.backbone_identity import BackboneIdentity
    from preprocess.records.duplicates import label_key
    from preprocess.records.example import encode_example
    from preprocess.records.tfrecord import frame_record

    identity = BackboneIdentity(
        architecture="stand_in",
        weights="random",
        seed=0,
        weights_digest="sha256:0",
        embedding_size=3,
        image_definition="stand-in/1",
    )
    engine = EngineInfo(engine="stand_in", precision="float32", device="cpu", fidelity=None, why="for a benchmark")
    job = _job(folder, rows=rows, labels=labels)
    parts = pathlib.Path(job.parts_dir)
    parts.mkdir(parents=True)
    numbers = np.random.default_rng(0)
    keys = np.array([label_key([label]) for label in range(labels)], np.uint64)
    embedding = np.ones(3, np.float32)
    # As many images are drawn from this part of the digests that most of them are drawn twice.
    common = numbers.bytes(32 * max(1, int(rows * duplicates / 200)))
    for index, start in enumerate(range(0, rows, _ROWS_PER_BLOCK)):
        count = min(_ROWS_PER_BLOCK, rows - start)
        of_rows = numbers.integers(0, labels, count)
        digests = np.frombuffer(numbers.bytes(32 * count), np.uint8).reshape(count, 32).copy()
        is_common = numbers.random(count) < duplicates / 100
        drawn = numbers.integers(0, len(common) // 32, int(is_common.sum()))
        digests[is_common] = np.frombuffer(common, np.uint8).reshape(-1, 32)[drawn]
        content = np.empty(count, CONTENT_DTYPE)
        content["image"] = np.ascontiguousarray(digests[:, :16]).view("V16")[:, 0]
        content["labels"] = keys[of_rows]
        name = f"00000-{index:07d}-0badcafe-{index:012x}"
        shard = name.encode()
        if duplicates:
            shard = b"".join(
                frame_record(
                    encode_example(
                        image_uri=f"gs://a-bucket/photos/{start + row:09d}.jpg",
                        embedding=embedding,
                        label_ids=(int(of_rows[row]),),
                        image_sha256=digests[row].tobytes(),
                    )
                )
                for row in range(count)
            )
        (parts / f"{name}.tfrecord").write_bytes(shard)
        ids, counts = np.unique(of_rows, return_counts=True)
        result = BlockResult(
            order=(0, index),
            rows=count,
            sources={"computed": count},
            failed={},
            skipped={},
            label_counts=dict(zip(ids.tolist(), counts.tolist(), strict=True)),
            unlabeled=0,
            content=content.tobytes(),
            shard=PartFile(
                f"_train/{parts.name}/{name}.tfrecord", count, len(shard), hashlib.sha256(shard).hexdigest()
            ),
            failed_ledger=None,
            skipped_ledger=None,
            backbone=identity,
            engine=engine,
        )
        (parts / f"{name}.result.json").write_bytes(result.to_json_line())


def _commit(folder: str, *, rows: int, labels: int) -> dict[str, Any]:
    """Does the last step. The process must not be used for anything else."""
    from preprocess.jobs.block_results import StoredResult
    from preprocess.jobs.commit import finish_record_set
    from preprocess.jobs.stored_results import read_stored
    from preprocess.storage.base import LocalStorage

    job, storage = _job(folder, rows=rows, labels=labels), LocalStorage()
    parts = os.path.basename(job.parts_dir)
    names = [
        StoredResult(f"_train/{parts}/{entry.name}")
        for entry in os.scandir(job.parts_dir)
        if entry.name.endswith(".result.json")
    ]
    started, used = time.perf_counter(), time.process_time()
    report = finish_record_set(read_stored(names, job, storage), job=job, storage=storage)
    seconds, cpu_sec = time.perf_counter() - started, time.process_time() - used
    if report["status"] != "complete" or report["embedded"] != rows:
        raise AssertionError(f"{report['embedded']} of {rows} rows, {report['status']}")
    return {
        "seconds": seconds,
        "cpu_sec": cpu_sec,
        "peak_bytes": peak_bytes(),
        "blocks": len(names),
        "duplicates": report["duplicates"],
    }


def peak_bytes() -> int:
    """The peak memory of this process. `ru_maxrss` would count that of the process that started this one too."""
    with open("/proc/self/status") as stream:
        (line,) = (line for line in stream if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _measure(rows: int, *, labels: int, duplicates: float, scratch: str | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        flags = ["--labels", str(labels), "--duplicates", str(duplicates), "--folder", folder, "--one", str(rows)]
        command = [sys.executable, "-m", "benchmarks.commit_scale", *flags]
        subprocess.run([*command, "--write"], check=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured = {"rows": rows, **json.loads(done.stdout.splitlines()[-1])}
    seconds = measured["seconds"]
    say(
        f"{rows:>10,} rows, {measured['blocks']:,} blocks: {seconds:7.1f} s ({measured['cpu_sec']:.1f} s of a core), "
        f"{1e6 * seconds / rows:5.2f} us a row, peak {measured['peak_bytes'] / 2**30:.2f} GB, "
        f"{measured['duplicates']['images']:,} images twice or more"
    )
    return measured


def _figures(runs: Sequence[dict[str, Any]]) -> list[Figure]:
    largest = runs[-1]
    growth = max(largest["cpu_sec"] / largest["rows"] / (run["cpu_sec"] / run["rows"]) for run in runs)
    rows = f"the last step of {largest['rows']:,} rows"
    return [
        Figure(figure=f"{rows}: time", ours=f"{largest['seconds']:.0f} s"),
        limit(f"{rows}: peak memory", largest["peak_bytes"] / 2**30, _MOST_GB, unit="GB", at_most=True),
        limit(f"{rows}: core-seconds a row, against fewer rows", growth, _LINEAR, unit="x", at_most=True),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.commit_scale", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rows", type=int, nargs="+", metavar="N", help="numbers of rows, rising")
    parser.add_argument("--labels", type=int, default=1000, metavar="N", help="labels in the dictionary (1000)")
    parser.add_argument("--duplicates", type=float, default=0, metavar="PERCENT", help="rows with another row's image")
    parser.add_argument("--scratch", metavar="DIR", help="where the files go; default: the system's temporary folder")
    parser.add_argument("--quick", action="store_true", help="few rows")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.write:
        _write_results(args.folder, rows=args.one, labels=args.labels, duplicates=args.duplicates)
        return EXIT_OK
    if args.one:
        say(json.dumps(_commit(args.folder, rows=args.one, labels=args.labels)))
        return EXIT_OK
    numbers = args.rows or (_QUICK_ROWS if args.quick else _ROWS)
    fields = {"labels": args.labels, "duplicates": args.duplicates, "scratch": args.scratch}
    runs = [_measure(rows, **fields) for rows in numbers]
    finish("commit_scale", _figures(runs), runs=runs, labels=args.labels, duplicates=args.duplicates)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
