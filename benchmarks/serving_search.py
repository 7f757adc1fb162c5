"""What similar photos add to an answer of `hugs serve --search`, in processor time.

    python -m benchmarks.serving_search [--records 500,100000] [--backbone efficientnet_lite0] [--quick]

A server for each number of records, with made-up embeddings (`benchmarks.clustered`) in a set of the model's network,
whose weights are random. Clients ask about photos, in turns without and with `nearest=8`; a turn counts the processor
time of all processes of the server. Other programs on the machine change two turns by as much as they differ, so the
search is also measured alone, in one thread, by the time of that thread. The pictures of the photos found are not asked
for: they are made once each. The memory is what the process holds beside files that are mapped.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from benchmarks.photos import ROOT, add_photos_flag, find_photos
from benchmarks.report import Figure, finish, say
from benchmarks.serving import export_in_child, load, processor_sec, server
from configs.errors import EXIT_OK
from configs.program import run_program

_CLIENTS, _ROUNDS, _NEAREST, _QUERIES = 8, 4, 8, 200
_PATHS = {"without": "/predict", "with": f"/predict?nearest={_NEAREST}"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark with these arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_photos_flag(parser)
    parser.add_argument("--backbone", default="efficientnet_lite0", help="network of the model")
    parser.add_argument("--records", default="500,100000", help="photos in the sets, by commas (500,100000)")
    parser.add_argument("--quick", action="store_true", help="500 photos, 2 s a turn")
    args = parser.parse_args(argv)
    photo_set = find_photos(args.photos)
    say(photo_set.describe())
    photos = [pathlib.Path(path).read_bytes() for path, _ in photo_set.photos[:64]]
    rows: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        model_dir = os.path.join(folder, "model")
        export_in_child(model_dir, args.backbone)
        for records in (500,) if args.quick else map(int, args.records.split(",")):
            prefix = os.path.join(folder, str(records), "train")
            code = f"from benchmarks.serving_search import write_set; write_set({prefix!r}, {model_dir!r}, {records})"
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
            rows += _measure(model_dir, prefix, records, photos, seconds=2.0 if args.quick else 6.0)
    finish("serving_search", rows, backbone=args.backbone)
    return EXIT_OK


def write_set(prefix: str, model_dir: str, records: int) -> None:
    """Writes a set of the model's network with made-up embeddings, in a process that ends."""
    import numpy as np

    from benchmarks.clustered import clustered
    from tests.support.written_sets import write_record_set
    from trainer.export.classifier import read_model_info

    identity = read_model_info(model_dir).backbone
    embeddings = np.concatenate([found for found, _ in clustered(records, size=identity.embedding_size)])
    write_record_set(prefix, embeddings, [[0]] * records, identity=identity, num_shards=max(1, records // 10_000))


def _measure(model_dir: str, prefix: str, records: int, photos: Sequence[bytes], *, seconds: float) -> list[Figure]:
    index = f"{os.path.dirname(prefix)}-index"
    words = ["serving.serve", "--model_dir", model_dir, "--port", "0", "--search", prefix, "--search_index", index]
    begun = time.monotonic()
    spent: dict[str, list[float]] = {name: [] for name in _PATHS}
    with server(words) as (port, process):
        started = time.monotonic() - begun
        for path in _PATHS.values():
            load(port, photos, clients=_CLIENTS, seconds=2.0, path=path)
        for _ in range(_ROUNDS):
            for name, path in _PATHS.items():
                before = processor_sec(process)
                seen = load(port, photos, clients=_CLIENTS, seconds=seconds, path=path)
                assert set(seen.statuses) == {200}, seen.statuses
                spent[name].append(1000 * (processor_sec(process) - before) / len(seen.latencies))
        memory = _anonymous_mib(process)
    code = f"from benchmarks.serving_search import measure_search; measure_search({prefix!r}, {index!r})"
    alone = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    middle = {name: statistics.median(values) for name, values in spent.items()}
    added = [found - alone for alone, found in zip(spent["without"], spent["with"], strict=True)]
    name = f"{records:,} photos"
    return [
        Figure(figure=f"{name}: processor time of an answer", ours=f"{middle['without']:.2f} ms"),
        Figure(
            figure=f"{name}: {_NEAREST} similar photos add, median of {_ROUNDS} turns",
            ours=f"{statistics.median(added):.2f} ms ({min(added):.2f} to {max(added):.2f})",
        ),
        Figure(figure=f"{name}: the search alone, time of its thread", ours=f"{float(alone.stdout):.2f} ms"),
        Figure(figure=f"{name}: start of the server, with making the index", ours=f"{started:.0f} s"),
        Figure(figure=f"{name}: memory of the server without mapped files", ours=f"{memory:.0f} MiB"),
    ]


def measure_search(prefix: str, folder: str) -> None:
    """Prints the milliseconds of a search, as the server does it, for embeddings that are new to the index."""
    import numpy as np

    from benchmarks.clustered import clustered
    from insight.index.cells import search_on_one_core
    from insight.index.photo_index import open_index
    from trainer.data.record_sets import find_record_sets

    search_on_one_core()
    sets = find_record_sets([prefix], flag="search")
    index, done = open_index(folder, sets)
    assert done == "read", done
    size = sets[0].manifest.backbone.embedding_size
    queries = np.concatenate([found for found, _ in clustered(_QUERIES, size=size, seed=7)])
    index.nearest(queries, _NEAREST, shows_progress=False)
    begun = time.thread_time()
    for query in queries:
        index.nearest(query[np.newaxis], _NEAREST, shows_progress=False)
    say(f"{1000 * (time.thread_time() - begun) / len(queries)}")


def _anonymous_mib(process: int) -> float:
    lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:"))


if __name__ == "__main__":
    run_program(main)
