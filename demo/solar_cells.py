"""The demo's photographs: solar cells with and without defects, from the package `elpv-dataset`.

They are electroluminescence photographs of single cells, 300 x 300 pixels, gray (Deitsch et al., 2019,
https://doi.org/10.1016/j.solener.2019.02.067; CC BY-NC-SA 4.0). The project does not contain them: pip installs them
for the person who runs the demo.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import pathlib
import shutil

NAME = "solar cells"
PHOTOS = 1000


def make_class_folders(target: pathlib.Path) -> None:
    """Copies the photographs into `target/functional` and `target/defective`.

    It always copies the same photographs: those whose names have the smallest hashes.

    Raises:
      ModuleNotFoundError: the package is not installed.
    """
    data = importlib.resources.files("elpv_dataset") / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    # The annotators gave each cell a probability of a defect. Cells about which they were not sure (1/3, 2/3) are left
    # out.
    sure = [(path, float(probability)) for path, probability, _ in rows if float(probability) in (0.0, 1.0)]
    sure.sort(key=lambda row: hashlib.sha256(row[0].encode()).digest())
    for path, probability in sure[:PHOTOS]:
        folder = target / ("defective" if probability else "functional")
        folder.mkdir(parents=True, exist_ok=True)
        with (data / path).open("rb") as source, (folder / pathlib.PurePath(path).name).open("wb") as copy:
            shutil.copyfileobj(source, copy)
