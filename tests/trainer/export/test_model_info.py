from __future__ import annotations

import dataclasses
import json

import pytest

from configs.errors import InputError
from configs.page import PageOptions
from trainer.export.model_info import ModelInfo


@pytest.fixture
def info(mean_colour_identity):
    return ModelInfo(labels=("a", "ü"), backbone=mean_colour_identity, head_digest="sha256:00")


def test_round_trip(info):
    told = dataclasses.replace(
        info,
        label_mode="multi",
        temperature=1.25,
        threshold=0.4,
        backbone_verified=False,
        takes_images=False,
        page=PageOptions(title="A or U?", texts={"a": "an A"}, colours={"ü": "red"}),
    )
    assert ModelInfo.from_bytes(json.dumps(told.to_json()).encode(), where="x") == told


def test_random_and_unverified_weights_are_warned_of(info, mean_colour_identity):
    assert "RANDOM" in info.warning
    trained = dataclasses.replace(mean_colour_identity, weights="imagenet", seed=None)
    trusted = dataclasses.replace(info, backbone=trained)
    assert trusted.warning is None
    assert "warning" not in trusted.to_json()
    unverified = dataclasses.replace(trusted, backbone_verified=False)
    assert "if it was not inception_v3 with weights imagenet" in unverified.to_json()["warning"]
    head_alone = dataclasses.replace(unverified, takes_images=False).warning
    assert "UNVERIFIED" in head_alone
    assert "takes embeddings of that network" in head_alone


def test_two_warnings_are_both_given(info):
    warning = dataclasses.replace(info, backbone_verified=False).warning
    assert "RANDOM" in warning
    assert "UNVERIFIED" in warning


def test_a_model_of_an_earlier_version_takes_the_defaults(info):
    data = info.to_json()
    for name in ("label_mode", "temperature", "threshold", "backbone_verified", "takes_images"):
        del data[name]
    assert ModelInfo.from_bytes(json.dumps(data).encode(), where="x") == info


def test_a_page_is_written_only_if_there_is_one(info):
    assert "page" not in info.to_json()
    asked = dataclasses.replace(info, page=PageOptions(title="A or U?"))
    assert asked.to_json()["page"] == {"title": "A or U?"}


@pytest.mark.parametrize("page", [[], {"titel": "A"}, {"title": 3}, {"colours": {"a": "mauve"}}, {"texts": ["a"]}])
def test_a_damaged_page_is_one_line(info, page):
    with pytest.raises(InputError, match=r"^here/model\.json: page.* must ") as caught:
        ModelInfo.from_bytes(json.dumps({**info.to_json(), "page": page}).encode(), where="here/model.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"), [("label_mode", "both"), ("temperature", 0), ("temperature", float("nan")), ("threshold", 1.5)]
)
def test_values_out_of_range_are_refused(info, name, value):
    with pytest.raises(InputError, match=r"^here/model\.json: "):
        ModelInfo.from_bytes(json.dumps({**info.to_json(), name: value}).encode(), where="here/model.json")


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"format": 9}', b"\xff", b'{"format": 1, "labels": ["a"]}', b"[" * 100_000]
)
def test_anything_else_is_refused_with_its_place(raw):
    with pytest.raises(InputError, match=r"^here/model\.json: "):
        ModelInfo.from_bytes(raw, where="here/model.json")
