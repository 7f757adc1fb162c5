"""What Beam's own DataflowRunner sends to a service and a bucket on loopback, and that it can be run there."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import time
import venv

import numpy as np
import pytest

pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")

from apache_beam.internal.gcp import auth

from configs.errors import InputError
from pipelines import preproc, recipe_lists
from pipelines.runners.worker_requirements import worker_requirements
from tests.support.dataflow_job import ROWS, pipeline_of, steps_of
from tests.support.fake_dataflow import FakeDataflow
from tests.support.faulty_gcs import FaultyGcs

ROOT = pathlib.Path(__file__).parents[2]
# What packing leaves where it is done; an editable installation leaves it as well.
EGG_INFO = ROOT / "hugs.egg-info"


class Submitted:
    """A recipe's lists, handed over by `pipelines.preproc --wait` in a process of its own, which then waits."""

    # Beam asks for the state of a job every five seconds.
    _PROGRAM = (
        "import time, types\n"
        "from apache_beam.runners.dataflow import dataflow_runner\n"
        "sleep = lambda seconds: time.sleep(min(seconds, 0.05))\n"
        "dataflow_runner.time = types.SimpleNamespace(sleep=sleep, time=time.time)\n"
        "from configs.program import run_program\n"
        "from pipelines.preproc import main\n"
        "run_program(main)"
    )

    def __init__(self, folder, gcs, service):
        self.gcs, self.service, self.folder = gcs, service, folder
        self.had_egg_info = EGG_INFO.exists()
        recipe = folder / "hugs.yaml"
        recipe.write_text(
            "cloud: {labels: {team: vision}, service_account: w@loopback-1.iam.gserviceaccount.com}\n"
            "dataflow:\n"
            "  {machine_type: n2-highcpu-8, max_workers: 7, disk_gb: 60, disk_type: pd-ssd, network: net,\n"
            "  subnetwork: regions/us-central1/subnetworks/sub}\n"
        )
        self.argv = ["--data_dir", "gs://bucket", "--recipe", str(recipe), "--weights", "random"]
        self.argv += [f"--dataflow_endpoint={service.url}"]

    def start(self, *flags):
        return subprocess.Popen(
            [sys.executable, "-c", self._PROGRAM, *self.argv, *flags],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | self.gcs.environment | {"HUGS_CACHE_DIR": str(self.folder / "cache")},
        )


@pytest.fixture(scope="module")
def submitted(photos, tmp_path_factory):
    with FaultyGcs(buckets=["bucket"]) as gcs, FakeDataflow() as service:
        for path in photos.iterdir():
            gcs.put("bucket", path.name, path.read_bytes())
        submitted = Submitted(tmp_path_factory.mktemp("submitted"), gcs, service)
        submitted.process = submitted.start("--wait")
        while len(service.jobs) < 2:
            assert submitted.process.poll() is None, submitted.process.communicate()
            time.sleep(0.05)
        yield submitted
        submitted.process.kill()
        submitted.process.communicate()


def test_a_job_is_posted_for_every_list_as_the_recipe_says(submitted):
    train, eval_ = submitted.service.jobs
    user = recipe_lists._user_name()
    name = re.compile(rf"hugs-{user}-\d{{8}}-\d{{6}}-(train|eval)-[0-9a-f]{{8}}")
    assert [name.fullmatch(job.name)[1] for job in (train, eval_)] == ["train", "eval"]
    assert (train.project, train.region) == ("loopback", "us-central1")
    assert train.posted["labels"] == {"team": "vision"}
    environment = train.posted["environment"]
    assert environment["serviceAccountEmail"] == "w@loopback-1.iam.gserviceaccount.com"
    assert "no_use_multiple_sdk_containers" in environment["experiments"]
    assert "use_multiple_sdk_containers" not in environment["experiments"]
    assert "use_runner_v2" in environment["experiments"]
    assert environment["tempStoragePrefix"].startswith("storage.googleapis.com/bucket/hugs_staging/temp/")
    (pool,) = environment["workerPools"]
    assert pool["machineType"] == "n2-highcpu-8"
    assert pool["diskSizeGb"] == 60
    assert pool["diskType"] == "compute.googleapis.com/projects//zones//diskTypes/pd-ssd"
    assert pool["autoscalingSettings"] == {"algorithm": 2, "maxNumWorkers": 7}  # AUTOSCALING_ALGORITHM_BASIC
    assert pool["network"] == "net"
    assert pool["subnetwork"] == "regions/us-central1/subnetworks/sub"
    assert pool["numThreadsPerWorker"] == 2
    assert {package["name"] for package in pool["packages"]} >= {"workflow.tar.gz", "requirements.txt"}


def test_nothing_that_is_sent_names_the_checkout_and_nothing_is_left_there(submitted):
    sent = [json.dumps(job.posted).encode() for job in submitted.service.jobs]
    staged = [name for name in submitted.gcs.names("bucket") if "hugs_staging/" in name]
    assert any(name.endswith("pipeline.pb") for name in staged)
    # Of what Beam itself stages, a list of its environment's packages, and the name of the interpreter.
    sent += [submitted.gcs.get("bucket", name) for name in staged if "submission_environment" not in name]
    assert not [content for content in sent if f"{ROOT}/".encode() in content]
    assert EGG_INFO.exists() == submitted.had_egg_info


def test_no_image_and_no_embedding_passes_a_shuffle(submitted):
    pipeline = pipeline_of(submitted.gcs, submitted.service.jobs[0])
    steps = steps_of(pipeline)
    shuffles = [name for name, step in steps.items() if step.spec.urn == "beam:transform:group_by_key:v1"]
    assert shuffles == ["EmbedLists/Reshuffle/ReshufflePerKey/GroupByKey"]
    # What goes into it is what ReadRows made: rows.
    (rows,) = steps["EmbedLists/ReadRows"].outputs.values()
    assert list(steps["EmbedLists/Reshuffle"].inputs.values()) == [rows]
    # What comes of the images has one reader, the last step, and not as its main input.
    (results,) = steps["EmbedLists/EmbedImages"].outputs.values()
    readers = {(name, key) for name, step in steps.items() for key, value in step.inputs.items() if value == results}
    assert readers == {("EmbedLists/FinishRecordSet", "python_side_input0")}


def test_every_step_asks_for_the_same_memory_in_one_environment(submitted):
    job = submitted.service.jobs[0].posted
    pipeline = pipeline_of(submitted.gcs, submitted.service.jobs[0])
    used = {step.environment_id for step in steps_of(pipeline).values() if step.environment_id}
    (environment,) = (pipeline.components.environments[name] for name in used)
    assert dict(environment.resource_hints) == {"beam:resources:min_ram_bytes:v1": b"6000000000"}
    # A second environment would be a second container on each worker.
    assert len(job["environment"]["workerPools"][0]["sdkHarnessContainerImages"]) == 1


def test_workers_are_to_install_the_versions_of_the_launcher(submitted):
    (name,) = [one for one in submitted.gcs.names("bucket") if re.search("-train[^/]*/requirements.txt", one)]
    lines = submitted.gcs.get("bucket", name).decode().splitlines()
    assert lines == worker_requirements()
    assert f"numpy=={np.__version__}" in lines


def test_a_job_that_is_still_running_is_not_started_again(submitted, monkeypatch, capsys):
    monkeypatch.setattr(auth._Credentials, "_credentials_init", False)
    for name, value in submitted.gcs.environment.items():
        monkeypatch.setenv(name, value)
    job = submitted.service.jobs[0]
    with pytest.raises(InputError) as caught:
        preproc.main(submitted.argv)
    assert "going on in gs://bucket/hugs_" in capsys.readouterr().out
    assert str(caught.value).startswith(f"job_name: {job.name} ({job.id}) is still running.")
    assert f"https://console.cloud.google.com/dataflow/jobs/us-central1/{job.id}?project=loopback" in str(caught.value)
    assert len(submitted.service.jobs) == 2


def install_staged(submitted):
    """A virtual environment with the staged project, and with what else it needs from this one."""
    folder = submitted.folder / "worker"
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    site = folder / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    (name,) = [one for one in submitted.gcs.names("bucket") if re.search("-train[^/]*/workflow.tar.gz", one)]
    sdist = folder / "hugs-0.1.0.tar.gz"
    sdist.write_bytes(submitted.gcs.get("bucket", name))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*command, "--target", site, sdist], capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    # Behind the folder itself, so that the project comes from the staged archive.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    return folder / "bin/python", site


def test_the_staged_project_runs_the_staged_pipeline_and_the_launcher_ends_as_a_local_run_does(submitted):
    python, site = install_staged(submitted)
    paths = []
    for job in submitted.service.jobs:
        paths.append(submitted.folder / f"{job.name}.pb")
        paths[-1].write_bytes(pipeline_of(submitted.gcs, job).SerializeToString())
    done = subprocess.run(
        [python, "-I", ROOT / "tests/support/staged_worker.py", site, *paths],
        capture_output=True,
        text=True,
        cwd=submitted.folder / "worker",
        env=os.environ | submitted.gcs.environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for job in submitted.service.jobs:
        job.states = ["JOB_STATE_RUNNING", "JOB_STATE_DONE"]
    stdout, stderr = submitted.process.communicate(timeout=60)
    assert submitted.process.returncode == 0, stderr
    train, eval_ = submitted.service.jobs
    (job_dir,) = {
        name.partition("/preproc/")[0] for name in submitted.gcs.names("bucket") if "/preproc/_train/" in name
    }
    job_dir = f"gs://bucket/{job_dir}"
    for job, split in ((train, "train"), (eval_, "eval")):
        assert f"submitted {ROWS} rows as Dataflow job {job.id}" in stdout
        assert f"https://console.cloud.google.com/dataflow/jobs/us-central1/{job.id}?project=loopback" in stdout
        assert f"gcloud dataflow jobs describe {job.id} --region=us-central1 --project=loopback" in stdout
        assert f"{job_dir}/preproc/_{split}/report.json" in stdout
        assert f"{job_dir}/preproc/{split}: {ROWS} rows read" in stdout
    assert "not compared with the training set" in stdout
    assert stdout.splitlines()[-1].endswith(f"hugs_train.sh gs://bucket {job_dir}")
    names = submitted.gcs.names("bucket")
    assert f"{job_dir.removeprefix('gs://bucket/')}/preproc/_train/manifest.json" in names
    assert not [name for name in names if "/parts-" in name]
