import numpy as np
import pytest
from PIL import Image

from preprocess.images.perceptual_hash import HASH_BYTES, mirrored, perceptual_hashes


def photo(side, seed=0):
    """Smooth random patches, as a network takes them: uint8 [side, side, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def distance(one, other):
    return int(np.bitwise_count(one ^ other).astype(int).sum())


def hash_of(pixels):
    return perceptual_hashes(np.asarray(pixels)[np.newaxis])[0]


@pytest.mark.parametrize("side", [1, 5, 31, 32, 33, 64, 96, 128, 224, 299, 380])
def test_the_hash_of_a_mirrored_image_follows_from_the_hash(side):
    pixels = np.random.default_rng(side).integers(0, 256, (3, side, side, 3), np.uint8)
    hashes = perceptual_hashes(pixels)
    assert hashes.shape == (3, HASH_BYTES) and hashes.dtype == np.uint8
    found = perceptual_hashes(np.ascontiguousarray(pixels[:, :, ::-1]))
    if side > 16:
        np.testing.assert_array_equal(found, mirrored(hashes))
    np.testing.assert_array_equal(mirrored(mirrored(hashes)), hashes)


def test_the_bits_do_not_depend_on_the_other_images_of_the_batch():
    pixels = np.stack([photo(64, seed) for seed in range(21)])
    hashes = perceptual_hashes(pixels)
    for row in range(len(pixels)):
        np.testing.assert_array_equal(hashes[row], hash_of(pixels[row]))
    np.testing.assert_array_equal(perceptual_hashes(pixels[::-1]), hashes[::-1])
    assert perceptual_hashes(pixels[:0]).shape == (0, HASH_BYTES)


def test_the_bits_stay_what_they_are():
    """A change of them must change HASH_NAME, since hashes of two kinds cannot be compared."""
    assert hash_of(photo(224)).tobytes().hex() == "0e73cd4ab837850ec81f850ea7a4d84b71a47da44de023a4ba1f825b8e5b27a4"


def test_copies_are_near_and_other_photos_are_far():
    original = photo(299)
    image = Image.fromarray(original)
    copies = {
        "smaller": np.asarray(image.resize((150, 150), Image.Resampling.LANCZOS)),
        "brighter": np.clip(original * 1.2 + 4, 0, 255).astype(np.uint8),
        "noise": np.clip(original + np.random.default_rng(1).normal(0, 8, original.shape), 0, 255).astype(np.uint8),
    }
    found = hash_of(original)
    assert {name: distance(hash_of(copy), found) < 40 for name, copy in copies.items()} == dict.fromkeys(copies, True)
    others = [hash_of(photo(299, seed)) for seed in range(1, 50)]
    assert min(min(distance(other, found), distance(other, mirrored(found))) for other in others) > 80


def test_an_image_of_one_colour_has_no_hash():
    for side, colour in ((224, (0, 0, 0)), (299, (255, 255, 255)), (97, (12, 200, 77))):
        assert not hash_of(np.full((side, side, 3), colour, np.uint8)).any()


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4, 1), np.uint8), np.zeros((1, 4, 4, 3), np.float32)]
)
def test_other_arrays_are_refused(pixels):
    with pytest.raises(ValueError, match="pixels must be uint8"):
        perceptual_hashes(pixels)
