"""The benchmark of isolation at toy size."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import hostile
from preprocess.images.decode import ImageError, decode_image


def test_bombs_are_what_they_are_called(monkeypatch):
    monkeypatch.setattr(hostile, "_SIDES_BELOW", (230, 330))
    monkeypatch.setattr(hostile, "_SIDES_ABOVE", (330, 230 + 101))
    for name, data in hostile.make_bombs().items():
        if name.startswith("below"):
            assert decode_image(data, max_pixels=230 * 330).max() == 0
        else:
            with pytest.raises(ImageError, match="too_many_pixels"):
                decode_image(data, max_pixels=230 * 330)


def test_hostile(tmp_path, capsys):
    folder = tmp_path / "cats"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (60, 80, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    assert hostile.main(["--photos", str(tmp_path), "--quick"]) == 0
    out = capsys.readouterr().out
    assert "'image': 23, 'too_many_pixels': 3" in out
    memory, overhead, rate = json.loads(out.splitlines()[-1])["rows"]
    assert memory["met"]
    assert overhead["ours"].endswith(" ms")
    assert rate["ratio"] > 0
