"""The start-up time of programs: to the first embedding, and to the end of `--help`.

    python -m benchmarks.startup [--photos DIR] [--engine E] [--precision P] [--phases] [--quick]

The first embedding: the wall time from the start of the code of `python -m pipelines.embed` in a new process until the
pipeline's own progress notice about the first batch, on 64 photos with random weights. The cache of models
(`HUGS_CACHE_DIR`) is an empty folder of the benchmark. So the first run is the first start with these weights: it
builds, converts and measures the network, and has a separate figure. The other runs use the cached network and a warm
file cache; their median is the figure with the target. A listener inside the process records the notice; everything
else runs as a user starts it. The core-seconds until then are those of the process without its decoders. Other programs
change them little, and the wall time much.

int8: the first start on a new list with a network that was prepared before, as all lists but the first have it. The
figure is what it takes longer than the median start above (`--quick` leaves it out, as does a machine that has no
OpenVINO).

`--help`: the wall time of `python -m PROGRAM --help`. It is the median of some runs after a first one.

`--phases` also prints the slowest imports before the first embedding (`-X importtime`).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from benchmarks.photos import ROOT, Lists, add_photos_flag, find_photos, make_lists
from benchmarks.report import finish, limit, say
from configs.errors import EXIT_OK
from configs.program import run_program
from preprocess.engines.openvino_import import has_openvino

_PROGRAMS = ("pipelines.embed", "pipelines.ingest", "pipelines.preproc", "trainer.task", "trainer.predict", "demo.run")
_PHOTOS = 64
_SLOWEST_IMPORTS = 25
# The time stamps are those of the wall clock, which parent and child share.
_CHILD = """
import sys, time
marks = {}
from preprocess.jobs import progress
def note(rows, enter=progress.notify):
    marks.setdefault("first embedding", (time.time(), time.process_time()))
    enter(rows)
progress.notify = note
from pipelines.embed import main
code = main(sys.argv[1:])
import json
print(json.dumps({"marks": marks, "code": code}))
"""


def _wall(command: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - started


def help_seconds(program: str, repeats: int) -> float:
    """Median wall time of a program's `--help`."""
    command = [sys.executable, "-m", program, "--help"]
    return statistics.median([_wall(command) for _ in range(repeats + 1)][1:])


def _embed_flags(lists: Lists, output: str, engine_flags: Sequence[str]) -> list[str]:
    return [
        *("--input_path", lists.list_path),
        *("--input_dict", lists.dict_path),
        *("--output_path", output),
        *("--weights", "random", "--overwrite"),
        *engine_flags,
    ]


@dataclasses.dataclass(frozen=True)
class Start:
    """A start of the program.

    Attributes:
      first_sec: from the start of the process to the first embedding.
      first_core_sec: CPU time of the process until then.
      end_sec: from the start of the process to its end.
    """

    first_sec: float
    first_core_sec: float
    end_sec: float

    def __str__(self) -> str:
        return (
            f"first embedding after {self.first_sec:.2f} s ({self.first_core_sec:.2f} core-seconds), "
            f"end after {self.end_sec:.2f} s"
        )


def start_embedding(flags: Sequence[str], environment: Mapping[str, str]) -> Start:
    """Runs the program once."""
    started = time.time()
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *flags], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    ended = time.time()
    if done.returncode:
        raise RuntimeError(f"pipelines.embed failed:\n{done.stderr}")
    told = json.loads(done.stdout.splitlines()[-1])
    first, core_sec = told["marks"]["first embedding"]
    return Start(first - started, core_sec, ended - started)


def _say_imports(flags: Sequence[str], environment: Mapping[str, str]) -> None:
    """Prints the modules whose import takes longest, together with the modules that they import."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", _CHILD, *flags],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    times = re.findall(r"import time:\s+(\d+) \|\s+(\d+) \|( *)(\S+)", done.stderr)
    for own, total, depth, name in sorted(times, key=lambda entry: -int(entry[1]))[:_SLOWEST_IMPORTS]:
        say(f"  {int(total) / 1e6:6.2f} s in all, {int(own) / 1e6:6.2f} s itself, depth {len(depth) // 2:2d}: {name}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=(__doc__ or "").split("\n")[0])
    add_photos_flag(parser)
    parser.add_argument("--engine", help="of pipelines.embed")
    parser.add_argument("--precision", help="of pipelines.embed")
    parser.add_argument("--phases", action="store_true", help="also print the slowest imports")
    parser.add_argument("--quick", action="store_true", help="one measured run of each")
    args = parser.parse_args(argv)
    photos = find_photos(args.photos)
    engine_flags = [f"--{name}={value}" for name in ("engine", "precision") if (value := getattr(args, name))]
    repeats = 1 if args.quick else 3
    with tempfile.TemporaryDirectory() as temporary:
        lists = make_lists(photos, _PHOTOS, pathlib.Path(temporary))
        flags = _embed_flags(lists, f"{temporary}/out/all", engine_flags)
        environment = {**os.environ, "HUGS_CACHE_DIR": f"{temporary}/cache"}
        runs = [start_embedding(flags, environment) for _ in range(repeats + 1)]
        for number, run in enumerate(runs):
            say(f"{run}{' (the first start with these weights)' if number == 0 else ''}")
        int8 = None
        if not args.quick and not engine_flags and has_openvino():
            int8 = start_embedding([*flags, "--precision=int8"], environment)
            say(f"{int8} (int8, the first start on this list)")
        if args.phases:
            _say_imports(flags, environment)
    first = statistics.median(run.first_sec for run in runs[1:])
    engine = " ".join(engine_flags) or "default engine"
    name = f"start to the first embedding ({engine})"
    rows = [
        limit(name, first, 8, unit="s", at_most=True),
        limit(f"{name}, the first time with these weights", runs[0].first_sec, 8, unit="s", at_most=True),
    ]
    if int8 is not None:
        more = "int8, the first start on a list: longer to the first embedding"
        rows.append(limit(more, int8.first_sec - first, 15, unit="s", at_most=True))
    rows += [
        limit(f"{program} --help", help_seconds(program, repeats), 0.5, unit="s", at_most=True) for program in _PROGRAMS
    ]
    finish("startup", rows, photos=photos.name)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
