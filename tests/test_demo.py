"""Which network the demo takes. The demo itself takes minutes, and is what `make demo` runs."""

import pytest

from configs.errors import InputError
from demo import run
from preprocess.backbones import backbone


@pytest.mark.parametrize(
    ("available", "weights", "expected"),
    [
        ({"inception_v3", "efficientnet_lite0"}, "imagenet", ["--weights", "imagenet"]),
        ({"efficientnet_lite0"}, "imagenet", ["--backbone", "efficientnet_lite0", "--weights", "imagenet"]),
        (set(), "random", ["--weights", "random", "--seed", "0"]),
        (set(), "imagenet", None),
    ],
)
def test_random_weights_are_taken_only_if_they_are_asked_for(available, weights, expected, monkeypatch):
    def check(spec, storage=None):
        if spec.architecture not in available:
            raise InputError("weights: not here")

    monkeypatch.setattr(backbone, "check_weights", check)
    if expected is None:
        with pytest.raises(InputError, match="not here"):
            run._choose_backbone(weights)
    else:
        assert run._choose_backbone(weights) == expected
