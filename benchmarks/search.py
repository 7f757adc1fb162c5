"""Searching many photos by `hugs search --index`: recall, time and memory, with made-up embeddings.

    python -m benchmarks.search [--records N] [--all] [--quick]

A process makes an index of so many embeddings of 1,280 numbers (`benchmarks.clustered`) and asks it for the 10 nearest
of 200 new ones, one at a time and warm. The truth is an exact search of the same vectors. The embeddings come from
memory and not from shards; `hugs search` reads these at the rate that is measured here with 20,000 records. Peak memory
is `VmHWM` of the process, with the imports; the file of the vectors is mapped and may be dropped by the kernel, and
counts only as far as it was touched last.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.report import Figure, finish, limit, say
from configs.errors import EXIT_OK, InputError
from configs.install_hint import install_hint
from configs.program import run_program

_RECORDS, _QUICK_RECORDS, _ALL_RECORDS = 100_000, 25_000, 1_000_000
_SIZE = 1280
_QUERIES, _NEAREST = 200, 10
_READ_RECORDS = 20_000


def _core_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _resident_mib(field: str) -> float:
    with open("/proc/self/status") as stream:
        for line in stream:
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _pieces(records: int, spent: list[float]) -> Iterator[Any]:
    import numpy as np

    from benchmarks.clustered import clustered
    from insight.data.record_pieces import RecordPiece

    made = clustered(records, size=_SIZE)
    digests = np.random.default_rng(1)
    row = 0
    while True:
        begun, cores = time.monotonic(), _core_seconds()
        found = next(made, None)
        spent[0] += time.monotonic() - begun
        spent[1] += _core_seconds() - cores
        if found is None:
            return
        embeddings, classes = found
        count = len(classes)
        yield RecordPiece(
            embeddings=embeddings,
            uris=[f"gs://a-bucket/photos/{row + number:09d}.jpg" for number in range(count)],
            label_ids=classes,
            label_counts=np.ones(count, np.int64),
            image_digests=np.frombuffer(digests.bytes(16 * count), np.uint8).reshape(count, 16),
            set_number=0,
            shard="made up",
        )
        row += count


def _measure(records: int, folder: str) -> list[Figure]:
    import numpy as np

    from benchmarks.clustered import clustered
    from insight.index.photo_index import PhotoIndex, build
    from insight.neighbours.exact import unit_vectors
    from insight.neighbours.streamed import BestSoFar
    from preprocess.records.backbone_identity import BackboneIdentity

    identity = BackboneIdentity(
        architecture="made_up",
        weights="random",
        seed=0,
        weights_digest="sha256:0",
        embedding_size=_SIZE,
        image_definition="made-up/1",
    )
    spent = [0.0, 0.0]  # by the making of the embeddings
    begun, cores = time.monotonic(), _core_seconds()
    labels = tuple(f"label {number}" for number in range(100))
    contents = build(folder, _pieces(records, spent), ["made up"], identity, labels)
    seconds, core_seconds = time.monotonic() - begun - spent[0], _core_seconds() - cores - spent[1]
    build_mib = _resident_mib("VmHWM")
    say(f"made an index of {records:,} in {seconds:.0f} s, {core_seconds:.0f} core-seconds: {contents.effort}")
    index = PhotoIndex(folder, contents, [0])
    queries = np.concatenate([found for found, _ in clustered(_QUERIES, size=_SIZE, seed=7)])
    truth = BestSoFar(unit_vectors(queries), _NEAREST)
    row = 0
    for embeddings, _ in clustered(records, size=_SIZE):
        truth.offer(unit_vectors(embeddings), first_row=row)
        row += len(embeddings)
    index.nearest(queries, _NEAREST)
    times, hits, cores = [], [], _core_seconds()
    for number, query in enumerate(queries):
        begun = time.perf_counter()
        near = index.nearest(query[np.newaxis], _NEAREST)[0]
        times.append(1000 * (time.perf_counter() - begun))
        rows = {int(photo.uri.rpartition("/")[2].partition(".")[0]) for photo in near}
        hits.append(len(rows & set(truth.rows[number].tolist())) / _NEAREST)
    core_msec = 1000 * (_core_seconds() - cores) / len(queries)
    name = f"index of {records:,} x {_SIZE}"
    return [
        limit(f"{name}: recall@{_NEAREST} against exact search", statistics.mean(hits), 0.95, unit=""),
        limit(f"{name}: building it, without reading shards", seconds, 600, unit="s", at_most=True),
        Figure(figure=f"{name}: building it, core-seconds", ours=f"{core_seconds:.0f}"),
        limit(f"{name}: a query, warm, median", statistics.median(times), 50, unit="ms", at_most=True),
        Figure(figure=f"{name}: a query, worst of {len(times)}", ours=f"{max(times):.0f} ms"),
        Figure(figure=f"{name}: a query, core time", ours=f"{core_msec:.1f} ms"),
        Figure(figure=f"{name}: peak memory while building", ours=f"{build_mib:,.0f} MiB"),
        Figure(
            figure=f"{name}: memory that is not of files, after the queries",
            ours=f"{_resident_mib('RssAnon'):,.0f} MiB",
        ),
    ]


def _reading_rate(folder: str) -> Figure:
    """How fast shards are read for an index."""
    import numpy as np

    from benchmarks.clustered import clustered
    from insight.data.record_pieces import read_pieces
    from tests.support.written_sets import MEAN_COLOUR, write_record_set
    from trainer.data.record_sets import find_record_sets

    embeddings = np.concatenate([found for found, _ in clustered(_READ_RECORDS, size=_SIZE)])
    identity = dataclasses.replace(MEAN_COLOUR, embedding_size=_SIZE)
    prefix = write_record_set(
        f"{folder}/set/train", embeddings, [[0]] * len(embeddings), identity=identity, num_shards=8
    )
    sets = find_record_sets([f"{prefix}*"], flag="data_paths")
    begun, cores = time.monotonic(), _core_seconds()
    read = sum(len(piece) for piece in read_pieces(sets))
    rate, used = read / (time.monotonic() - begun), 1e6 * (_core_seconds() - cores) / read
    return Figure(
        figure="reading shards for an index", ours=f"{rate:,.0f} records/s, {used:.0f} core-seconds a million"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Raises:
      InputError: faiss is not installed.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--records", type=int, default=None, help="embeddings in the index")
    parser.add_argument(
        "--all", action="store_true", help=f"{_ALL_RECORDS:,} embeddings, as the figures of the pages have"
    )
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK_RECORDS:,} embeddings")
    args = parser.parse_args(argv)
    if importlib.util.find_spec("faiss") is None:
        raise InputError(f"benchmarks.search needs faiss. {install_hint('insight')}")
    records = args.records or (_QUICK_RECORDS if args.quick else _ALL_RECORDS if args.all else _RECORDS)
    with tempfile.TemporaryDirectory() as folder:
        rows = _measure(records, f"{folder}/index")
        rows.append(_reading_rate(folder))
    finish("search", rows)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
