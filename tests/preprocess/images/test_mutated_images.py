"""Whatever bytes come: pixels or an ImageError, from the very process that a pipeline decodes in."""

import collections
import typing

import numpy as np
import pytest

from preprocess.images.decode import IMAGE_SIZE, ImageError, ImageErrorReason
from preprocess.images.isolated_decoder import IsolatedDecoder
from tests.support.image_corpus import encode, photo
from tests.support.mutated_corpus import MUTATIONS, bombs, mutated, png_of_zeros, small_images

REASONS = typing.get_args(ImageErrorReason)


def outcome_of(decoder, data):
    """`pixels`, or the reason; any other exception passes."""
    try:
        pixels = decoder(data)
    except ImageError as error:
        assert error.reason in REASONS
        assert error.message and "\n" not in error.message
        return error.reason
    assert pixels.shape == (IMAGE_SIZE, IMAGE_SIZE, 3) and pixels.dtype == np.uint8
    return "pixels"


@pytest.fixture(scope="module")
def outcomes():
    decoder = IsolatedDecoder(max_pixels=1 << 22, deadline_sec=20)
    return {name: outcome_of(decoder, data) for name, data in mutated()}


def test_every_mutation_ends_as_pixels_or_a_reason(outcomes):
    assert len(outcomes) > 500
    counts = collections.Counter(outcomes.values())
    # Damage is found and intact files pass; no decoder crashes or hangs on any of these.
    assert counts["pixels"] > 100 and counts["corrupt"] > 30 and counts["truncated"] > 30
    assert not {"decoder_crashed", "deadline"} & set(counts), {
        name: outcome for name, outcome in outcomes.items() if outcome in ("decoder_crashed", "deadline")
    }


def test_each_kind_of_mutation_is_noticed(outcomes):
    for kind in MUTATIONS:
        assert {outcome for name, outcome in outcomes.items() if f" {kind} " in name} - {"pixels"}, kind


def test_intact_files_decode(outcomes):
    assert {outcomes[f"{name} intact"] for name in small_images()} == {"pixels"}


def test_bombs_end_as_a_reason():
    decoder = IsolatedDecoder(deadline_sec=20)
    for name, (data, reason) in bombs().items():
        outcome = outcome_of(decoder, data)
        assert outcome == reason or (reason is None and outcome != "deadline"), (name, outcome)


def test_large_images_that_are_legal_decode():
    decoder = IsolatedDecoder()
    assert outcome_of(decoder, encode(photo(30_000, 200, "L"), "JPEG")) == "pixels"
    assert outcome_of(decoder, png_of_zeros(10_900, 11_000)) == "pixels"
