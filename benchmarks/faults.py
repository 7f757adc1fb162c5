"""The cost of network faults: reads images from and writes shards to a `gs://` server on loopback with planned faults.

    python -m benchmarks.faults [--photos DIR] [--quick]

32 threads read 500 objects of 60 KB, and 20 shards of 8.5 MB (1024 records) are written. This is done without faults,
with 5 % and with 20 % of the requests failing; every request takes 50 ms more. The faults are drawn from a seed, and
all kinds are equally frequent: busy servers (429, 500, 503), connections that are closed before, during or instead of a
response, and short or damaged bodies. (Connections that stall are left out: each takes the whole timeout, 30 s by
default, which would hide all other effects.) Every byte is compared. Client and server run in this process and share
its cores, so the ratio matters and not the rate. With so few objects, most of the time at 20 % is spent on the few
reads that fail several times in a row.

The peer is Beam's `FileSystems`. It reads the same objects in the same number of threads, without faults.

Then the whole pipeline runs, with a stand-in for the network. Photographs, list, dictionary and records are all in the
bucket. The shards are compared, byte for byte, with those of the run without faults.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import logging
import os
import pathlib
import random
import time
from collections.abc import Callable, Sequence
from unittest import mock

from benchmarks.photos import add_photos_flag, find_photos
from benchmarks.report import Figure, finish, say
from configs.errors import EXIT_OK, InputError
from configs.install_hint import install_hint
from configs.program import run_program
from preprocess.storage.base import write_file
from preprocess.storage.buckets import NUM_CONNECTIONS
from preprocess.storage.gcs import GcsStorage
from preprocess.storage.retry import RetryPolicy

_SHARES = (0.0, 0.05, 0.2)
_LATENCY_SEC = 0.05
_OBJECT_BYTES = 60_000
_BUCKET = "bucket"


def _in_threads(function: Callable[[int], object], count: int) -> float:
    """Seconds that `function(0)` to `function(count - 1)` take, in the number of threads that read images."""
    with concurrent.futures.ThreadPoolExecutor(NUM_CONNECTIONS) as threads:
        started = time.monotonic()
        for _ in threads.map(function, range(count)):
            pass
        return time.monotonic() - started


def _read_by_beam(path: str) -> bytes:
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
        return stream.read()


def measure(*, num_objects: int, num_shards: int, shard_bytes: int, latency_sec: float) -> list[Figure]:
    """Reads and writes at each share of faults.

    Raises:
      InputError: gcp-storage-emulator is not installed.
    """
    try:
        from tests.support.faulty_gcs import ALL_FAULTS, FaultPlan, FaultyGcs
    except ImportError as error:
        raise InputError(f"faults: {error}. It is one of the development packages. {install_hint('dev')}") from error
    # The second of them: Google's credentials ask a host for regions in the background, and loopback has no such host.
    for noisy in ("gcp_storage_emulator", "urllib3.connectionpool"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    objects = [random.Random(number).randbytes(_OBJECT_BYTES) for number in range(num_objects)]
    shards = [random.Random(-1 - number).randbytes(shard_bytes) for number in range(num_shards)]
    storage = GcsStorage(RetryPolicy())
    lost = 0
    rows = []
    read_sec: dict[float, float] = {}
    write_sec: dict[float, float] = {}
    with FaultyGcs(buckets=[_BUCKET]) as gcs, mock.patch.dict(os.environ, gcs.environment):
        for number, data in enumerate(objects):
            gcs.put(_BUCKET, f"{number}.jpg", data)
        paths = [f"gs://{_BUCKET}/{number}.jpg" for number in range(num_objects)]
        _in_threads(lambda number: storage.read(paths[number]), min(num_objects, NUM_CONNECTIONS))  # Connections open.

        for share in _SHARES:
            faults = [fault for fault in ALL_FAULTS if fault != "stall"]
            gcs.plan = FaultPlan(share=share, faults=faults, latency_sec=latency_sec, seed=int(100 * share))
            before = gcs.faults()
            wrong: list[str] = []

            def read(number: int, wrong: list[str] = wrong) -> None:
                if storage.read(paths[number]) != objects[number]:
                    wrong.append(paths[number])

            def write(number: int, share: float = share) -> None:
                write_file(storage, f"gs://{_BUCKET}/{share}/{number}", shards[number])

            read_sec[share] = _in_threads(read, num_objects)
            write_sec[share] = _in_threads(write, num_shards)
            for number, data in enumerate(shards):
                if gcs.get(_BUCKET, f"{share}/{number}") != data:
                    wrong.append(f"shard {number}")
            lost += len(wrong)
            met = ", ".join(f"{count} x {fault}" for fault, count in sorted((gcs.faults() - before).items()))
            say(
                f"{share:4.0%} faults: {num_objects} reads {read_sec[share]:.2f} s, {num_shards} writes "
                f"{write_sec[share]:.2f} s, {len(wrong)} lost or wrong; met {met or 'none'}"
            )
        rows += [
            _slower(f"{num_objects} reads of 60 KB, {latency_sec * 1e3:.0f} ms each, 32 threads", read_sec),
            _slower(f"{num_shards} writes of {shard_bytes / 1e6:g} MB", write_sec),
            Figure(figure="objects lost or wrong, at up to 20 % faults", ours=str(lost), target="0", met=lost == 0),
        ]
        gcs.plan = FaultPlan(latency_sec=latency_sec)
        _read_by_beam(paths[0])
        before_requests = len(gcs.exchanges)
        peer_sec = _in_threads(lambda number: _read_by_beam(paths[number]), num_objects)
        requests = (len(gcs.exchanges) - before_requests) / num_objects
        rows.append(
            Figure(
                figure="reads without faults, against Beam's FileSystems",
                ours=f"{num_objects / read_sec[0.0]:.0f} objects/s",
                peer=f"{num_objects / peer_sec:.0f} objects/s ({requests:.1f} requests each)",
                ratio=round(peer_sec / read_sec[0.0], 2),
            )
        )
    return rows


def measure_jobs(photos: Sequence[str], *, latency_sec: float) -> list[Figure]:
    """The pipeline over photographs in a bucket, at each share of faults.

    Raises:
      InputError: gcp-storage-emulator is not installed.
    """
    from benchmarks.embedding import embed
    from benchmarks.stand_ins import load_stand_in
    from preprocess.beam.transforms import EmbedOptions
    from tests.support.faulty_gcs import ALL_FAULTS, FaultPlan, FaultyGcs

    options = EmbedOptions(unknown_labels="fail", load_engine=load_stand_in, rows_per_shard=64)
    seconds: dict[float, float] = {}
    shards: dict[float, list[bytes]] = {}
    failed = 0
    with FaultyGcs(buckets=[_BUCKET]) as gcs, mock.patch.dict(os.environ, gcs.environment):
        for number, path in enumerate(photos):
            gcs.put(_BUCKET, f"data/{number}.jpg", pathlib.Path(path).read_bytes())
        gcs.put(_BUCKET, "data/dict.txt", b"photo\n")
        gcs.put(_BUCKET, "data/all.csv", "".join(f"{n}.jpg,photo\n" for n in range(len(photos))).encode())
        for share in _SHARES:
            faults = [fault for fault in ALL_FAULTS if fault != "stall"]
            gcs.plan = FaultPlan(share=share, faults=faults, latency_sec=latency_sec, seed=int(100 * share))
            data, out = f"gs://{_BUCKET}/data", f"out{share}"
            run = embed(f"{data}/all.csv", f"{data}/dict.txt", f"gs://{_BUCKET}/{out}/all", options)
            seconds[share] = run.seconds
            failed += sum(run.report["failed"].values())
            gcs.plan = FaultPlan()
            names = sorted(name for name in gcs.names(_BUCKET) if name.startswith(f"{out}/all-"))
            shards[share] = [gcs.get(_BUCKET, name) for name in names]
            say(f"{share:4.0%} faults: the pipeline over {len(photos)} photographs in {run.seconds:.2f} s")
    lost = failed + sum(found != shards[0.0] for found in shards.values())
    return [
        _slower(f"the pipeline over {len(photos)} photographs in a bucket, {latency_sec * 1e3:.0f} ms each", seconds),
        Figure(figure="its rows that failed and sets that differ", ours=str(lost), target="0", met=lost == 0),
    ]


def _slower(what: str, sec: dict[float, float]) -> Figure:
    return Figure(
        figure=what,
        ours=", ".join(f"{one:.2f} s at {share:.0%}" for share, one in sec.items() if share),
        peer=f"{sec[0.0]:.2f} s without faults",
        ratio=round(sec[0.0] / sec[max(sec)], 3),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=(__doc__ or "").split("\n")[0])
    add_photos_flag(parser)
    parser.add_argument("--quick", action="store_true", help="fewer objects")
    args = parser.parse_args(argv)
    photos = find_photos(args.photos)
    sizes = {"num_objects": 60, "num_shards": 3} if args.quick else {"num_objects": 500, "num_shards": 20}
    rows = measure(**sizes, shard_bytes=8_500_000, latency_sec=_LATENCY_SEC)
    rows += measure_jobs([path for path, _ in photos.photos[: sizes["num_objects"]]], latency_sec=_LATENCY_SEC)
    finish("faults", rows, photos=photos.name)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
