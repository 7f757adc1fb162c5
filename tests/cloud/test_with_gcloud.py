"""The wrappers, the real gcloud and Google's storage client, with the services on loopback."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.support.cloud_job import JOB_DIR, put_model, put_records
from tests.support.fake_vertex import FakeVertex

REPOSITORY = pathlib.Path(__file__).parents[2]
GCLOUD = shutil.which("gcloud")

pytestmark = pytest.mark.skipif(GCLOUD is None, reason="gcloud is not installed")


@pytest.fixture
def vertex():
    with FakeVertex() as server:
        yield server


@pytest.fixture
def run(gcs, vertex, tmp_path):
    def run_script(script, *arguments, **environment):
        return subprocess.run(
            [str(REPOSITORY / script), *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHON": sys.executable} | gcs.environment | vertex.environment | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run_script


def refused(done):
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    return last


def test_training_from_the_first_word_to_the_last(gcs, vertex, run, tmp_path):
    put_records(gcs, "train", "eval", "test")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "train: {epochs: 3}\ncloud:\n  labels: {team: vision}\n"
        "  service_account: hugs@loopback.iam.gserviceaccount.com\n"
        "vertex: {machine_type: n1-highmem-4, replicas: 3, timeout_hours: 5}\n"
    )
    for number, name, state in (("1", "bucket/hugs_1/longer", "FAILED"), ("2", "bucket/hugs_1/x", "RUNNING")):
        job = {"name": f"projects/1/locations/us-central1/customJobs/{number}", "displayName": name}
        vertex.jobs[number] = job | {"state": f"JOB_STATE_{state}"}
    before = sorted(os.listdir(REPOSITORY))
    flags = ("--wait", "--", "--train_data_paths", "gs://a/train,gs://b/train")
    done = run("hugs_train.sh", "gs://bucket", JOB_DIR, "longer", *flags, RECIPE=str(recipe))
    assert done.returncode == 0, done.stderr
    (job,) = vertex.posted("customJobs")
    assert job["displayName"] == "bucket/hugs_1/longer"
    assert job["labels"] == {"team": "vision"}
    spec = job["jobSpec"]
    assert spec["serviceAccount"] == "hugs@loopback.iam.gserviceaccount.com"
    assert spec["scheduling"] == {"timeout": "18000s", "restartJobOnWorkerRestart": True}
    chief, workers = spec["workerPoolSpecs"]
    assert [int(pool["replicaCount"]) for pool in (chief, workers)] == [1, 2]
    assert chief["machineSpec"] == {"machineType": "n1-highmem-4"}
    container = chief["containerSpec"]
    assert container == workers["containerSpec"]
    assert container["imageUri"] == "us-central1-docker.pkg.dev/loopback/docker-hub/library/python:3.11"
    assert container["args"][-2:] == ["--train_data_paths", "gs://a/train,gs://b/train"]  # The comma survives.
    assert {"--epochs=3", f"--output_path={JOB_DIR}/longer"} < set(container["args"])
    package = container["command"][-1].removeprefix("/gcs/bucket/").removesuffix("[train]")
    assert gcs.get("bucket", package)[:2] == b"\x1f\x8b"
    assert "watch    gcloud ai custom-jobs stream-logs 1003" in done.stdout
    assert done.stdout.endswith("job 1003: succeeded\n")
    assert sorted(os.listdir(REPOSITORY)) == before


def test_who_may_not_start_a_job(gcs, vertex, run):
    put_records(gcs, "train", "eval")
    vertex.refusal = (403, "PERMISSION_DENIED", "Permission 'aiplatform.customJobs.create' denied on resource.")
    said = refused(run("hugs_train.sh", "gs://bucket", JOB_DIR))
    print(said)
    assert "error: gcloud ai custom-jobs create: PERMISSION_DENIED: Permission 'aiplatform.customJobs.create'" in said
    assert "Your account needs the role roles/aiplatform.user in project loopback" in said
    assert not vertex.jobs


QUOTA_PROJECT = (
    "Your application is authenticating by using local Application Default Credentials. The aiplatform.googleapis.com "
    "API requires a quota project, which is not set by default. To learn how to set your quota project, see "
    "https://cloud.google.com/docs/authentication/adc-troubleshooting/user-creds ."
)


def test_a_login_without_a_quota_project_is_not_called_an_api_that_is_off(gcs, vertex, run):
    put_records(gcs, "train", "eval")
    vertex.refusal = (403, "PERMISSION_DENIED", QUOTA_PROJECT)
    said = refused(run("hugs_train.sh", "gs://bucket", JOB_DIR))
    assert said.endswith("gcloud auth application-default set-quota-project loopback")
    assert "services enable" not in said


def test_an_endpoint_that_gcloud_cannot_ask_is_refused_before_it_costs_money(gcs, vertex, run):
    put_model(gcs)
    vertex.endpoints["7"] = {
        "name": "projects/42/locations/us-central1/endpoints/7",
        "displayName": "my endpoint",
        "dedicatedEndpointEnabled": True,
    }
    asked = subprocess.run(
        [
            "gcloud",
            "ai",
            "endpoints",
            "predict",
            "7",
            "--region=us-central1",
            "--project=p",
            "--json-request=/dev/stdin",
        ],
        env=os.environ | vertex.environment,
        input='{"instances": []}',
        capture_output=True,
        text=True,
        check=False,
    )
    assert "cannot be accessed through the Vertex AI API" in asked.stderr
    said = refused(run("hugs_deploy.sh", f"{JOB_DIR}/training", "my endpoint"))
    assert "ENDPOINT_NAME: endpoint 7 (my endpoint) has an address of its own" in said
    assert not vertex.posted("models:upload")
    assert not vertex.posted("endpoints/7:deployModel")


def test_who_is_not_logged_in(gcs, run):
    put_records(gcs, "train", "eval")
    done = run("hugs_train.sh", "gs://bucket", JOB_DIR, CLOUDSDK_AUTH_DISABLE_CREDENTIALS="false")
    assert "You do not currently have an active account selected. Log in: gcloud auth login" in refused(done)


def test_deploying_from_the_first_word_to_the_last(gcs, vertex, run):
    put_model(gcs)
    vertex.prediction = {
        "predictions": [{"key": "x", "label": "hugs", "scores": [0.75, 0.25], "prediction": 0, "confident": True}]
    }
    done = run("hugs_deploy.sh", f"{JOB_DIR}/training", "my endpoint")
    assert done.returncode == 0, done.stderr
    (upload,) = vertex.posted("models:upload")
    model = upload["model"]
    assert model["containerSpec"] == {
        "imageUri": "us-central1-docker.pkg.dev/loopback/docker-hub/tensorflow/serving:2.21.0",
        "args": ["--model_base_path=$(AIP_STORAGE_URI)", "--file_system_poll_wait_seconds=0"],
        "ports": [{"containerPort": 8501}],
        "predictRoute": "/v1/models/model:predict",
        "healthRoute": "/v1/models/model",
    }
    assert f"{model['artifactUri']}/1/saved_model.pb".removeprefix("gs://bucket/") in gcs.names("bucket")
    (endpoint,) = vertex.posted("endpoints")
    assert endpoint["displayName"] == "my endpoint"
    assert set(endpoint["labels"]) == {"hugs_bucket"}
    (deployed,) = vertex.posted("endpoints/1001:deployModel")
    assert deployed["trafficSplit"] == {"0": 100}
    assert "serviceAccount" not in deployed["deployedModel"]
    machines = deployed["deployedModel"]["dedicatedResources"]
    assert machines["machineSpec"] == {"machineType": "n1-standard-4"}
    (request,) = vertex.posted("endpoints/1001:predict")
    assert set(request["instances"][0]) == {"key", "image_bytes"}
    assert "--deployed-model-id=77" in done.stdout
    assert "a drawn picture: hugs\n   75.0%  hugs" in done.stdout


def test_an_endpoint_is_asked_with_what_images_to_json_writes(vertex, tmp_path):
    from cloud import images_to_json
    from tests.support.classifiers import jpeg

    vertex.endpoints["1001"] = {"name": "projects/42/locations/us-central1/endpoints/1001", "displayName": "hugs"}
    vertex.prediction = {"predictions": [{"label": "hugs"}]}
    photo, request = tmp_path / "photo.jpg", tmp_path / "request.json"
    photo.write_bytes(jpeg(0))
    assert images_to_json.main([str(photo), "-o", str(request), "-r", "--image_size", "224"]) == 0
    done = subprocess.run(
        [
            *("gcloud", "ai", "endpoints", "predict", "1001", "--project=loopback", "--region=us-central1"),
            *(f"--json-request={request}", "--format=json"),
        ],
        env=os.environ | vertex.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "hugs" in done.stdout
    (posted,) = vertex.posted("endpoints/1001:predict")
    assert posted["instances"] == json.loads(request.read_text())["instances"]


def test_versions_share_an_endpoint_until_they_are_undeployed(gcs, vertex, run):
    put_model(gcs)
    models = [{"id": "5", "displayName": "first", "model": "projects/42/locations/us-central1/models/1"}]
    vertex.endpoints["1001"] = {
        "name": "projects/42/locations/us-central1/endpoints/1001",
        "displayName": "shared",
        "deployedModels": [*models, {**models[0], "id": "6", "displayName": "second"}],
        "trafficSplit": {"5": 90, "6": 10},
    }
    done = run("hugs_deploy.sh", "list", "shared")
    assert done.returncode == 0, done.stderr
    assert "90 %  first   id 5" in done.stdout and "10 %  second  id 6" in done.stdout
    done = run("hugs_deploy.sh", "traffic", "second=100", "shared")
    assert done.returncode == 0, done.stderr
    done = run("hugs_deploy.sh", "undeploy", "first", "shared")
    assert done.returncode == 0, done.stderr
    (undeployed,) = vertex.posted("endpoints/1001:undeployModel")
    assert undeployed["deployedModelId"] == "5"
    assert undeployed["trafficSplit"] == {"6": 100}
    assert refused(run("hugs_deploy.sh", "undeploy")).startswith("error: undeploy: nothing given")
