from __future__ import annotations

import dataclasses
import json

import pytest

from configs.errors import InputError
from trainer.model_info import ModelInfo


@pytest.fixture
def info(mean_colour_identity):
    return ModelInfo(labels=("a", "ü"), backbone=mean_colour_identity, head_digest="sha256:00")


def test_round_trip(info):
    assert ModelInfo.from_bytes(json.dumps(info.to_json()).encode(), where="x") == info


def test_only_random_weights_are_warned_of(info, mean_colour_identity):
    assert "RANDOM" in info.warning
    trained = dataclasses.replace(mean_colour_identity, weights="imagenet", seed=None)
    assert dataclasses.replace(info, backbone=trained).warning is None


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"format": 9}', b"\xff", b'{"format": 1, "labels": ["a"]}'])
def test_anything_else_is_refused_with_its_place(raw):
    with pytest.raises(InputError, match=r"^here/model\.json: "):
        ModelInfo.from_bytes(raw, where="here/model.json")
