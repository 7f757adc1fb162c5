from __future__ import annotations

import csv
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from demo import run as demo
from pipelines import ingest, preproc
from tests.pipelines.conftest import engine  # noqa: F401 (a fixture)
from tests.support.makefile import copy_makefile


@pytest.fixture
def workflow(tmp_path, monkeypatch, engine):  # noqa: F811
    """The demo with a stand-in engine, a trainer that only writes metrics, and the photos that it predicted."""
    predicted: list[str] = []
    photo_metrics = {"accuracy": 1.0, "examples": 2, "majority_class": "a", "majority_share": 0.5}
    metrics = {"eval": photo_metrics, "backbone": {"random_weights": True}}

    def run(module: str, *arguments: str) -> None:
        if module == "trainer.task":
            training = pathlib.Path(arguments[arguments.index("--output_path") + 1])
            training.mkdir(parents=True, exist_ok=True)
            (training / "metrics.json").write_text(json.dumps(metrics))
            return
        main = {"pipelines.ingest": ingest.main, "pipelines.preproc": preproc.main}[module]
        assert main(arguments) == 0

    def predict(model: pathlib.Path, photo: str) -> dict:
        predicted.append(photo)
        Image.open(photo).load()
        return {"image": photo, "predictions": [{"label": "a", "score": 0.75}], "confident": False, "threshold": 0.9}

    monkeypatch.setattr(demo, "__file__", str(tmp_path / "demo" / "run.py"))
    monkeypatch.setattr(demo, "_run", run)
    monkeypatch.setattr(demo, "_prediction", predict)
    monkeypatch.setattr(demo, "_choose_backbone", lambda weights: ["--weights", "random"])
    monkeypatch.setattr(demo, "confusion_table", lambda result: "")
    return predicted


def make_photos(folder: pathlib.Path, each: int = 12) -> pathlib.Path:
    for number, label in enumerate("ab"):
        (folder / label).mkdir(parents=True)
        for photo in range(each):
            pixels = np.full((8, 8, 3), 20 * photo + number, np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{label}{photo}.png")
    return folder


def first_test_photo(tmp_path: pathlib.Path) -> pathlib.Path:
    (path,) = (tmp_path / "demo" / "out").glob("*/data/test.csv")
    uri, _ = next(csv.reader(path.read_text().splitlines()))
    return path.parent / uri


def test_photos_that_cannot_be_read_and_odd_links_are_no_reason_to_stop(tmp_path, capsys, workflow):
    photos = make_photos(tmp_path / 'photos [2023], `a"b')
    demo.main(["--image_dir", str(photos)])
    broken = first_test_photo(tmp_path).resolve()
    broken.write_bytes(b"no image")
    (photos / "a" / "gone.png").symlink_to("nowhere")
    (photos / "b" / "self.png").symlink_to("self.png")
    capsys.readouterr()
    assert demo.main(["--image_dir", str(photos)]) == 0
    first, second = map(os.path.realpath, workflow)
    assert first == str(broken) != second
    said = capsys.readouterr().out
    assert "failed.jsonl" in said and "demo: done" in said
    last = [line.split()[1:3] for line in said.splitlines() if line.startswith("next:")]
    programs = [name for program, name in last if os.path.basename(program) == "hugs"]
    assert programs[-5:] == ["serve", "predict", "audit", "twins", "map"]
    assert f"{workflow[1]}: a (75.0%, NOT SURE: below its threshold of 90.0%); its folder says" in said
    assert not [path for path in (tmp_path / "demo" / "out").iterdir() if set(path.name) & set('[],*? `"')]


def test_what_changed_is_embedded_anew_and_nothing_else(tmp_path, capsys, workflow):
    photos = make_photos(tmp_path / "photos")
    for _ in range(2):
        assert demo.main(["--image_dir", str(photos)]) == 0
    assert "are already in" in capsys.readouterr().out
    Image.new("RGB", (9, 9)).save(photos / "a" / "a1.png")
    assert demo.main(["--image_dir", str(photos)]) == 0
    assert "are already in" not in capsys.readouterr().out


def test_the_limit_of_failures_can_be_set(tmp_path, workflow):
    photos = make_photos(tmp_path / "photos")
    demo.main(["--image_dir", str(photos)])
    first_test_photo(tmp_path).resolve().write_bytes(b"no image")  # One of two photos: 50 % of the list.
    with pytest.raises((InputError, AssertionError)):
        demo.main(["--image_dir", str(photos), "--max_failed_percent", "40"])
    assert demo.main(["--image_dir", str(photos)]) == 0


def test_a_prediction_that_fails_still_ends_with_a_summary(tmp_path, capsys, workflow, monkeypatch):
    monkeypatch.setattr(demo, "_prediction", lambda model, photo: None)
    assert demo.main(["--image_dir", str(make_photos(tmp_path / "photos"))]) == 2
    said = capsys.readouterr().out
    assert "eval  accuracy 100.0%" in said and "did not predict" in said


_EVALUATION = {"accuracy": 0.75, "examples": 4, "majority_class": "a", "majority_share": 0.5}


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (None, ["eval  accuracy 75.0% on 4 photos that no other set has (always"]),
        (
            {"accuracy": 1.0, "examples": 1, "left_out": 3, "labels_differ": 1},
            [
                "eval  accuracy 100.0% on 1 photo that no other set has",
                "with the 3 that other sets have too, 1 of them with another label: 75.0% on 4 photos (always",
            ],
        ),
        ({"accuracy": None, "examples": 0, "left_out": 4}, ["eval  all its photos are in other sets too"]),
    ],
)
def test_the_accuracy_is_that_on_photos_that_no_other_set_has(rest, expected):
    result = _EVALUATION if rest is None else _EVALUATION | {"without_shared_images": rest}
    lines = demo.accuracy_lines("eval", result)
    assert len(lines) == len(expected)
    assert all(words in line for words, line in zip(expected, lines, strict=True))


def test_a_copy_of_a_training_photo_is_not_the_photo_that_is_asked_about(tmp_path, workflow):
    photos = make_photos(tmp_path / "photos")
    demo.main(["--image_dir", str(photos)])
    (training,) = (tmp_path / "demo" / "out").glob("*/*/training")
    uri = os.path.relpath(workflow[-1], training.parents[1] / "data")
    (training / "shared_images.csv").write_text(f"set,uri\neval,none.png\ntest,{uri}\n")
    demo.main(["--image_dir", str(photos)])
    assert workflow[0] != workflow[1]


@pytest.mark.parametrize(
    ("label", "confident", "words"),
    [
        ("a", True, "x.png: a (62.0%); its folder says the same"),
        ("b", True, "x.png: a (62.0%); its folder says b, so it is wrong"),
        ("b", False, "x.png: a (62.0%, NOT SURE: below its threshold of 90.0%); its folder says b, so it is wrong"),
    ],
)
def test_an_answer_that_is_not_confident_or_wrong_says_so(label, confident, words):
    prediction = {"image": "x.png", "predictions": [{"label": "a", "score": 0.62}], "confident": confident}
    assert demo.answer_line(prediction | {"threshold": 0.9}, label) == words


def test_what_the_prediction_says_is_shown_as_it_is_meant(monkeypatch, capfd):
    script = "import sys; print('{\"image\": \"\u00e9.jpg\"}'); print('loading \u2026', file=sys.stderr)"
    monkeypatch.setattr(demo, "module_words", lambda module: [sys.executable, "-c", script])
    assert demo._prediction(pathlib.Path("model"), "photo.jpg") == {"image": "\u00e9.jpg"}
    said = capfd.readouterr()
    assert "\u00e9.jpg" in said.out and said.err == "loading \u2026\n"


def test_a_folder_that_is_not_there(tmp_path):
    (tmp_path / "link").symlink_to("link")
    for name in ("link", "nowhere"):
        with pytest.raises(InputError, match="^DATA: there is no folder"):
            demo.main(["--image_dir", str(tmp_path / name)])


@pytest.mark.parametrize("name", ["photos [2023]", 'a"b', "it's", "`touch x`", "a;b"])
def test_make_demo_gives_the_folder_to_the_program_as_it_is(tmp_path, name):
    copy_makefile(tmp_path)
    command = ["make", "-n", "demo", f"DATA={name}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if "demo.run" in line)
    # What make would run, with a program that prints its arguments in the interpreter's place.
    script = "printf '%s\\n' " + line.partition(" ")[2]
    environment = os.environ | {"DATA": name}
    shown = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == ["-m", "demo.run", "--image_dir", name]
