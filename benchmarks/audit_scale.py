"""`hugs audit` on very many records: its time, its memory, and how many of the flipped labels come first.

    python -m benchmarks.audit_scale [--records N ...] [--folder DIR] [--all] [--quick]

The records hold made-up embeddings of 1,280 numbers in 100 classes (`benchmarks.clustered`); a twentieth of the labels
is flipped to any other class. They are written as a finished set of shards, and the program runs as a user starts it.
With several numbers of records, the last row says how the core-seconds grow between the smallest and the largest one.
A million records need 6 GB of disk and 12 GB of memory.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import itertools
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.clustered import clustered
from benchmarks.report import Figure, finish, say
from configs.errors import EXIT_OK
from configs.program import run_program

_RECORDS, _QUICK_RECORDS, _ALL_RECORDS = (6_000,), (1_500,), (100_000, 1_000_000)
_SIZE, _CLASSES, _FLIPPED = 1280, 100, 0.05
_RECORDS_A_SHARD = 4096
_LOOKED_AT = 1.5


def write_set(folder: str, records: int) -> tuple[str, np.ndarray]:
    """Writes a finished set, a shard at a time; returns its prefix, and which labels were flipped, bool [records]."""
    from preprocess.records.example import encode_example
    from preprocess.records.record_set import MANIFEST_NAME, Manifest, Shard, shard_name, sidecar_path
    from preprocess.records.tfrecord import frame_record
    from tests.support.written_sets import MEAN_COLOUR

    random = np.random.default_rng(5)
    flipped = random.random(records) < _FLIPPED
    prefix, num_shards, shards, row = f"{folder}/set/train", -(-records // _RECORDS_A_SHARD), [], 0
    os.makedirs(os.path.dirname(prefix))
    for number, (embeddings, classes) in enumerate(
        clustered(records, size=_SIZE, classes=_CLASSES, piece=_RECORDS_A_SHARD)
    ):
        of_shard = slice(row, row + len(classes))
        other = (classes + random.integers(1, _CLASSES, len(classes))) % _CLASSES
        given = np.where(flipped[of_shard], other, classes)
        framed = b"".join(
            frame_record(
                encode_example(
                    image_uri=f"gs://a-bucket/photos/{at:09d}.jpg",
                    embedding=embedding,
                    label_ids=[label],
                    image_sha256=hashlib.sha256(str(at).encode()).digest(),
                )
            )
            for at, embedding, label in zip(itertools.count(row), embeddings, given.tolist(), strict=False)
        )
        name = shard_name("train", number, num_shards, "none")
        with open(f"{folder}/set/{name}", "wb") as stream:
            stream.write(framed)
        digest = hashlib.sha256(framed).hexdigest()
        shards.append(Shard(name=name, records=len(classes), num_bytes=len(framed), sha256=digest))
        row += len(classes)
    manifest = Manifest(
        backbone=dataclasses.replace(MEAN_COLOUR, embedding_size=_SIZE),
        labels=tuple(f"class {number:02d}" for number in range(_CLASSES)),
        compression="none",
        records=records,
        shards=tuple(shards),
    )
    path = sidecar_path(prefix, MANIFEST_NAME)
    os.makedirs(os.path.dirname(path))
    with open(path, "wb") as stream:
        stream.write(manifest.to_bytes())
    return prefix, flipped


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One audit: what it took, and the share of the flips among the first 1.5 n suspects."""

    records: int
    seconds: float
    core_seconds: float
    peak_mib: float
    found: float

    def figures(self) -> list[Figure]:
        """Its rows."""
        name = f"audit of {self.records:,} x {_SIZE}, {_CLASSES} classes"
        return [
            Figure(
                figure=f"{name}: core time",
                ours=f"{self.core_seconds / 60:.1f} core-minutes ({self.seconds / 60:.1f} minutes by the clock)",
            ),
            Figure(figure=f"{name}: peak memory", ours=f"{self.peak_mib:,.0f} MiB"),
            Figure(figure=f"{name}: flipped labels in the first 1.5 n suspects", ours=f"{100 * self.found:.1f} %"),
        ]


def audited(records: int, parent: str | None) -> Run:
    """Writes a set, audits it in a process of its own, and removes it."""
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        prefix, flipped = write_set(folder, records)
        say(f"a set of {records:,} records is written")
        command = [sys.executable, "-m", "insight.audit", "--data_paths", prefix, "--output_path", f"{folder}/audit"]
        begun = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - begun
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        first = int(_LOOKED_AT * flipped.sum())
        with open(f"{folder}/audit/suspects.csv", newline="", encoding="utf-8") as stream:
            suspects = [int(row["image_uri"][-13:-4]) for row in itertools.islice(csv.DictReader(stream), first)]
    return Run(
        records=records,
        seconds=seconds,
        core_seconds=_core_seconds(used),
        peak_mib=used.ru_maxrss / 1024,
        found=float(flipped[suspects].sum() / flipped.sum()),
    )


def _core_seconds(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=None, help="numbers of records, one after the other")
    parser.add_argument("--folder", help="where the set is written for a while; default: the folder for such files")
    parser.add_argument("--all", action="store_true", help="100,000 and a million records")
    parser.add_argument("--quick", action="store_true", help="1,500 records: does everything run?")
    args = parser.parse_args(argv)
    numbers = args.records or (_QUICK_RECORDS if args.quick else _ALL_RECORDS if args.all else _RECORDS)
    runs, rows = [], []
    for number in sorted(numbers):
        runs.append(audited(number, args.folder))
        rows += runs[-1].figures()
        for row in runs[-1].figures():
            say(row.line())
    if len(runs) > 1:
        less, more = runs[0], runs[-1]
        power = math.log(more.core_seconds / less.core_seconds) / math.log(more.records / less.records)
        rows.append(
            Figure(figure=f"core time from {less.records:,} to {more.records:,} records", ours=f"n to the {power:.2f}")
        )
    finish("audit_scale", rows)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
