"""`hugs map` with 50,000 photos: its time, the size of its page, and how far a map with more photos moves the others.

    python -m benchmarks.photo_map [--photos N] [--all] [--quick]

The records hold made-up embeddings of 1,280 numbers (`benchmarks.clustered`), and there are no files of photos, as for
photos in a bucket that is not at hand. The time is that of the whole command, with reading the shards. Then a twentieth
is added, and the new map goes on from the first. Of a thousand photos it looks how many of the 10 nearest by their
embeddings are among the 10 nearest on the map. With Chromium and Playwright, it also measures how long the page takes
to draw all points once; 16 ms are smooth.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import importlib.util
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.report import Figure, finish, limit, say
from configs.errors import EXIT_OK, InputError
from configs.install_hint import install_hint
from configs.program import run_program

if TYPE_CHECKING:
    import numpy as np

_PHOTOS, _QUICK_PHOTOS, _ALL_PHOTOS = 20_000, 5_000, 50_000
_SIZE, _CLASSES = 1280, 20
# Of so many photos the nearest ones are compared.
_COMPARED, _NEAREST = 1000, 10


def _write_sets(folder: str, photos: int) -> tuple[str, str, np.ndarray]:
    """Writes a set, and a second one with a twentieth of it; returns their globs, and the embeddings of the first."""
    import numpy as np

    from benchmarks.clustered import clustered
    from tests.support.written_sets import MEAN_COLOUR, write_record_set

    identity = dataclasses.replace(MEAN_COLOUR, embedding_size=_SIZE)
    globs, embeddings = [], []
    for name, number, seed in (("train", photos, 0), ("more", photos // 20, 1)):
        made = list(clustered(number, size=_SIZE, classes=_CLASSES, seed=seed))
        classes = np.concatenate([of for _, of in made])
        embeddings.append(np.concatenate([found for found, _ in made]))
        prefix = write_record_set(
            f"{folder}/out/{name}",
            embeddings[-1],
            classes[:, np.newaxis].tolist(),
            labels=[f"class {number:02d}" for number in range(_CLASSES)],
            identity=identity,
            num_shards=max(1, number // 1024),
            uris=[f"gs://a-bucket/photos/{of:02d}/{seed}{row:09d}.jpg" for row, of in enumerate(classes.tolist())],
        )
        globs.append(f"{prefix}*")
    return globs[0], globs[1], embeddings[0]


def _kept_share(embeddings: np.ndarray, table: str) -> float:
    """Which share of the nearest photos by the embeddings is among the nearest on the map of that table."""
    import numpy as np

    from insight.neighbours.exact import nearest, unit_vectors

    with open(table, newline="", encoding="utf-8") as stream:
        positions = np.array([[float(row["x"]), float(row["y"])] for row in csv.DictReader(stream)], np.float32)
    of = np.sort(np.random.default_rng(0).choice(len(positions), min(_COMPARED, len(positions)), replace=False))
    vectors = unit_vectors(embeddings)
    rows, _ = nearest(vectors[of], vectors, _NEAREST, query_rows=of)
    kept = 0
    for row, near in zip(of.tolist(), rows.tolist(), strict=True):
        distances = np.square(positions - positions[row]).sum(axis=1)
        distances[row] = np.inf
        kept += len(set(np.argpartition(distances, _NEAREST)[:_NEAREST].tolist()) & set(near))
    return kept / rows.size


def _run(*words: str) -> tuple[float, float, str]:
    """Runs `hugs map`: seconds, core-seconds, and what it printed."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "insight.map", *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    seconds, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def _drawing_msec(page: str) -> float | None:
    """The median time that the page takes to draw all points; None without a browser."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None or importlib.util.find_spec("playwright") is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1200, "height": 900})
        opened.goto(f"file://{page}")
        opened.wait_for_function("window.photoMap !== undefined", timeout=120_000)
        msec = opened.evaluate(
            """() => {
              const times = [];
              for (let turn = 0; turn < 50; turn++) {
                const begun = performance.now();
                photoMap.draw();
                times.push(performance.now() - begun);
              }
              return times.sort((a, b) => a - b)[25];
            }"""
        )
        browser.close()
    return float(msec)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Raises:
      InputError: openTSNE is not installed.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--photos", type=int, default=None, help="photos on the map")
    parser.add_argument("--all", action="store_true", help=f"{_ALL_PHOTOS:,} photos, as the figures of the pages have")
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK_PHOTOS:,} photos")
    args = parser.parse_args(argv)
    if importlib.util.find_spec("openTSNE") is None:
        raise InputError(f"benchmarks.photo_map needs openTSNE. {install_hint('insight')}")
    photos = args.photos or (_QUICK_PHOTOS if args.quick else _ALL_PHOTOS if args.all else _PHOTOS)
    name = f"map of {photos:,} photos"
    with tempfile.TemporaryDirectory() as folder:
        first, more, embeddings = _write_sets(folder, photos)
        flags = ["--max_photos", "200000", "--output_path"]
        seconds, core_seconds, _ = _run("--data_paths", first, *flags, f"{folder}/map")
        page = f"{folder}/map/map.html"
        say(f"{name}: {seconds:.1f} s, {core_seconds:.1f} core-seconds")
        num_bytes, drawing = os.path.getsize(page), _drawing_msec(page)
        kept = _kept_share(embeddings, f"{folder}/map/map.csv")
        again, again_cores, printed = _run(
            "--data_paths", f"{first},{more}", *flags, f"{folder}/later", "--previous", f"{folder}/map/map.csv"
        )
        moved = re.search(r"moved by ([\d.]+) %", printed)
        rows = [
            limit(f"{name}: made in", seconds, 60, unit="s", at_most=True),
            Figure(figure=f"{name}: core-seconds", ours=f"{core_seconds:.1f}"),
            Figure(figure=f"{name}: share of the {_NEAREST} nearest that are so on the map, too", ours=f"{kept:.3f}"),
            limit(f"{name}: the page", num_bytes / 1e6, 20, unit="MB", at_most=True),
            limit(
                f"{name}: with a twentieth more, the others move by",
                float(moved[1]) if moved else 100.0,
                5,
                unit="% of its width",
                at_most=True,
            ),
            Figure(figure=f"{name}: the later map", ours=f"{again:.1f} s, {again_cores:.1f} core-seconds"),
        ]
        if drawing is not None:
            rows.append(limit(f"{name}: drawing all points once, median", drawing, 16, unit="ms", at_most=True))
    finish("photo_map", rows)
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
