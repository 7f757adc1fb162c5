"""Rows a second on the workers of several engines, with stand-ins for the network, the images and their decoding.

    python -m benchmarks.clusters [--engines here dask prism] [--workers 1 2 4] [--rows 4000] [--image_ms 2]

The stand-in for the network waits for each image, and reading and decoding take no time, so a worker can embed at most
1000 / image_ms rows a second however many cores there are. What more workers bring is then what the engine lets them.
The rate is that of the report: without the start of the job, from the first batch to the last one. Workers of Dask have
embedded a short list before, and all others start with the job. Prism has one worker process for a job. Dask needs the
extra `dask`, Prism `make cluster`.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

from benchmarks.report import Figure, finish, say
from configs.errors import EXIT_OK
from configs.program import run_program

_ENGINES = ("here", "dask", "prism")
_ROWS_PER_SHARD = 100


@contextlib.contextmanager
def _cluster(engine: str, workers: int, folder: str) -> Iterator[list[str]]:
    """A cluster; gives the flags of Beam that run a job on it."""
    if engine == "here":
        many = [f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing"]
        yield many if workers > 1 else []
    elif engine == "dask":
        from tests.support.dask_cluster import DaskCluster
        from tests.support.hosts import LOOPBACK

        with DaskCluster(folder, hosts=(LOOPBACK,) * (workers + 1)) as cluster:
            yield ["--runner=DaskRunner", f"--dask_client_address={cluster.address}", "--dask_partition_size=1"]
    else:
        from tests.support.prism import prism, worker_pool

        with prism(folder) as (_, port), worker_pool(folder) as pool:
            flags = ["--runner=PortableRunner", f"--job_endpoint=localhost:{port}", "--environment_type=EXTERNAL"]
            yield [*flags, f"--environment_config=localhost:{pool}"]


def _rate(engine: str, workers: int, *, rows: int, image_sec: float) -> float | None:
    """Rows a second; None for so short a run that the report has no rate."""
    from benchmarks.embedding import EmbedRun, embed
    from benchmarks.stand_ins import LoadWaiting, decode_nothing, read_nothing
    from preprocess.beam.image_source import ImageSource
    from preprocess.beam.transforms import EmbedOptions
    from preprocess.lists.blocks import Spread

    def run_job(name: str, num_rows: int) -> EmbedRun:
        (folder / f"{name}.csv").write_text("".join(f"gs://a-bucket/{row:09d}.jpg,a\n" for row in range(num_rows)))
        spread = Spread.over_workers(
            rows=num_rows, rows_per_block=_ROWS_PER_SHARD, lists=1, moves_blocks=engine != "dask"
        )
        options = EmbedOptions(
            unknown_labels="fail",
            load_engine=LoadWaiting(image_sec),
            images=ImageSource(read=read_nothing, decode=decode_nothing),
            rows_per_shard=_ROWS_PER_SHARD,
            spread=Spread() if engine == "here" and workers == 1 else spread,
        )
        prefix = f"{folder}/out/{name}"
        return embed(f"{folder}/{name}.csv", f"{folder}/dict.txt", prefix, options, beam_flags=flags)

    with tempfile.TemporaryDirectory() as parent, _cluster(engine, workers, parent) as flags:
        folder = pathlib.Path(parent)
        (folder / "dict.txt").write_text("a\n")
        if engine == "dask":
            run_job("warm_up", 4 * workers * _ROWS_PER_SHARD)  # The workers go on living, and have imported all.
        run = run_job("all", rows)
    if run.report["embedded"] != rows:
        raise AssertionError(f"{run.report['embedded']} of {rows} rows were embedded.")
    say(f"{engine}, {workers} workers: {run.seconds:.1f} s in all, {run.report['startup_sec']} s of it to start")
    return run.report["steady_images_per_sec"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clusters", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--engines", nargs="+", choices=_ENGINES, default=_ENGINES)
    parser.add_argument("--workers", type=int, nargs="+", default=(1, 2, 4), metavar="N")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--image_ms", type=float, default=2.0, help="what the network takes for an image")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        measured = _rate(args.one[0], int(args.one[1]), rows=args.rows, image_sec=args.image_ms / 1000)
        say(f"rate {measured or 'none'}")
        return EXIT_OK
    figures = []
    for engine in args.engines:
        for workers in args.workers if engine != "prism" else [1]:
            of_run = ["--rows", str(args.rows), "--image_ms", str(args.image_ms), "--one", engine, str(workers)]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.clusters", *of_run], stdout=subprocess.PIPE, text=True, check=True
            )
            *_, times, found = done.stdout.splitlines()
            say(times)
            rate = found.removeprefix("rate ")
            words = f"{engine}, {workers} worker{'s' if workers > 1 else ''}, {args.image_ms:g} ms an image"
            figures.append(Figure(figure=words, ours=f"{float(rate):.4g} rows/s" if rate != "none" else "no rate"))
    finish("clusters", figures)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
