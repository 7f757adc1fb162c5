"""The two passes over the lists of a job with many rows: their rate and memory.

    python -m benchmarks.list_passes [--rows 500000 5000000] [--rows_per_list 10000]

The first pass is the check before a job starts, in the program that starts it. The second one is the pipeline's: it
reads the lists again, and its blocks of rows pass the local runner's shuffle, which is in memory. Both are measured on
one list of N rows, and on as many lists of 10,000 rows, each in a process of its own. It measures rows a core-second,
and the peak memory of the process (`VmHWM`, with the imports). "Flat" means that ten times the rows take at most 1.25
times the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.commit_scale import peak_bytes
from benchmarks.report import Figure, finish, limit, say
from configs.errors import EXIT_OK
from configs.program import run_program

_ROWS = (500_000, 5_000_000)
_QUICK_ROWS = (20_000, 100_000)
_ROWS_PER_LIST = 10_000
_FLAT = 1.25
_LABELS = 1000


def _write_lists(folder: str, *, rows: int, rows_per_list: int) -> None:
    with open(f"{folder}/dict.txt", "w") as stream:
        stream.writelines(f"label {label}\n" for label in range(_LABELS))
    for index, start in enumerate(range(0, rows, rows_per_list)):
        with open(f"{folder}/part-{index:05d}.csv", "w") as stream:
            stream.writelines(
                f"gs://a-bucket/photos-of-the-year-2026/shard-{row // 5000:05d}/{row:09d}_4f2a71c09be3.jpg,"
                f"label {row * 7919 % _LABELS}\n"
                for row in range(start, min(start + rows_per_list, rows))
            )


def _scan(folder: str, begin: Callable[[], None]) -> int:
    from pipelines.checks.preflight import read_label_dict, scan_lists
    from preprocess.beam.beam_storage import BeamStorage

    storage = BeamStorage()
    labels = read_label_dict(f"{folder}/dict.txt", storage)
    lists = [f"{folder}/part-*.csv"]
    begin()
    return scan_lists(lists, labels=labels, unknown_labels="fail", storage=storage, sample_size=300).rows


def _read_into_blocks(folder: str, begin: Callable[[], None]) -> int:
    import datetime

    import apache_beam as beam

    from benchmarks.stand_ins import load_stand_in
    from pipelines.checks.preflight import read_label_dict, scan_lists
    from pipelines.runners.beam_options import make_runner
    from preprocess.beam.beam_storage import BeamStorage
    from preprocess.beam.transforms import EmbedOptions, _ReadRowBlocks
    from preprocess.jobs.job import Job

    storage = BeamStorage()
    labels = read_label_dict(f"{folder}/dict.txt", storage)
    lists = scan_lists([f"{folder}/part-*.csv"], labels=labels, unknown_labels="fail", storage=storage)
    job = Job(
        definition={},
        run_id="benchmark",
        output_prefix=f"{folder}/out/train",
        compression="none",
        labels=labels.names,
        input_paths=lists.paths,
        input_sha256=lists.sha256,
        input_formats=lists.formats,
        rows_expected=lists.rows,
        started=datetime.datetime.now(datetime.UTC),
        versions={},
    )
    options = EmbedOptions(unknown_labels="fail", load_engine=load_stand_in)
    beam_options = beam.options.pipeline_options.PipelineOptions([])
    rows = beam.metrics.Metrics.counter("benchmark", "rows")
    begin()
    pipeline = beam.Pipeline(runner=make_runner(beam_options), options=beam_options)
    _ = (
        pipeline
        | beam.Create([(number, path, 0) for number, path in enumerate(job.input_paths)])
        | beam.ParDo(_ReadRowBlocks(job, labels, options, image=None))
        | beam.Reshuffle()
        | beam.Map(lambda blocks: rows.inc(sum(len(block.rows) for block in blocks)))
    )
    result = pipeline.run()
    result.wait_until_finish()
    (counted,) = result.metrics().query()["counters"]
    return counted.committed


_PASSES = {"check": _scan, "pipeline": _read_into_blocks}


def _measure(which: str, rows: int, rows_per_list: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        _write_lists(folder, rows=rows, rows_per_list=rows_per_list)
        num_bytes = sum(entry.stat().st_size for entry in os.scandir(folder))
        command = [sys.executable, "-m", "benchmarks.list_passes", "--one", which, "--folder", folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, Any] = {"pass": which, "rows": rows, "rows_per_list": rows_per_list, "list_bytes": num_bytes}
    measured |= json.loads(done.stdout.splitlines()[-1])
    if measured.pop("seen") != rows:
        raise AssertionError(f"{which}: not all of {rows} rows were read")
    lists = -(-rows // rows_per_list)
    say(
        f"{which:>8}: {rows:>10,} rows in {lists:,} lists, {num_bytes / 1e6:,.0f} MB: {measured['seconds']:6.1f} s, "
        f"{rows / measured['cpu_sec']:9,.0f} rows a core-second, peak {measured['peak_bytes'] / 2**30:.2f} GB"
    )
    return measured


def _figures(runs: Sequence[dict[str, Any]]) -> list[Figure]:
    figures = []
    for which in _PASSES:
        ours = [run for run in runs if run["pass"] == which]
        most = max(ours, key=lambda run: run["rows"])
        rows = f"{which} of {most['rows']:,} rows"
        rate = min(run["rows"] / run["cpu_sec"] for run in ours if run["rows"] == most["rows"])
        largest = max(run["peak_bytes"] for run in ours)
        figures += [
            limit(f"{rows}: rate", rate, 50_000, unit="rows a core-second"),
            limit(f"{rows}: peak memory", largest / 2**30, 1.5, unit="GB", at_most=True),
        ]
        growth = max(run["peak_bytes"] for run in ours if run["rows"] == most["rows"]) / min(
            run["peak_bytes"] for run in ours
        )
        figures.append(
            limit(f"{rows}: memory, against fewer rows", growth, _FLAT, unit="x", at_most=True)
            if which == "check"
            else Figure(figure=f"{rows}: memory, against fewer rows", ours=f"{growth:.3g} x")
        )
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.list_passes", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rows", type=int, nargs="+", metavar="N", help="numbers of rows, rising")
    parser.add_argument("--rows_per_list", type=int, default=_ROWS_PER_LIST, metavar="N", help="of the many lists")
    parser.add_argument("--quick", action="store_true", help="few rows")
    parser.add_argument("--one", choices=list(_PASSES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        began: list[float] = []
        # What comes before are imports, and for the second pass the first one.
        seen = _PASSES[args.one](args.folder, lambda: began.extend((time.perf_counter(), time.process_time())))
        times = {"seconds": time.perf_counter() - began[0], "cpu_sec": time.process_time() - began[1]}
        say(json.dumps({"seen": seen, "peak_bytes": peak_bytes(), **times}))
        return EXIT_OK
    runs = [
        _measure(which, rows, rows_per_list)
        for which in _PASSES
        for rows in args.rows or (_QUICK_ROWS if args.quick else _ROWS)
        for rows_per_list in (rows, args.rows_per_list)
    ]
    finish("list_passes", _figures(runs), runs=runs)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
