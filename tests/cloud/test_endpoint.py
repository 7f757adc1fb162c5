from __future__ import annotations

import pytest

from cloud import endpoint
from configs.errors import InputError
from tests.support.cloud_job import FakeGcloud

PARENT = "projects/1/locations/us-central1"


def deployed(number, name, model):
    machines = {"machineSpec": {"machineType": "n1-standard-4"}}
    return {
        "id": number,
        "displayName": name,
        "model": f"{PARENT}/models/{model}",
        "dedicatedResources": machines,
    }


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "loopback")
    described = {
        "name": f"{PARENT}/endpoints/3",
        "displayName": "hugs",
        "deployedModels": [deployed("77", "first", "7@1"), deployed("78", "second", "8")],
        "trafficSplit": {"77": 80, "78": 20},
    }
    return FakeGcloud(
        **{
            "endpoints list": [described],
            "endpoints update": None,
            "endpoints undeploy-model": None,
            "endpoints describe": described,
        }
    )


def test_versions_are_listed_by_their_share(run, capsys):
    assert endpoint.main([], run=run) == 0
    assert capsys.readouterr().out.splitlines() == [
        "endpoint 3 (hugs)",
        "   80 %  first   id 77, model 7@1, n1-standard-4",
        "   20 %  second  id 78, model 8, n1-standard-4",
    ]


def test_traffic_is_moved_by_names_or_ids(run):
    for text in ("first=30,second=70", "77=30,78=70"):
        endpoint.main(["--traffic", text], run=run)
        (command,) = run.named("ai", "endpoints", "update")
        assert command[4] == "3"
        assert "--traffic-split=77=30,78=70" in command
        run.commands.clear()
    endpoint.main(["--traffic", "second=100"], run=run)
    assert "--traffic-split=77=0,78=100" in run.named("ai", "endpoints", "update")[0]


def test_a_version_that_is_undeployed_leaves_its_share(run):
    endpoint.main(["--undeploy", "first"], run=run)
    (command,) = run.named("ai", "endpoints", "undeploy-model")
    assert {"--deployed-model-id=77", "--traffic-split=78=100"} < set(command)


def test_a_dry_run_sends_nothing(run, capsys):
    endpoint.main(["--undeploy", "77", "--dry_run"], run=run)
    assert not run.named("ai", "endpoints", "undeploy-model")
    assert "--deployed-model-id=77" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--traffic", "first=30"], "must add up to 100. Received: 'first=30', which is 30"),
        (["--traffic", "third=100"], r"none is named 'third'; deployed are: first \(77\), second \(78\)"),
        (["--traffic", "first"], "must be VERSION=PERCENT"),
        (["--traffic", "first=all"], "must be VERSION=PERCENT"),
        (["--undeploy", "third"], "none is named 'third'"),
        (["--undeploy", "first", "--traffic", "a=1"], "two steps"),
        (["--endpoint_name", "other"], "has no endpoint named 'other'"),
    ],
)
def test_what_is_refused(run, flags, words):
    with pytest.raises(InputError, match=words):
        endpoint.main(flags, run=run)
    assert not run.named("ai", "endpoints", "update") + run.named("ai", "endpoints", "undeploy-model")
