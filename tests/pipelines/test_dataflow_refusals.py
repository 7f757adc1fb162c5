"""What is wrong with a job on Dataflow is one line, before anything is sent or written."""

import re

import pytest

pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")

from configs.errors import InputError
from pipelines.embedding.submission import check_options
from pipelines.runners.beam_options import make_runner, parse_beam_options
from pipelines.runners.dataflow import job_name
from tests.support.dataflow_job import OUTPUT, QUICK, run_embed
from tests.support.faulty_gcs import FaultPlan

NAME = job_name(OUTPUT)


@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        (401, "Request had invalid authentication credentials.", "credentials: Google does not take them"),
        (403, "Dataflow API has not been used in project loopback before", "gcloud services enable dataflow"),
        (
            403,
            "Your application is authenticating by using local Application Default Credentials. The "
            "dataflow.googleapis.com API requires a quota project, which is not set by default.",
            "gcloud auth application-default set-quota-project loopback",
        ),
        (
            403,
            "Dataflow API has not been used in project 764086051850 before or it is disabled.",
            "gcloud auth application-default set-quota-project loopback",
        ),
        (
            403,
            "Caller does not have required permission to use project loopback. Grant the caller the "
            "roles/serviceusage.serviceUsageConsumer role",
            "Your account needs the role roles/serviceusage.serviceUsageConsumer in project loopback",
        ),
        (
            403,
            "(1f): Current user cannot act as service account w@loopback-1.iam.gserviceaccount.com.",
            "Your account needs the role roles/iam.serviceAccountUser on the service account",
        ),
        (403, "Required 'compute.machineTypes.get' permission for 'x'", "the role roles/compute.viewer in project"),
        (
            403,
            "(1f): Could not create workflow; user does not have write access",
            "roles/dataflow.developer and roles/compute.viewer",
        ),
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
        (409, "There is already an active job named x", f"job_name: {NAME} is still running"),
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
    assert f"{NAME} ({service.jobs[0].id}) is still running" in str(caught.value)
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
        ({"lists": "file:///x/train.csv"}, [], "input_path: '/x/train.csv' is on this machine"),
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
