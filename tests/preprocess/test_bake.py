import os
import pathlib
import subprocess
import sys

import pytest

from configs.errors import InputError
from preprocess import bake
from preprocess.backbones.backbone import BackboneSpec, load_keras_backbone
from preprocess.engines.converted_networks import load_network
from preprocess.engines.model_cache import ModelCache
from tests.support import tiny_network

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def cache(monkeypatch, tmp_path):
    tiny_network.install(monkeypatch)
    folder = tmp_path / "cache"
    monkeypatch.setenv("HUGS_CACHE_DIR", f"{folder}/")
    return folder


def test_what_is_baked_is_found_without_loading_anything(cache, monkeypatch, capsys, tmp_path):
    path = str(tmp_path / "w.weights.h5")
    load_keras_backbone(BackboneSpec(architecture=tiny_network.NAME, weights="random"))[0].save_weights(path)
    for weights in ("random", path):
        assert bake.main(["--backbone", tiny_network.NAME, "--weights", weights]) == 0
        assert f"kept in {cache}" in capsys.readouterr().out
    # Nothing that was measured on this machine, which another one would take for its own.
    assert [sorted(os.listdir(cache / entry)) for entry in os.listdir(cache)] == [
        ["entry.json", "graph.pb", "identity.json"]
    ] * 2
    monkeypatch.setattr(
        "preprocess.backbones.network_graph.load_keras_backbone", lambda spec: pytest.fail("converted again")
    )
    for weights in ("random", path):
        load_network(BackboneSpec(architecture=tiny_network.NAME, weights=weights), ModelCache())


def test_each_of_several_networks_is_baked(cache, capsys):
    several = f"{tiny_network.NAME},mobilenet_0.25_128"
    assert bake.main(["--backbone", several, "--weights", "random", "--weights_only"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == several.split(",")


def test_weights_alone_keep_no_network(cache, capsys):
    assert bake.main(["--backbone", tiny_network.NAME, "--weights", "random", "--weights_only"]) == 0
    assert "RANDOM weights (seed 0): sha256:" in capsys.readouterr().out
    assert not cache.exists()


def test_a_cache_that_keeps_nothing_is_an_error(cache, monkeypatch):
    cache.write_bytes(b"")
    with pytest.raises(InputError, match=r"HUGS_CACHE_DIR: nothing could be kept in .* with \d+ MB free"):
        bake.main(["--backbone", tiny_network.NAME, "--weights", "random"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--weights", "nowhere.h5"], "weights: no such file: 'nowhere.h5'"),
        (["--backbone", "inception"], "backbone: there is no network"),
        (["--seed", "-1"], "--seed must be a whole number of at least 0"),
        (["--weight", "x"], "Did you mean '--weights'?"),
    ],
)
def test_wrong_input_is_one_line(flags, message):
    done = subprocess.run([sys.executable, "-m", "preprocess.bake", *flags], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
