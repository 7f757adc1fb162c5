from __future__ import annotations

import numpy as np

from trainer.data.photo_statistics import PHOTO_STATISTICS, photo_statistics


def named(pixels):
    return dict(zip(PHOTO_STATISTICS, photo_statistics(pixels.astype(np.uint8)), strict=True))


def a_photo():
    random = np.random.default_rng(0)
    smooth = np.kron(random.integers(40, 200, (8, 8, 3)), np.ones((8, 8, 1)))
    smooth[..., 0] += 30
    return smooth


def test_each_change_of_a_photo_changes_the_number_that_is_named_after_it():
    photo = a_photo()
    of = named(photo)
    darker, swapped, grey = (
        named(photo * 0.5),
        named(photo[..., ::-1]),
        named(photo.mean(axis=2, keepdims=True) + [0] * 3),
    )
    assert darker["brightness"] < 0.52 * of["brightness"]
    assert all(abs(darker[name] - of[name]) < 0.05 for name in PHOTO_STATISTICS if name != "brightness")
    assert np.isclose(swapped["warmth"], -of["warmth"], rtol=0.1) and of["warmth"] > 0.1
    assert grey["colourfulness"] == 0 < of["colourfulness"]
    blurred = sum(np.roll(photo, shift, axis) for shift in (-2, -1, 0, 1, 2) for axis in (0, 1)) / 10
    assert named(blurred)["sharpness"] < of["sharpness"] - 0.3
    green = photo.copy()
    green[..., 1] = np.minimum(255, green[..., 1] + 50)
    assert named(green)["greenness"] > of["greenness"] + 0.1


def test_photos_of_one_colour_have_finite_numbers():
    for level in (0, 255):
        assert np.isfinite(photo_statistics(np.full((32, 32, 3), level, np.uint8))).all()
