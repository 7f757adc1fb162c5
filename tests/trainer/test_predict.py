from __future__ import annotations

import errno
import functools
import json
import os
import shutil
import signal

import keras
import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from preprocess.images.decode import IMAGE_SIZE
from preprocess.images.isolated_decoder import IsolatedDecoder
from preprocess.images.loader import ImageLoader
from preprocess.storage.retry import RetryPolicy
from tests.support.programs import start_program
from trainer import photo_reader, predict
from trainer.export.saved_model import save_model
from trainer.training.head import build_head

pytestmark = pytest.mark.usefixtures("models_loaded_once")

COLOURS = ("red", "green", "blue")

# Of a best score; a photo of one plain colour is surer than that, and a grey one is not.
THRESHOLD = 0.9


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory, mean_colour_identity):
    """A model that answers with the strongest colour."""
    backbone = keras.Sequential(
        [keras.layers.Input((IMAGE_SIZE, IMAGE_SIZE, 3)), keras.layers.GlobalAveragePooling2D()]
    )
    head = build_head(embedding_size=3, num_classes=3, hidden_units=0, seed=0, mean_and_variance=None)
    head.set_weights([np.eye(3, dtype=np.float32) * 5, np.zeros(3, np.float32)])
    path = str(tmp_path_factory.mktemp("training") / "model")
    save_model(path, backbone=backbone, head=head, labels=COLOURS, identity=mean_colour_identity, threshold=THRESHOLD)
    return path


@pytest.fixture
def photos(tmp_path):
    paths = []
    for name, colour in (
        ("red.tiff", (230, 60, 60)),
        ("green.jpg", (60, 230, 60)),
        ("blue.png", (60, 60, 230)),
    ):
        path = str(tmp_path / name)
        Image.new("RGB", (400, 300), colour).save(path)
        paths.append(path)
    return paths


def test_photos_get_their_labels_best_first(model_dir, photos, capsys):
    assert predict.main(["--model_dir", model_dir, *photos, "--top_k", "2"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[::3] == photos
    assert [line.split()[-1] for line in lines[1::3]] == ["red", "green", "blue"]
    assert "RANDOM weights" in printed.err


def test_a_photo_below_the_threshold_is_said_to_be_unsure(model_dir, photos, tmp_path, capsys):
    grey = str(tmp_path / "grey.png")
    Image.new("RGB", (400, 300), (120, 125, 130)).save(grey)
    assert predict.main(["--model_dir", model_dir, grey, photos[0]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::4] == [f"{grey}  (not sure: no score reaches 90.0%)", photos[0]]
    assert predict.main(["--model_dir", model_dir, grey, photos[0], "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["confident"] for answer in answers] == [False, True]
    assert {answer["threshold"] for answer in answers} == {THRESHOLD}


def test_json_is_one_object_a_line(model_dir, photos, capsys):
    assert predict.main(["--model_dir", model_dir, *photos, "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["image"] for answer in answers] == photos
    assert [answer["predictions"][0]["label"] for answer in answers] == ["red", "green", "blue"]
    for answer in answers:
        scores = [prediction["score"] for prediction in answer["predictions"]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert answer["random_weights"] is True
        assert answer["backbone_verified"] is True


def test_bad_photos_are_told_and_good_ones_answered(model_dir, photos, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("not an image")
    bad = [str(tmp_path / name) for name in ("missing.jpg", "text.jpg", "no_ending")]
    assert predict.main(["--model_dir", model_dir, bad[0], photos[0], *bad[1:]]) == 2
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == photos[0]
    errors = [line for line in printed.err.splitlines() if line.startswith("error:")]
    assert [path in line for path, line in zip(bad, errors, strict=True)] == [True] * 3


def test_folders_globs_and_lists_stand_for_their_photos(model_dir, photos, tmp_path, capsys):
    folder = tmp_path / "more" / "below"
    folder.mkdir(parents=True)
    for path in photos[1:]:
        shutil.copy(path, folder)
    (folder / "notes.md").write_text("no photo")
    (tmp_path / "list.csv").write_text(f"red.tiff,red,blue\n\n{photos[2]}\n")
    names = [str(tmp_path / "more"), str(tmp_path / "r*.tiff"), str(tmp_path / "list.csv")]
    assert predict.main(["--model_dir", model_dir, "--json", *names]) == 0
    answered = [json.loads(line)["image"] for line in capsys.readouterr().out.splitlines()]
    inside = [str(folder / name) for name in ("blue.png", "green.jpg")]
    assert answered == [*inside, photos[0], photos[0], photos[2]]


@pytest.mark.parametrize(
    ("name", "message"),
    [("empty", "no photo in the folder"), ("no*.png", "nothing matches"), ("bad.csv", "cannot be read")],
)
def test_a_folder_glob_or_list_without_photos_is_one_line(model_dir, tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        predict.main(["--model_dir", model_dir, str(tmp_path / name)])


def test_a_photo_that_crashes_its_decoder_costs_its_own_answer(model_dir, photos, tmp_path, capsys, monkeypatch):
    hostile = functools.partial(IsolatedDecoder, _module="tests.support.hostile_worker")
    (tmp_path / "crash.jpg").write_bytes(b"crash")
    with monkeypatch.context() as patch:
        patch.setattr(photo_reader, "IsolatedDecoder", hostile)
        assert predict.main(["--model_dir", model_dir, str(tmp_path / "crash.jpg"), photos[0]]) == 2
    printed = capsys.readouterr()
    assert "crash.jpg: the decoder ended with signal SIGSEGV (decoder_crashed)" in printed.err
    assert photos[0] in printed.out


def test_photos_without_an_end_and_names_that_cannot_be_are_one_line(model_dir, capsys):
    assert predict.main(["--model_dir", model_dir, "/dev/zero", "a\0.jpg"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: /dev/zero is a pipe or a device")
    assert lines[1].startswith("error: a\0.jpg: 'a\\x00.jpg': embedded null byte")


def test_a_model_that_is_not_there(tmp_path, photos):
    with pytest.raises(InputError, match="there is no folder"):
        predict.main(["--model_dir", str(tmp_path / "nowhere"), photos[0]])
    with pytest.raises(InputError, match="holds no model"):
        predict.main(["--model_dir", str(tmp_path), photos[0]])


def test_a_model_in_a_folder_whose_name_is_no_utf_8(tmp_path, photos):
    with pytest.raises(InputError, match=r"^--model_dir is not UTF-8: .*m.udcff. .byte 0xff."):
        predict.main(["--model_dir", str(tmp_path / "m\udcff"), photos[0]])


def test_the_folder_above_the_model_is_a_usual_slip(model_dir, photos):
    with pytest.raises(InputError, match=r"Did you mean .*training.*/model\?"):
        predict.main(["--model_dir", os.path.dirname(model_dir), photos[0]])


def test_half_a_model(model_dir, photos, tmp_path):
    half = str(tmp_path / "half")
    shutil.copytree(model_dir, half, ignore=shutil.ignore_patterns("variables"))
    with pytest.raises(InputError, match="cannot be loaded"):
        predict.main(["--model_dir", half, photos[0]])


@pytest.mark.parametrize("arguments", [["--top_k", "0"], ["--top_k", "x"], ["--tpo_k", "3"]])
def test_bad_arguments(tmp_path, photos, arguments):
    with pytest.raises(InputError, match="--t"):
        predict.main(["--model_dir", str(tmp_path), photos[0], *arguments])


def test_equal_scores_stand_in_order_of_ids():
    from trainer.export.classifier import Prediction

    prediction = Prediction(label="a", label_id=0, scores=np.array([0.25, 0.5, 0.25], np.float32))
    assert [label for label, _, _ in prediction.top(("a", "b", "c"), 3)] == ["b", "a", "c"]


def grey_photos(folder, number):
    paths = [str(folder / f"{i:05}.png") for i in range(number)]
    for i, path in enumerate(paths):
        Image.new("RGB", (32, 32), (i % 256, 0, 0)).save(path)
    return paths


def test_a_result_is_printed_before_the_next_photo_is_there(model_dir, tmp_path):
    """One photo never comes, as from a bucket that hangs: the results before it do not wait."""
    photos = grey_photos(tmp_path, 3)
    missing, slow = str(tmp_path / "missing.png"), str(tmp_path / "slow.png")
    flags, shown = ["--json", "--model_dir", model_dir], {"HUGS_PROGRESS": ""}
    process = start_program(
        ["-m", "tests.support.slow_predict", slow, *flags, *photos, missing, slow, photos[0]], shown, tensorflow=True
    )
    try:
        lines = [json.loads(process.stdout.readline())["image"] for _ in photos]
        assert lines == photos
        for expected in ("missing.png", "predicting: 4 of 6 photos (67 %)"):
            while expected not in process.stderr.readline():
                pass
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert not stdout
    assert stderr.splitlines()[-1] == (
        "interrupted. 3 of 6 photos have their answers above. The same command begins with the first photo again."
    )


def test_as_many_photos_as_you_like_are_answered_with_bounded_memory(model_dir, tmp_path, capsys, monkeypatch):
    photos = grey_photos(tmp_path, 300)
    (tmp_path / "bad.png").write_text("not an image")
    photos[150:150] = [str(tmp_path / "bad.png"), str(tmp_path / "missing.png")]
    most = 0

    def noticing(self):
        nonlocal most
        most = max(most, len(self._ahead))
        return next_of(self)

    next_of = ImageLoader.next
    monkeypatch.setattr(ImageLoader, "next", noticing)
    assert predict.main(["--model_dir", model_dir, "--json", *photos]) == 2
    printed = capsys.readouterr()
    answered = [json.loads(line)["image"] for line in printed.out.splitlines()]
    assert answered == [path for path in photos if "bad" not in path and "missing" not in path]
    errors = [line for line in printed.err.splitlines() if line.startswith("error:")]
    assert [name in line for name, line in zip(("bad", "missing"), errors, strict=True)] == [True, True]
    assert 0 < most <= 64


def test_a_machine_that_cannot_read_stops_after_some_photos(model_dir, capsys, monkeypatch):
    def broken(location):
        raise OSError(errno.EIO, "Input/output error", location)

    monkeypatch.setattr(photo_reader, "read_photo", broken)
    monkeypatch.setitem(ImageLoader.__init__.__kwdefaults__, "try_again", RetryPolicy(limit_sec=0))
    with pytest.raises(InputError, match="8 photos in a row could not be read .* so 2 photos after them were not"):
        predict.main(["--model_dir", model_dir, *(f"{i}.jpg" for i in range(10))])
    assert capsys.readouterr().err.count("error: ") == 8
