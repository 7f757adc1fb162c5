from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from cloud import images_to_json
from configs.errors import InputError
from preprocess.images.decode import decode_image
from tests.support.classifiers import jpeg


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


@pytest.mark.parametrize("flags", [["-r"], ["--resize", "--image_size", "224"]])
def test_small_photos_are_the_pixels_of_the_network(photos, tmp_path, flags):
    output = str(tmp_path / "request.json")
    assert images_to_json.main([*photos, "--output", output, *flags]) == 0
    size = 224 if "224" in flags else 299
    for (_, content), path in zip(read(output), photos, strict=True):
        with open(path, "rb") as stream:
            np.testing.assert_array_equal(decode_image(content, size=size), decode_image(stream.read(), size=size))


def test_it_prints_without_a_file(photos, capsys):
    assert images_to_json.main(photos) == 0
    assert len(json.loads(capsys.readouterr().out)["instances"]) == 2


def test_a_request_that_is_too_large_is_said(tmp_path, capsys):
    path = tmp_path / "large.bmp"
    path.write_bytes(jpeg(0, (800, 700), format="BMP"))
    assert images_to_json.main([str(path), "-o", str(tmp_path / "a.json")]) == 0
    assert "-r makes photos smaller" in capsys.readouterr().err


def test_what_is_wrong_is_one_line_and_writes_nothing(photos, tmp_path):
    output = tmp_path / "request.json"
    (tmp_path / "notes.jpg").write_text("no photo")
    for bad, words in (("notes.jpg", r"notes.jpg: .*\(not_an_image\)"), ("none.jpg", "cannot be read")):
        with pytest.raises(InputError, match=words):
            images_to_json.main([*photos, str(tmp_path / bad), "-o", str(output)])
    assert not output.exists()
    with pytest.raises(InputError, match="--output: .* cannot be written"):
        images_to_json.main([*photos, "-o", str(tmp_path / "none" / "a.json")])
