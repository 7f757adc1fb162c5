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


def copy_version(model_dir, path, name):
    """A copy of the model with a label that tells it from the others."""
    partial = f"{path}.partial"
    shutil.copytree(model_dir, partial)
    info = os.path.join(partial, "assets.extra", "model.json")
    with open(info) as stream:
        described = json.load(stream)
    with open(info, "w") as stream:
        json.dump({**described, "labels": [name, *described["labels"][1:]]}, stream)
    os.rename(partial, path)


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def make_model(folder, **options):
    from serving.metrics import Metrics
    from serving.models import Model
    from serving.options import ServeOptions

    values = {"engine": "tensorflow", "precision": "float32", "model_dir": (str(folder),), **options}
    return Model("hugs", str(folder), ServeOptions(**values), Metrics())


def served(model):
    return [state.number for state in model.states() if state.state == "AVAILABLE"]


def test_the_newest_versions_are_served(model_dir, tmp_path):
    for number in (1, 3, 20):
        copy_version(model_dir, str(tmp_path / str(number)), str(number))
    for other in ("04", "x", "5.partial"):
        copy_version(model_dir, str(tmp_path / other), other)
    model = make_model(tmp_path)
    model.load_first()
    assert served(model) == [20, 3]
    assert model.get().number == 20 and model.get(3).info.labels[0] == "3"
    assert model.get(1) is None
    copy_version(model_dir, str(tmp_path / "21"), "21")
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


def test_a_version_that_cannot_be_loaded_leaves_the_others(model_dir, tmp_path, caplog):
    copy_version(model_dir, str(tmp_path / "1"), "old")
    model = make_model(tmp_path, versions=1)
    model.load_first()
    # As a copy that is under way: its description is there, and its head is not.
    shutil.copytree(model_dir, tmp_path / "2", ignore=shutil.ignore_patterns("head.npz"))
    with caplog.at_level("WARNING", logger="serving"):
        asyncio.run(model.refresh())
        asyncio.run(model.refresh())
    assert served(model) == [1]
    assert [(state.number, state.state) for state in model.states()] == [(2, "END"), (1, "AVAILABLE")]
    assert sum("version 2 is not served" in record.getMessage() for record in caplog.records) == 1
    shutil.copy(os.path.join(model_dir, "assets.extra", "head.npz"), tmp_path / "2" / "assets.extra")
    asyncio.run(model.refresh())
    assert [(state.number, state.state) for state in model.states()] == [(2, "AVAILABLE")]


def test_a_model_that_is_trained_again_in_its_folder_is_the_next_version(model_dir, tmp_path):
    copy_version(model_dir, str(tmp_path / "model"), "old")
    model = make_model(tmp_path / "model", versions=1)
    model.load_first()
    copy_version(model_dir, str(tmp_path / "new"), "new")
    shutil.rmtree(tmp_path / "model")
    os.rename(tmp_path / "new", tmp_path / "model")
    asyncio.run(model.refresh())
    assert served(model) == [2]
    assert model.get().info.labels[0] == "new"


def test_a_network_that_is_not_the_models_is_refused(model_dir, tmp_path):
    copy_version(model_dir, str(tmp_path / "model"), "old")
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

    copy_version(model_dir, str(tmp_path / "1"), "old")
    stop = threading.Event()
    statuses, names = [], []

    def client(url):
        with httpx.Client(timeout=60) as session:
            while not stop.is_set():
                response = session.post(f"{url}/predict", content=photo)
                statuses.append(response.status_code)
                names.append({one["id"]: one["label"] for one in response.json()["predictions"]}[0])

    photo = jpeg(0)
    with running_server(model_dir=(str(tmp_path),), poll_sec=0.05, versions=1) as running:
        clients = [threading.Thread(target=client, args=(running.url,)) for _ in range(3)]
        for thread in clients:
            thread.start()
        try:
            wait_for(lambda: names)
            copy_version(model_dir, str(tmp_path / "2"), "new")
            wait_for(lambda: names[-1] == "new")
            wait_for(lambda: httpx.get(f"{running.url}/v1/models/hugs/versions/1").status_code == 404)
        finally:
            stop.set()
            for thread in clients:
                thread.join()
    assert set(statuses) == {200}
    assert set(names) == {"old", "new"}
