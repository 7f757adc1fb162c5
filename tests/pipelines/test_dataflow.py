"""Embedding on Dataflow: Beam's own DataflowRunner against a service and a bucket on loopback."""

from __future__ import annotations

import json
import logging
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
import types
import venv

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")

from apache_beam.internal import pickler
from apache_beam.internal.gcp import auth
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.dataflow import dataflow_runner

from configs.cloud import CloudOptions, DataflowOptions
from configs.errors import InputError
from configs.recipe import Recipe
from pipelines import dataflow, embed, preproc
from pipelines.beam_options import is_dataflow, is_local, make_runner, parse_beam_options
from pipelines.submission import check_options
from preprocess import engine_choice
from preprocess.retrying import RetryPolicy
from tests.fake_dataflow import FakeDataflow
from tests.faulty_gcs import FaultPlan, FaultyGcs

ROOT = pathlib.Path(__file__).parents[2]
_ROWS = 5
OUTPUT = "gs://bucket/hugs_20260102_030405/preproc/train"
IMAGE = "europe-docker.pkg.dev/project/repo/hugs:1"


# --- From a recipe to flags ---


def flags_of(recipe=Recipe(name="hugs"), given=(), **changes):  # noqa: B008 (frozen)
    arguments = {"output_prefix": OUTPUT, "project": "my-project", "setup_file": "/src/setup.py"}
    return dataflow.dataflow_flags(recipe, list(given), **(arguments | changes))


def recipe_with(cloud=None, **options):
    return Recipe(name="hugs", cloud=CloudOptions(**(cloud or {})), dataflow=DataflowOptions(**options))


def test_a_recipe_that_says_nothing_has_flags_for_everything_that_matters():
    assert flags_of() == [
        "--runner=DataflowRunner",
        "--project=my-project",
        "--region=us-central1",
        "--job_name=hugs-20260102-030405-train",
        "--temp_location=gs://bucket/hugs_staging/temp",
        "--staging_location=gs://bucket/hugs_staging/jobs",
        "--machine_type=n2-standard-4",
        "--max_num_workers=20",
        "--autoscaling_algorithm=THROUGHPUT_BASED",
        "--disk_size_gb=50",
        "--number_of_worker_harness_threads=2",
        "--setup_file=/src/setup.py",
        "--requirements_cache=skip",
        "--experiments=no_use_multiple_sdk_containers",
        "--resource_hint=min_ram=6GB",
    ]


def test_beam_takes_every_flag_that_a_recipe_can_give():
    recipe = recipe_with(
        {"service_account": "w@p.iam.gserviceaccount.com", "labels": {"team": "vision"}},
        machine_type="n1-standard-8",
        num_workers=2,
        autoscaling="none",
        disk_type="pd-ssd",
        network="net",
        subnetwork="regions/us-central1/subnetworks/sub",
        public_ips=False,
        image=IMAGE,
        gpu="t4",
        flexrs="cost",
    )
    flags = flags_of(recipe)
    options = parse_beam_options(flags, own_flags=[]).get_all_options()
    assert options["disk_type"] == "compute.googleapis.com/projects//zones//diskTypes/pd-ssd"
    assert options["dataflow_service_options"] == [
        "worker_accelerator=type:nvidia-tesla-t4;count:1;install-nvidia-driver"
    ]
    assert options["use_public_ips"] is False
    assert options["flexrs_goal"] == "COST_OPTIMIZED"
    assert options["autoscaling_algorithm"] == "NONE"
    assert options["labels"] == ["team=vision"]
    # An image has the project and all that it needs.
    assert options["setup_file"] is None
    assert options["requirements_cache"] is None
    assert not [flag for flag in flags if "resource_hint" in flag]


def test_memory_is_asked_for_where_nothing_forbids_hints():
    hint = ["--resource_hint=min_ram=6GB"]

    def hints(recipe=None, given=()):
        flags = flags_of(recipe, given) if recipe else flags_of(given=given)
        return [flag for flag in flags if "resource_hint" in flag]

    assert hints() == hint
    assert hints(given=["--resource_hints=min_ram=9GB"]) == ["--resource_hints=min_ram=9GB"]
    assert hints(given=["--flexrs_goal=SPEED_OPTIMIZED"]) == []
    assert hints(given=["--dataflow_service_options=worker_accelerator=type:x;count:1"]) == []


def test_a_machine_with_too_little_memory_is_refused():
    with pytest.raises(InputError, match="n2-highcpu-4 has 4 GB of memory, and a worker may need 6 GB"):
        flags_of(given=["--machine_type=n2-highcpu-4"])
    flags_of(given=["--machine_type=x9-unknown-4"])


@pytest.mark.parametrize(
    "given",
    [
        ["--worker_machine_type", "e2-highcpu-8"],
        ["--machine_type=e2-highcpu-8"],
    ],
)
def test_flags_on_the_command_line_win_under_any_name(given):
    flags = flags_of(given=given)
    assert [flag for flag in flags if "machine_type" in flag or "e2" in flag] == given
    assert parse_beam_options(flags, own_flags=[]).get_all_options()["machine_type"] == "e2-highcpu-8"


def test_flags_that_may_be_given_several_times_are_added_to():
    recipe = recipe_with({"labels": {"team": "vision", "cost": "7"}})
    given = ["--label", "team=audio", "--experiments=shuffle_mode=service", "--use_public_ips"]
    flags = flags_of(recipe, given)
    assert [flag for flag in flags if flag.startswith("--labels")] == ["--labels=cost=7"]
    assert flags[-4:] == given
    assert "--experiments=no_use_multiple_sdk_containers" in flags
    assert "--experiments=no_use_multiple_sdk_containers" not in flags_of(
        given=["--experiments=use_multiple_sdk_containers"]
    )


def test_all_flags_given_again_stay_as_they_are():
    flags = flags_of(recipe_with({"labels": {"team": "vision"}}))
    assert flags_of(recipe_with({"labels": {"team": "vision"}}), flags) == flags


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        (OUTPUT, "hugs-20260102-030405-train"),
        ("gs://bucket/train", "train"),
        ("gs://bucket/A b/Été_1/eval", "a-b-t-1-eval"),
        ("gs://bucket/2026/preproc/eval", "embed-2026-eval"),
        ("gs://bucket/雏菊", "embed"),
    ],
)
def test_job_names_follow_the_rule_of_the_service(prefix, name):
    assert dataflow.job_name(prefix) == name
    assert re.fullmatch("[a-z]([-a-z0-9]{0,1022}[a-z0-9])?", name)


@pytest.mark.parametrize(
    ("given", "changes", "words"),
    [
        ([], {"output_prefix": "out/train"}, "Dataflow's workers write to a bucket. Received: 'out/train'"),
        ([], {"setup_file": None}, "no checkout here whose setup.py"),
        ([], {"project": "X"}, "cloud.project must be"),
        (["--region=mars-1"], {}, "cloud.region must be a region"),
        (["--region", "europe-west4", "--subnetwork=regions/us-central1/subnetworks/s"], {}, "not in the region"),
        (["--temp_location=/tmp/x"], {}, "--temp_location: must be a folder in a bucket"),
        (["--staging_location=gs://bucket"], {}, "--staging_location: must be a folder in a bucket"),
        (["--template_location=gs://b/t"], {}, "--template_location: embedding is a batch job"),
        (["--setup_file=setup.py"], {}, "--setup_file: must name a folder as well"),
        (["--streaming"], {}, "--streaming: embedding is a batch job"),
    ],
)
def test_what_cannot_become_a_job_is_refused(given, changes, words):
    with pytest.raises(InputError, match=re.escape(words)):
        flags_of(given=given, **changes)


def test_workers_install_the_versions_of_this_machine(monkeypatch):
    versions = {"tensorflow": "2.21.0+cpu", "keras": "3.15.1", "numpy": "2.4.6", "pillow": "12.3.0", "nncf": "3.2.0"}
    monkeypatch.setattr(dataflow, "_installed_version", versions.get)
    lines = ["tensorflow==2.21.0", "keras==3.15.1", "numpy==2.4.6", "pillow==12.3.0"]
    assert dataflow.worker_requirements(int8=False) == lines
    assert dataflow.worker_requirements(int8=True) == [*lines, "nncf==3.2.0"]


@pytest.mark.parametrize(
    ("runner", "local", "on_dataflow"),
    [
        (None, True, False),
        ("direct", True, False),
        ("DirectRunner", True, False),
        ("FnApiRunner", True, False),
        ("dataflow", False, True),
        ("DATAFLOWRUNNER", False, True),
        ("apache_beam.runners.dataflow.dataflow_runner.DataflowRunner", False, True),
        ("PortableRunner", False, False),
    ],
)
def test_runners_are_known_by_all_their_names(runner, local, on_dataflow):
    flags = [f"--runner={runner}"] if runner else []
    options = parse_beam_options(flags, own_flags=[])
    assert (is_local(options), is_dataflow(options)) == (local, on_dataflow)
    assert dataflow.uses_dataflow(flags) == on_dataflow


# --- What is refused before anything is sent ---


def make_data(folder):
    (folder / "dict.txt").write_text("a\nb\n")
    random_numbers = np.random.default_rng(0)
    for number in range(_ROWS):
        Image.fromarray(random_numbers.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{number}.png")
    for split in ("train", "eval"):
        (folder / f"{split}.csv").write_text("".join(f"{number}.png,{'ab'[number % 2]}\n" for number in range(_ROWS)))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def cloud(data, monkeypatch):
    """(bucket, service) for programs in this process."""
    monkeypatch.setattr(auth._Credentials, "_credentials_init", False)
    # Nothing here waits for a fault to pass.
    monkeypatch.setattr(RetryPolicy, "wait_sec", lambda self, tries: 0.0)
    with FaultyGcs(buckets=["bucket"]) as gcs, FakeDataflow() as service:
        for path in data.iterdir():
            gcs.put("bucket", path.name, path.read_bytes())
        for name, value in gcs.environment.items():
            monkeypatch.setenv(name, value)
        yield gcs, service


def run_embed(service, *flags, output=OUTPUT, lists="gs://bucket/train.csv", weights="random"):
    argv = ["--input_path", lists, "--input_dict", "gs://bucket/dict.txt", "--output_path", output]
    argv += ["--weights", weights, "--runner=DataflowRunner", f"--dataflow_endpoint={service.url}"]
    return embed.main([*argv, "--storage_retry_sec=0", *flags])


# No project to pack, and nothing to say about the packages of this machine: the quickest job.
QUICK = (f"--sdk_container_image={IMAGE}", "--experiments=disable_logging_submission_environment")


@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        (401, "Request had invalid authentication credentials.", "credentials: Google does not take them"),
        (403, "Dataflow API has not been used in project loopback before", "gcloud services enable dataflow"),
        (403, "(1f): Could not create workflow; user does not have write access", "roles/dataflow.developer"),
        (404, "The project was not found", "no such project or region: loopback, us-central1"),
        (429, "Quota exceeded for quota metric 'Requests'", "a quota of project loopback is used up"),
        (500, "Internal error", "the service failed ("),
        (503, "The service is unavailable", "does not answer ("),
        (400, "The workflow could not be created. Causes: bad name", "the service refuses the job ("),
    ],
)
def test_refusals_of_the_service_are_one_line_before_anything_is_written(cloud, status, message, words):
    gcs, service = cloud
    before = gcs.names("bucket")
    service.refusal = (status, message, "GET")
    with pytest.raises(InputError) as caught:
        run_embed(service)
    assert words in str(caught.value)
    assert message.rstrip(".") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert gcs.names("bucket") == before
    assert not service.jobs


@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        (409, "There is already an active job named x", "job_name: hugs-20260102-030405-train is still running"),
        (429, "The project has too many running jobs", "a quota of project loopback is used up"),
    ],
)
def test_refusals_of_the_job_itself_are_one_line(cloud, status, message, words, capfd):
    _, service = cloud
    service.refusal = (status, message, "POST")
    with pytest.raises(InputError, match=re.escape(words)):
        run_embed(service, *QUICK)
    assert not capfd.readouterr().err


def test_of_two_jobs_of_one_name_the_service_keeps_the_first(cloud):
    _, service = cloud
    service.hides_jobs = True
    assert run_embed(service, *QUICK) == 0
    with pytest.raises(InputError) as caught:
        run_embed(service, *QUICK)
    assert f"hugs-20260102-030405-train ({service.jobs[0].id}) is still running" in str(caught.value)
    assert f"us-central1/{service.jobs[0].id}?project=loopback" in str(caught.value)
    assert len(service.jobs) == 1


def test_a_service_out_of_reach(cloud):
    _, service = cloud
    service.url = "http://localhost:9"
    with pytest.raises(InputError, match="http://localhost:9 does not answer"):
        run_embed(service)


def test_no_credentials(cloud, monkeypatch):
    _, service = cloud
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/key.json")
    with pytest.raises(InputError, match=r"credentials: none .*gcloud auth application-default login"):
        run_embed(service)
    assert not service.requests


def test_no_project(cloud, monkeypatch):
    _, service = cloud
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(InputError, match="project: none is given"):
        run_embed(service)


@pytest.mark.parametrize(
    ("changes", "flags", "words"),
    [
        ({"lists": "train.csv"}, [], "input_path: 'train.csv' is on this machine"),
        ({"lists": "file:///x/train.csv"}, [], "input_path: 'file:///x/train.csv' is on this machine"),
        ({"output": "out/train"}, [], "output_path: Dataflow's workers write to a bucket"),
        ({}, ["--embedding_cache=/tmp/cache"], "embedding_cache: '/tmp/cache' is on this machine"),
        ({"lists": "gs://bucket/here.csv"}, [], "gs://bucket/here.csv:2: '/photos/2.png' is on this machine"),
        ({"output": "gs://other/job/preproc/train"}, [], "temp_location: cannot write to 'gs://other/hugs_staging"),
        ({}, ["--max_workers=3"], "unknown flag '--max_workers'. Did you mean '--max_num_workers'"),
        ({"weights": "/no/such.h5"}, [], "weights: no such file: '/no/such.h5'"),
    ],
)
def test_wrong_input_is_found_before_anything_is_sent(cloud, changes, flags, words):
    gcs, service = cloud
    gcs.put("bucket", "here.csv", b"1.png,a\n/photos/2.png,b\n")
    before = gcs.names("bucket")
    with pytest.raises(InputError, match=re.escape(words)):
        run_embed(service, *flags, **changes)
    assert gcs.names("bucket") == before
    assert not service.jobs


def test_a_bucket_that_cannot_be_written_to(cloud):
    gcs, service = cloud
    gcs.plan = FaultPlan(share=1.0, faults=["403"], only="upload")
    with pytest.raises(InputError, match=r"temp_location: cannot write to 'gs://bucket/hugs_staging/temp'"):
        run_embed(service)
    assert not service.jobs


def test_beams_own_checks_are_one_line(cloud):
    # Those that Beam leaves out for an endpoint that is called localhost.
    flags = ["--runner=DataflowRunner", "--project=12345", "--region=us-central1", "--job_name=A_b"]
    flags += ["--temp_location=gs://bucket/t", "--staging_location=gs://bucket/s"]
    flags += ["--num_workers=30", "--max_num_workers=20"]
    options = parse_beam_options(flags, own_flags=[])
    with pytest.raises(InputError) as caught:
        check_options(make_runner(options), options)
    assert "Invalid job_name (A_b)" in str(caught.value)
    assert "Invalid Project ID (12345)" in str(caught.value)
    assert "num_workers (30) cannot exceed max_num_workers (20)" in str(caught.value)


def test_a_checkout_that_cannot_be_packed(cloud, tmp_path, capfd):
    _, service = cloud
    (tmp_path / "setup.py").write_text("raise SystemExit('no setup today')")
    with pytest.raises(InputError, match="the project cannot be packed for the workers; see above"):
        run_embed(service, f"--setup_file={tmp_path / 'setup.py'}")
    assert "no setup today" in capfd.readouterr().err


def test_a_requirements_file_that_is_not_there(cloud):
    _, service = cloud
    with pytest.raises(InputError, match=r"cannot be packed for the workers \(The file /no/such.txt cannot be found"):
        run_embed(service, "--requirements_file=/no/such.txt", QUICK[1])


# --- With an image ---


def write_recipe(path, **options):
    lines = "".join(f"  {name}: {json.dumps(value)}\n" for name, value in options.items())
    path.write_text(f"name: hugs\ndataflow:\n{lines}")
    return str(path)


@pytest.fixture
def no_weights_here(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for scheme in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")


def test_weights_and_engine_of_an_image_need_not_be_on_this_machine(
    cloud, tmp_path, no_weights_here, monkeypatch, capsys
):
    gcs, service = cloud
    monkeypatch.setattr(engine_choice, "has_openvino", lambda: False)
    before = gcs.names("bucket")
    with_weights = write_recipe(tmp_path / "with.yaml", image=IMAGE, weights_in_image=True)
    flags = ["--engine=openvino", "--dry_run"]
    assert run_embed(service, "--recipe", with_weights, *flags, weights="imagenet") == 0
    assert "weights from" not in capsys.readouterr().out
    without_weights = write_recipe(tmp_path / "without.yaml", image=IMAGE)
    with pytest.raises(InputError, match="weights: the ImageNet weights are not on this machine"):
        run_embed(service, "--recipe", without_weights, *flags, weights="imagenet")
    with pytest.raises(InputError, match="engine: openvino needs OpenVINO"):
        run_embed(service, *flags)
    assert gcs.names("bucket") == before
    assert not service.jobs


def test_a_job_with_an_image_stages_the_weights_and_no_project(cloud, tmp_path):
    gcs, service = cloud
    weights = tmp_path / "mine.weights.h5"
    weights.write_bytes(b"weights")
    recipe = write_recipe(
        tmp_path / "gpu.yaml",
        machine_type="n1-standard-8",
        image=IMAGE,
        gpu="t4",
        flexrs="speed",
        public_ips=False,
        num_workers=3,
        autoscaling="none",
    )
    assert run_embed(service, "--recipe", recipe, QUICK[1], weights=str(weights)) == 0
    (job,) = service.jobs
    environment = job.posted["environment"]
    (pool,) = environment["workerPools"]
    assert {image["containerImage"] for image in pool["sdkHarnessContainerImages"]} == {IMAGE}
    assert environment["serviceOptions"] == ["worker_accelerator=type:nvidia-tesla-t4;count:1;install-nvidia-driver"]
    assert environment["flexResourceSchedulingGoal"] == 1  # FLEXRS_SPEED_OPTIMIZED
    assert pool["ipConfiguration"] == 2  # WORKER_IP_PRIVATE
    assert pool["numWorkers"] == 3
    assert pool["autoscalingSettings"]["algorithm"] == 1  # AUTOSCALING_ALGORITHM_NONE
    assert not pool.get("packages")
    (staged,) = [name for name in gcs.names("bucket") if name.startswith("hugs_staging/weights/")]
    assert gcs.get("bucket", staged) == b"weights"
    stage = stages_of(pipeline_of(gcs, job))["EmbedLists/EmbedImages"]
    assert stage._options.load_engine.backbone.staged.uri == f"gs://bucket/{staged}"


# --- The pipeline that is sent ---


def pipeline_of(gcs, job):
    path = job.posted["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
    return beam_runner_api_pb2.Pipeline.FromString(gcs.get("bucket", path.removeprefix("gs://bucket/")))


def steps_of(pipeline):
    return {step.unique_name: step for step in pipeline.components.transforms.values()}


def stages_of(pipeline):
    """The unpickled stages, by the names of their steps."""
    stages = {}
    for name in ("EmbedLists/ReadRows", "EmbedLists/EmbedImages", "EmbedLists/FinishRecordSet"):
        payload = beam_runner_api_pb2.ParDoPayload.FromString(steps_of(pipeline)[name].spec.payload)
        stages[name] = pickler.loads(payload.do_fn.payload)[0]
    return stages


class Submitted:
    """A recipe's lists, handed over by `pipelines.preproc --wait` in a process of its own, which then waits."""

    # Beam asks for the state of a job every five seconds.
    _PROGRAM = (
        "import time, types\n"
        "from apache_beam.runners.dataflow import dataflow_runner\n"
        "sleep = lambda seconds: time.sleep(min(seconds, 0.05))\n"
        "dataflow_runner.time = types.SimpleNamespace(sleep=sleep, time=time.time)\n"
        "from configs.errors import run_program\n"
        "from pipelines.preproc import main\n"
        "run_program(main)"
    )

    def __init__(self, folder, gcs, service):
        self.gcs, self.service, self.folder = gcs, service, folder
        # A copy: packing the project leaves a folder in it.
        self.source = folder / "source"
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        for package in project["tool"]["setuptools"]["packages"]:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / package, self.source / package, ignore=ignored)
        for name in ("setup.py", "pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, self.source)
        recipe = self.source / "hugs.yaml"
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
            cwd=self.source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | self.gcs.environment | {"HUGS_CACHE_DIR": str(self.folder / "cache")},
        )


@pytest.fixture(scope="module")
def submitted(data, tmp_path_factory):
    with FaultyGcs(buckets=["bucket"]) as gcs, FakeDataflow() as service:
        for path in data.iterdir():
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
    assert re.fullmatch(r"hugs-\d{8}-\d{6}-train", train.name)
    assert eval_.name == train.name.removesuffix("train") + "eval"
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
    assert lines == dataflow.worker_requirements(int8=False)
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
    site = folder / "lib/python3.11/site-packages"
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
        [python, "-I", ROOT / "tests/pipelines/staged_worker.py", site, *paths],
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
    job_dir = "gs://bucket/" + train.name.removesuffix("-train").replace("-", "_")
    for job, split in ((train, "train"), (eval_, "eval")):
        assert f"submitted {_ROWS} rows as Dataflow job {job.id}" in stdout
        assert f"https://console.cloud.google.com/dataflow/jobs/us-central1/{job.id}?project=loopback" in stdout
        assert f"gcloud dataflow jobs describe {job.id} --region=us-central1 --project=loopback" in stdout
        assert f"{job_dir}/preproc/_{split}/report.json" in stdout
        assert f"{job_dir}/preproc/{split}: {_ROWS} rows read" in stdout
    assert "not compared with the training set" in stdout
    assert stdout.splitlines()[-1].endswith(f"hugs_train.sh gs://bucket {job_dir}")
    names = submitted.gcs.names("bucket")
    assert f"{job_dir.removeprefix('gs://bucket/')}/preproc/_train/manifest.json" in names
    assert not [name for name in names if "/parts-" in name]


# --- The program for all lists ---


def run_preproc(service, *flags, prepare=embed.prepare):
    argv = ["--data_dir", "gs://bucket", "--job_dir", "gs://bucket/job", "--weights", "random"]
    return preproc.main([*argv, f"--dataflow_endpoint={service.url}", *flags], prepare=prepare)


def test_a_dry_run_prints_commands_that_can_be_given_and_writes_nothing(cloud, capsys):
    gcs, service = cloud
    before = gcs.names("bucket")
    assert run_preproc(service, "--dry_run", "--embedding_cache=gs://bucket/cache") == 0
    assert {exchange.request.partition(" ")[0] for exchange in gcs.exchanges} == {"GET"}
    commands = [line for line in capsys.readouterr().out.splitlines() if line.startswith("python -m pipelines.embed")]
    assert len(commands) == 2
    assert "--job_name=job-eval" in commands[1]
    assert "--runner=DataflowRunner" in commands[1]
    assert "--dry_run" not in commands[1]
    argv = commands[1].split()[3:]
    again = embed.prepare(argv)
    assert list(again.flags) == argv
    assert not any(request.startswith("POST") for request in service.requests)
    # Preparing without --dry_run tries whether it can write, and leaves nothing.
    assert gcs.names("bucket") == before


def test_nothing_is_handed_over_if_one_of_the_lists_is_wrong(cloud):
    gcs, service = cloud
    gcs.put("bucket", "eval.csv", b"1.png,neither\n")
    with pytest.raises(InputError, match=r"eval.csv:1: Label 'neither'"):
        run_preproc(service)
    assert not service.jobs
    assert not [name for name in gcs.names("bucket") if name.startswith("job/")]


def test_jobs_that_fail_are_all_heard_of_and_named(cloud, monkeypatch, capsys, caplog):
    _, service = cloud
    caplog.set_level(logging.WARNING, logger="apache_beam")
    short = types.SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, 0.02)), time=time.time)
    monkeypatch.setattr(dataflow_runner, "time", short)
    service.new_states = ["JOB_STATE_RUNNING", "JOB_STATE_FAILED"]
    service.new_messages = [("JOB_MESSAGE_ERROR", "Workflow failed. Causes: no\nStockout in the zone.")]
    assert run_preproc(service, "--wait", *QUICK) == 2
    stdout, stderr = capsys.readouterr()
    for line, split in zip(stderr.splitlines(), ("train", "eval"), strict=True):
        assert line.startswith(f"error: gs://bucket/job/preproc/{split}: the job ended in state FAILED (Stockout in")
        assert "https://console.cloud.google.com/dataflow/jobs/" in line
        assert "give the same command again" in line
    assert "next:" not in stdout
    # Beam logs the same, with more lines.
    assert not [record for record in caplog.records if record.name.startswith("apache_beam.runners")]
    # And so is one that somebody stopped.
    service.new_states = ["JOB_STATE_CANCELLED"]
    assert run_preproc(service, "--wait", *QUICK) == 2
    assert capsys.readouterr().err.count("the job ended in state CANCELLED") == 2


def test_a_bucket_with_the_direct_runner_stays_here(cloud):
    calls = []
    _, service = cloud
    argv = ["--data_dir", "gs://bucket", "--runner", "DirectRunner"]
    assert preproc.main(argv, embed=lambda flags: calls.append(list(flags)) or 0) == 0
    assert len(calls) == 2
    assert not service.requests


def test_a_directory_goes_to_dataflow_only_if_asked_to(cloud, data):
    _, service = cloud
    calls = []
    assert preproc.main(["--data_dir", str(data)], embed=lambda flags: calls.append(list(flags)) or 0) == 0
    assert not any("DataflowRunner" in flag for call in calls for flag in call)
    with pytest.raises(InputError, match="train.csv' is on this machine"):
        preproc.main(["--data_dir", str(data), "--runner=DataflowRunner", f"--dataflow_endpoint={service.url}"])


def test_workers_without_public_addresses_get_a_warning_unless_they_have_an_image(cloud, tmp_path, capsys):
    _, service = cloud
    for image, warns in ((None, True), (IMAGE, False)):
        recipe = write_recipe(tmp_path / "private.yaml", public_ips=False, image=image)
        assert run_embed(service, "--recipe", recipe, "--dry_run") == 0
        assert ("Cloud NAT" in capsys.readouterr().err) == warns


def test_a_local_dry_run_makes_no_folder(data, tmp_path, capsys):
    argv = ["--data_dir", str(data), "--job_dir", str(tmp_path / "job"), "--weights=random", "--dry_run"]
    assert preproc.main(argv) == 0
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out.count("python -m pipelines.embed --input_path") == 2
