"""The notebooks: their code runs, cell by cell, on tiny data and without Jupyter, and they hold no outputs."""

import json
import pathlib

import pytest
from PIL import Image

from tests.support import tiny_network
from tests.support.photos import write_photos
from trainer import task

FOLDER = pathlib.Path(__file__).parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells_of(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def run(name, **parameters):
    """Runs the code of a notebook; `parameters` replace those of its first cell. Gives its variables."""
    variables = {"__name__": "__main__"}
    replaced = 0
    for number, cell in enumerate(cells_of(FOLDER / name)):
        if cell["cell_type"] != "code":
            continue
        exec(compile("".join(cell["source"]), f"{name}:{number}", "exec"), variables)
        if "parameters" in cell["metadata"].get("tags", ()):
            assert set(parameters) <= set(variables)
            variables |= parameters
            replaced += 1
    assert replaced == 1
    return variables


def test_there_are_two():
    assert [path.name for path in NOTEBOOKS] == ["look_at_predictions.ipynb", "look_at_the_network.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_are_notebooks_without_outputs(path):
    data = json.loads(path.read_text(encoding="utf-8"))
    assert (data["nbformat"], data["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in data["cells"]}) == len(data["cells"])
    for cell in data["cells"]:
        assert cell["cell_type"] in ("code", "markdown")
        if cell["cell_type"] == "code":
            assert (cell["execution_count"], cell["outputs"]) == (None, [])
    assert "/home/" not in path.read_text(encoding="utf-8")


def test_look_at_the_network(tmp_path, monkeypatch, capsys):
    tiny_network.install(monkeypatch)
    photo = str(tmp_path / "photo.jpg")
    Image.linear_gradient("L").convert("RGB").save(photo)
    found = run(
        "look_at_the_network.ipynb",
        BACKBONE=tiny_network.NAME,
        WEIGHTS="random",
        PHOTO=photo,
        LOG_DIR=str(tmp_path / "logs"),
    )
    printed = capsys.readouterr().out
    assert f"{tiny_network.build().count_params():,} parameters" in printed
    assert "an embedding of 24 numbers" in printed
    assert found["filters"].size == (8 * 50, 50)
    assert len(found["seen"]) == 2
    assert [*(tmp_path / "logs" / "network").glob("events.out.tfevents.*")]


def test_look_at_predictions(tmp_path, task_arguments, mean_colour_backbone, capsys):
    task.main([*task_arguments, "--write_predictions"])
    (tmp_path / "photos").mkdir()
    write_photos(tmp_path / "photos", 3, side=40)
    photos = sorted(map(str, (tmp_path / "photos").glob("*.png")))
    # A photo that was labelled wrongly.
    table = tmp_path / "training" / "predictions.csv"
    lines = table.read_text().splitlines(keepends=True)
    cells = lines[1].split(",")
    cells[2:5] = ["green" if cells[3] != "green" else "red", cells[3], "0"]
    table.write_text("".join([lines[0], ",".join(cells), *lines[2:]]))
    capsys.readouterr()
    found = run("look_at_predictions.ipynb", TRAINING=str(tmp_path / "training"), PHOTOS=photos)
    printed = capsys.readouterr().out
    assert all(f"{photo}: " in printed for photo in photos)
    assert "1 of 30 are wrong" in printed
    assert f"{cells[2]} was taken for {cells[3]}" in printed
    assert len(found["predictions"]) == len(photos) == 3
    assert found["sheet"].size == (640, 176)
