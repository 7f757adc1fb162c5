"""Versions come and go while requests are answered."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
import time

import httpx
import pytest

from configs.errors import InputError
from tests.support.classifiers import jpeg

pytestmark = pytest.mark.usefixtures("with_extra")


def copy_version(model_dir, path, threshold):
    """A copy of the model whose answers tell it from the others."""
    partial = f"{path}.partial"
    shutil.copytree(model_dir, partial)
    info = os.path.join(partial, "assets.extra", "model.json")
    with open(info) as stream:
        described = json.load(stream)
    with open(info, "w") as stream:
        json.dump({**described, "threshold": threshold}, stream)
    os.rename(partial, path)


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def make_model(monkeypatch):
    """Makes a `Model`; the head, which takes seconds to load, is loaded once."""
    import functools

    from serving import loaded_model
    from serving.metrics import Metrics
    from serving.models import Model
    from serving.options import ServeOptions

    original = loaded_model.load_head
    kept = functools.cache(lambda size: original(heads[0], embedding_size=size))
    heads = []

    def load_head(folder, *, embedding_size):
        if not os.path.exists(os.path.join(folder, "saved_model.pb")):
            return original(folder, embedding_size=embedding_size)
        heads.append(folder)
        return kept(embedding_size)

    monkeypatch.setattr(loaded_model, "load_head", load_head)

    def make(folder, **options):
        values = {"engine": "tensorflow", "precision": "float32", "model_dir": (str(folder),), **options}
        return Model("hugs", str(folder), ServeOptions(**values), Metrics())

    return make


def served(model):
    return [state.number for state in model.states() if state.state == "AVAILABLE"]


def test_the_newest_versions_are_served(make_model, model_dir, tmp_path):
    for number in (1, 3, 20):
        copy_version(model_dir, str(tmp_path / str(number)), number / 100)
    for other in ("04", "x", "5.partial"):
        copy_version(model_dir, str(tmp_path / other), 0.5)
    model = make_model(tmp_path)
    model.load_first()
    assert served(model) == [20, 3]
    assert model.get().number == 20 and model.get(3).info.threshold == 0.03
    assert model.get(1) is None
    copy_version(model_dir, str(tmp_path / "21"), 0.21)
    held = model.get(3)
    asyncio.run(model.refresh())
    assert served(model) == [21, 20]
    assert held.loaded.engine is model.get().loaded.engine  # one network, one engine
    shutil.rmtree(tmp_path / "21")
    asyncio.run(model.refresh())
    assert served(model) == [20, 3]
    shutil.rmtree(tmp_path)
    asyncio.run(model.refresh())
    assert served(model) == [20, 3]


def test_a_version_that_cannot_be_loaded_leaves_the_others(make_model, model_dir, tmp_path, caplog):
    copy_version(model_dir, str(tmp_path / "1"), 0.1)
    model = make_model(tmp_path, versions=1)
    model.load_first()
    # As a copy that is under way: its description is there, and its network is not.
    shutil.copytree(model_dir, tmp_path / "2", ignore=shutil.ignore_patterns("saved_model.pb"))
    with caplog.at_level("WARNING", logger="serving"):
        asyncio.run(model.refresh())
        asyncio.run(model.refresh())
    assert served(model) == [1]
    assert [(state.number, state.state) for state in model.states()] == [(2, "END"), (1, "AVAILABLE")]
    assert sum("version 2 is not served" in record.getMessage() for record in caplog.records) == 1
    shutil.copy(os.path.join(model_dir, "saved_model.pb"), tmp_path / "2")
    asyncio.run(model.refresh())
    assert [(state.number, state.state) for state in model.states()] == [(2, "AVAILABLE")]


def test_a_model_that_is_trained_again_in_its_folder_is_the_next_version(make_model, model_dir, tmp_path):
    copy_version(model_dir, str(tmp_path / "model"), 0.1)
    model = make_model(tmp_path / "model", versions=1)
    model.load_first()
    copy_version(model_dir, str(tmp_path / "new"), 0.2)
    shutil.rmtree(tmp_path / "model")
    os.rename(tmp_path / "new", tmp_path / "model")
    asyncio.run(model.refresh())
    assert served(model) == [2]
    assert model.get().info.threshold == 0.2


def test_a_network_that_is_not_the_models_is_refused(make_model, model_dir, tmp_path):
    copy_version(model_dir, str(tmp_path / "model"), 0.1)
    path = tmp_path / "model" / "assets.extra" / "model.json"
    described = json.loads(path.read_text())
    digest = described["backbone"]["weights_digest"]
    path.write_text(json.dumps(described).replace(digest, "sha256:" + "0" * 64))
    with pytest.raises(InputError, match="made with another network .* --weights FILE"):
        make_model(tmp_path / "model").load_first()
    described["backbone"] |= {"weights": "/nowhere/tiny.weights.h5", "random_weights": False, "seed": None}
    path.write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"needs its network, tiny with weights /nowhere.* pass --weights FILE"):
        make_model(tmp_path / "model").load_first()


def test_a_new_version_is_taken_up_without_a_lost_request(model_dir, tmp_path):
    from tests.support.serving import running_server

    copy_version(model_dir, str(tmp_path / "1"), 0.1)
    stop = threading.Event()
    statuses, thresholds = [], []

    def client(url):
        with httpx.Client(timeout=60) as session:
            while not stop.is_set():
                response = session.post(f"{url}/predict", content=photo)
                statuses.append(response.status_code)
                thresholds.append(response.json()["threshold"])

    photo = jpeg(0)
    with running_server(model_dir=(str(tmp_path),), poll_sec=0.05, versions=1) as running:
        clients = [threading.Thread(target=client, args=(running.url,)) for _ in range(3)]
        for thread in clients:
            thread.start()
        try:
            wait_for(lambda: thresholds)
            copy_version(model_dir, str(tmp_path / "2"), 0.2)
            wait_for(lambda: thresholds[-1] == 0.2)
            wait_for(lambda: httpx.get(f"{running.url}/v1/models/hugs/versions/1").status_code == 404)
        finally:
            stop.set()
            for thread in clients:
                thread.join()
    assert set(statuses) == {200}
    assert set(thresholds) == {0.1, 0.2}
