from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from cloud import images_to_json
from configs.errors import InputError
from preprocess.images.decode import decode_image
from preprocess.images.definition import ImageDefinition
from preprocess.records.backbone_identity import BackboneIdentity
from tests.support.classifiers import jpeg
from trainer.export.model_info import MODEL_INFO_PATH, ModelInfo


@pytest.fixture
def photos(tmp_path):
    paths = [tmp_path / "Grüße.jpg", tmp_path / "b.png"]
    paths[0].write_bytes(jpeg(0, (800, 600)))
    paths[1].write_bytes(jpeg(1, format="PNG"))
    return list(map(str, paths))


def read(path):
    with open(path, encoding="utf-8") as stream:
        instances = json.load(stream)["instances"]
    return [(one["key"], base64.b64decode(one["image_bytes"]["b64"])) for one in instances]


def test_photos_are_written_as_they_are(photos, tmp_path):
    output = str(tmp_path / "request.json")
    assert images_to_json.main([*photos, "-o", output]) == 0
    for (key, content), path in zip(read(output), photos, strict=True):
        assert key == path
        with open(path, "rb") as stream:
            assert content == stream.read()


def write_model(folder, *, size=160, takes_images=True):
    """A model as far as this program reads it: its description."""
    image = ImageDefinition(size=size)
    backbone = BackboneIdentity(
        architecture="tiny",
        weights="random",
        seed=0,
        weights_digest="sha256:0",
        embedding_size=8,
        image_definition=image.name,
    )
    info = ModelInfo(labels=("a", "b"), backbone=backbone, head_digest="sha256:0", takes_images=takes_images)
    path = folder / MODEL_INFO_PATH
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(info.to_json()))
    return str(folder)


@pytest.mark.parametrize("size", [160, 224, 299, 380])
@pytest.mark.parametrize("told_by", ["image_size", "model", "folder above"])
def test_small_photos_are_the_pixels_of_the_network(photos, tmp_path, size, told_by):
    output = str(tmp_path / "request.json")
    write_model(tmp_path / "training" / "model", size=size)
    folder = tmp_path / "training" if told_by == "folder above" else tmp_path / "training" / "model"
    flags = ["--image_size", str(size)] if told_by == "image_size" else ["--model_dir", str(folder)]
    assert images_to_json.main([*photos, "--output", output, "-r", *flags]) == 0
    for (_, content), path in zip(read(output), photos, strict=True):
        with open(path, "rb") as stream:
            pixels = np.asarray(Image.open(io.BytesIO(content)))
            np.testing.assert_array_equal(pixels, decode_image(stream.read(), size=size))


def test_a_size_that_the_network_does_not_take_is_refused(photos, tmp_path):
    model, head = write_model(tmp_path / "model"), write_model(tmp_path / "head", takes_images=False)
    for flags, words in (
        (["-r"], "^--resize: the network decides the size"),
        (["--image_size", "224"], "^--image_size: it is used with --resize"),
        (["--model_dir", model], "^--model_dir: it is used with --resize"),
        (["-r", "--model_dir", model, "--image_size", "299"], "takes 160. Received: 299"),
        (["-r", "--model_dir", head], "takes embeddings and no photos"),
        (["-r", "--model_dir", str(tmp_path / "none")], "holds no model that `hugs train` wrote"),
        (["-r", "--image_size", "0"], "--image_size must be a whole number from 8 to 1024"),
    ):
        with pytest.raises(InputError, match=words):
            images_to_json.main([*photos, *flags])


def test_it_prints_without_a_file(photos, capsys):
    assert images_to_json.main(photos) == 0
    assert len(json.loads(capsys.readouterr().out)["instances"]) == 2


def test_a_request_that_is_too_large_is_said(tmp_path, capsys):
    path = tmp_path / "large.bmp"
    path.write_bytes(jpeg(0, (800, 700), format="BMP"))
    assert images_to_json.main([str(path), "-o", str(tmp_path / "a.json")]) == 0
    assert "-r --model_dir MODEL makes photos smaller" in capsys.readouterr().err


def test_what_is_wrong_is_one_line_and_writes_nothing(photos, tmp_path):
    output = tmp_path / "request.json"
    (tmp_path / "notes.jpg").write_text("no photo")
    for bad, words in (("notes.jpg", r"notes.jpg: .*\(not_an_image\)"), ("none.jpg", "cannot be read")):
        with pytest.raises(InputError, match=words):
            images_to_json.main([*photos, str(tmp_path / bad), "-o", str(output)])
    assert not output.exists()
    with pytest.raises(InputError, match="--output: .* cannot be written"):
        images_to_json.main([*photos, "-o", str(tmp_path / "none" / "a.json")])


@pytest.mark.parametrize("output", ["b.png", "new.JPG", "link"])
def test_the_request_replaces_no_photo(photos, tmp_path, output):
    (tmp_path / "link").symlink_to(photos[1])
    with open(photos[1], "rb") as stream:
        before = stream.read()
    with pytest.raises(InputError, match="--output: .* is a photo, or has the name of one"):
        images_to_json.main([*photos, "-o", str(tmp_path / output)])
    with open(photos[1], "rb") as stream:
        assert stream.read() == before
