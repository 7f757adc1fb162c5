"""What `pipelines.predict` costs beside `pipelines.embed`: the same list with both programs, with stand-ins.

    python -m benchmarks.answers [--rows 100000]

The real programs run on a list of N rows: lists, transforms, local runner, record writer, row accounting, the answers
as CSV. Stand-ins that take no time replace reading, decoding and the backbone (16 numbers for each embedding); the head
is one layer on them. Each run has a process of its own, and the two programs take turns. It measures the rows per
second from the start of the program's work to its end, without imports, of the fastest run, and the rows per second of
processor time of the run that took the least. The goal is for the latter: both programs keep one core busy, and other
work on the machine changes the time of the clock by more than the goal leaves room. A real network takes far longer for
an image, so the difference is then far smaller.

`--head` also gives the time of the default head, 2,048 numbers and 512 hidden units, for a row. It is no part of the
rates.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.overhead import _write_list
from benchmarks.report import Figure, at_least, finish, say
from configs.errors import EXIT_OK
from configs.program import run_program

_ROWS = 100_000
_QUICK_ROWS = 5_000
_TURNS = 3
_WITHIN = 0.95
_PROGRAMS = ("embed", "predict_all")


def _write_model(folder: pathlib.Path, identity: Any, labels: Sequence[str]) -> str:
    """A model as far as `pipelines.predict` reads it."""
    import numpy as np

    from preprocess.answers.head import Dense, Head
    from trainer.export.head_arrays import HEAD_PATH
    from trainer.export.model_info import MODEL_INFO_PATH, ModelInfo

    info = ModelInfo(labels=tuple(labels), backbone=identity, head_digest="sha256:0", threshold=0.5)
    kernel = np.random.RandomState(0).normal(0, 1, (identity.embedding_size, len(labels))).astype(np.float32)
    head = Head(layers=(Dense(kernel, np.zeros(len(labels), np.float32)),), scores="softmax", threshold=0.5)
    (folder / "model" / "assets.extra").mkdir(parents=True)
    (folder / "model" / MODEL_INFO_PATH).write_text(json.dumps(info.to_json()))
    (folder / "model" / HEAD_PATH).write_bytes(head.to_bytes())
    return str(folder / "model")


def _measure(program: str, rows: int) -> dict[str, Any]:
    """Runs a program on a list of `rows` rows. The process must not be used for anything else."""
    # Imported before the time is taken.
    importlib.import_module("pipelines.answers.run")
    from benchmarks.stand_ins import StandInEngine, decode_nothing, read_nothing
    from pipelines import embed, predict
    from pipelines.embedding import preparation
    from preprocess.beam.image_source import ImageSource
    from preprocess.beam.transforms import EngineLoader
    from preprocess.images.decode import IMAGE_DEFINITION

    engine = StandInEngine()
    # A network that `--backbone` knows.
    engine.identity = dataclasses.replace(
        engine.identity, architecture="inception_v3", image_definition=IMAGE_DEFINITION
    )
    EngineLoader.__call__ = lambda self: engine  # type: ignore[method-assign]
    ImageSource.of_options = classmethod(  # type: ignore[method-assign,assignment]
        lambda cls, options, **_: cls(read=read_nothing, decode=decode_nothing)
    )
    preparation.check_reachable = lambda paths: None  # No image is read, so its bucket need not answer.
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        list_path, dict_path = _write_list(folder, rows)
        labels = pathlib.Path(dict_path).read_text().split()
        model = _write_model(folder, engine.identity, labels)
        words = ["--input_path", list_path, "--output_path", f"{folder}/out/all"]
        run = embed.main if program == "embed" else predict.main
        words += ["--input_dict", dict_path, "--weights", "random"] if program == "embed" else ["--model_dir", model]
        started, cpu_started = time.perf_counter(), time.process_time()
        with contextlib.redirect_stdout(sys.stderr):
            code = run(words)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    if code != EXIT_OK:
        raise AssertionError(f"{program} ended with {code}")
    return {"program": program, "rows": rows, "seconds": seconds, "cpu_seconds": cpu_seconds}


def _measure_in_a_process(program: str, rows: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.answers", "--one", program, "--rows", str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(done.stderr)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    seconds = measured["seconds"]
    cpu = 1e6 * measured["cpu_seconds"] / rows
    say(
        f"{program:>11} {rows:>9,} rows: {seconds:7.2f} s, {rows / seconds:8,.0f} rows/s, {cpu:6.1f} us of a core a row"
    )
    return measured


def _head_microseconds() -> float:
    """The time of the default head for a row, in microseconds."""
    import numpy as np

    from preprocess.answers.head import Dense, Head

    random = np.random.RandomState(0)
    shapes = ((2048, 512), (512, 5))
    layers = tuple(
        Dense(random.normal(0, 0.05, shape).astype(np.float32), np.zeros(shape[1], np.float32), relu=shape[1] == 512)
        for shape in shapes
    )
    embeddings = random.normal(0, 1, (8192, 2048)).astype(np.float32)
    head = Head(layers=layers, scores="softmax")
    head(embeddings)
    started = time.perf_counter()
    head(embeddings)
    return 1e6 * (time.perf_counter() - started) / len(embeddings)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, help="length of the list")
    parser.add_argument("--turns", type=int, default=_TURNS, help="runs of each program")
    parser.add_argument("--quick", action="store_true", help="a short list, once")
    parser.add_argument("--head", action="store_true", help="also time the default head")
    parser.add_argument("--one", choices=_PROGRAMS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    rows = args.rows or (_QUICK_ROWS if args.quick else _ROWS)
    if args.one:
        say(json.dumps(_measure(args.one, rows)))
        return EXIT_OK
    runs = [_measure_in_a_process(name, rows) for _ in range(1 if args.quick else args.turns) for name in _PROGRAMS]
    embed, answer = (rows / min(run["seconds"] for run in runs if run["program"] == name) for name in _PROGRAMS)
    embed_cpu, answer_cpu = (
        min(run["cpu_seconds"] for run in runs if run["program"] == name) / rows for name in _PROGRAMS
    )
    what = f"{rows:,} rows with stand-ins: predict_all, against embed"
    figures = [
        at_least(f"{what}, of a core", 1 / answer_cpu, 1 / embed_cpu, _WITHIN, unit="rows/s"),
        Figure(
            figure=f"{what}, by the clock",
            ours=f"{answer:.4g} rows/s",
            peer=f"{embed:.4g} rows/s",
            ratio=round(answer / embed, 4),
        ),
    ]
    if args.head:
        figures.append(Figure(figure="the default head for a row", ours=f"{_head_microseconds():.3g} us"))
    finish("answers", figures, runs=runs)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
