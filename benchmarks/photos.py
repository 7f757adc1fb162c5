"""Real photographs for the benchmarks: those in `--photos DIR`, or those that are available.

`DIR` holds one folder of photographs for each class. Without it, the benchmarks use the flower photographs in
`../shared/data/flowers/photos` if they exist (500 JPEGs of about 500 x 375), else the demo's solar cells, saved as
JPEGs of 500 x 375. Every benchmark prints which it used, because rates depend on the size of the photographs.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import os
import pathlib
import shutil

from configs.errors import InputError

ROOT = pathlib.Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "out"
FLOWERS = ROOT.parent / "shared" / "data" / "flowers" / "photos"
_SUFFIXES = {".jpg", ".jpeg", ".png"}
_SIZE = (500, 375)
_QUALITY = 90


@dataclasses.dataclass(frozen=True)
class PhotoSet:
    """Photographs, each with its class.

    Attributes:
      name: the source of the photographs, for people.
      photos: pairs of path and class. The classes take turns, so the first n photographs are of all classes.
    """

    name: str
    photos: tuple[tuple[str, str], ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, sorted."""
        return tuple(sorted({label for _, label in self.photos}))

    def describe(self) -> str:
        """One line that describes the photographs."""
        size = sum(os.path.getsize(path) for path, _ in self.photos) / len(self.photos)
        return f"{len(self.photos)} photographs, {size / 1024:.0f} KB each on average ({self.name})"


def add_photos_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `--photos`."""
    parser.add_argument(
        "--photos", metavar="DIR", help="a folder of photographs in class folders (see benchmarks.photos)"
    )


def find_photos(folder: str | None = None) -> PhotoSet:
    """The photographs of `folder`, or those that are available.

    Raises:
      InputError: `folder` holds no class folder with photographs.
    """
    if folder is not None:
        return _read(pathlib.Path(folder), folder)
    if FLOWERS.is_dir():
        return _read(FLOWERS, "flowers")
    return _read(_solar_cells(), f"solar cells, saved as JPEGs of {_SIZE[0]} x {_SIZE[1]}")


def _read(folder: pathlib.Path, name: str) -> PhotoSet:
    by_class = [
        [(str(path), path.parent.name) for path in sorted(child.iterdir()) if path.suffix.lower() in _SUFFIXES]
        for child in (sorted(folder.iterdir()) if folder.is_dir() else [])
        if child.is_dir()
    ]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_class))
    photos = tuple(photo for photo in turns if photo is not None)
    if not photos:
        raise InputError(f"photos: no class folder with JPEG or PNG files in {folder}. Give one that has some.")
    return PhotoSet(name, photos)


def _solar_cells() -> pathlib.Path:
    """The demo's photographs at the size of usual web photographs. They are made once and kept."""
    from PIL import Image

    from demo import solar_cells

    folder = OUT / "solar_cells"
    if not folder.is_dir():
        partial = OUT / "solar_cells.partial"
        shutil.rmtree(partial, ignore_errors=True)
        solar_cells.make_class_folders(partial)
        for path in sorted(partial.glob("*/*")):
            with Image.open(path) as image:
                image.convert("RGB").resize(_SIZE).save(path.with_suffix(".jpg"), quality=_QUALITY)
            path.unlink()
        partial.rename(folder)
    return folder


@dataclasses.dataclass(frozen=True)
class Lists:
    """Photographs under distinct names in class folders, the list that names them, and its dictionary."""

    folder: pathlib.Path
    list_path: str
    dict_path: str
    rows: tuple[tuple[str, str], ...]


def make_lists(photo_set: PhotoSet, count: int, target: pathlib.Path) -> Lists:
    """Links `count` photographs into `target`. If there are fewer, they are repeated.

    Each repetition has a new name and a few bytes after the end of the image, so no cache by name, path or content
    gives an advantage. All are in the operating system's cache, so the benchmark measures computing and not the disk.
    """
    folder = target / "photos"
    rows = []
    for number, (path, label) in enumerate(itertools.islice(itertools.cycle(photo_set.photos), count)):
        link = folder / label / f"{number:06d}{pathlib.Path(path).suffix.lower()}"
        link.parent.mkdir(parents=True, exist_ok=True)
        repetition = number // len(photo_set.photos)
        if repetition:
            link.write_bytes(pathlib.Path(path).read_bytes() + f"repetition {repetition}".encode())
        else:
            try:
                os.link(path, link)
            except OSError:  # Another filesystem, or one without hard links.
                shutil.copyfile(path, link)
        rows.append((str(link), label))
    list_path, dict_path = target / "all.csv", target / "dict.txt"
    with list_path.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)
    dict_path.write_text("".join(f"{label}\n" for label in photo_set.classes))
    return Lists(folder, str(list_path), str(dict_path), tuple(rows))
