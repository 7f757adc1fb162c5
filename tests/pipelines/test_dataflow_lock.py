"""One output, a run here and a job on Dataflow: whoever comes second is refused, and told where to look."""

import json

import pytest

from configs.errors import InputError
from pipelines import embed
from preprocess.beam.transforms import EngineLoader
from preprocess.jobs.block_results import StoredResult
from preprocess.locks.lock_holder import this_process
from preprocess.locks.output_lock import locked
from preprocess.storage.router import UriStorage
from tests.support.dataflow_job import OUTPUT, QUICK, ROWS, pipeline_of, run_embed, stages_of
from tests.support.stand_ins import StandInEngine

FOLDER = OUTPUT.removesuffix("train") + "_train"
LOCK = f"{FOLDER}/.lock".removeprefix("gs://bucket/")


def run_here(service, monkeypatch, *flags):
    engine = StandInEngine()
    monkeypatch.setattr(EngineLoader, "__call__", lambda self: engine)
    argv = ["--input_path", "gs://bucket/train.csv", "--input_dict", "gs://bucket/dict.txt", "--output_path", OUTPUT]
    argv += ["--weights", "random", "--storage_retry_sec=0", f"--dataflow_endpoint={service.url}"]
    return embed.main([*argv, *flags])


def test_a_run_here_leaves_an_output_to_the_job_on_dataflow_until_that_is_over(cloud, monkeypatch):
    gcs, service = cloud
    assert run_embed(service, *QUICK) == 0
    (job,) = service.jobs
    assert json.loads(gcs.get("bucket", LOCK))["service_job"] == ["loopback", "us-central1", job.name]
    before = gcs.names("bucket")
    for flags in ([], ["--overwrite"], ["--overwrite", "--seed=7"]):
        with pytest.raises(InputError) as refusal:
            run_here(service, monkeypatch, *flags)
        said = str(refusal.value)
        assert f"is being written by the job {job.name} in project loopback, region us-central1" in said
        assert f"https://console.cloud.google.com/dataflow/jobs/us-central1/{job.id}?project=loopback" in said
    assert gcs.names("bucket") == before
    # Who may not ask the service cannot know; the line says how to go on.
    service.refusal = (403, "not yours", "GET")
    with pytest.raises(InputError, match=f"cannot be told .*remove gs://bucket/{LOCK}"):
        run_here(service, monkeypatch)
    service.refusal = None
    job.states = ["JOB_STATE_FAILED"]
    assert run_here(service, monkeypatch) == 0
    manifest = json.loads(gcs.get("bucket", f"{FOLDER}/manifest.json".removeprefix("gs://bucket/")))
    assert manifest["records"] == ROWS
    assert LOCK not in gcs.names("bucket")


def test_a_job_of_another_name_is_not_handed_over_while_one_runs(cloud):
    _, service = cloud
    run_embed(service, *QUICK)
    with pytest.raises(InputError, match="is being written by the job"):
        run_embed(service, *QUICK, "--job_name=another")
    service.jobs[0].states = ["JOB_STATE_CANCELLED"]
    run_embed(service, *QUICK, "--job_name=another")
    assert [job.name for job in service.jobs][1:] == ["another"]


def test_no_job_is_handed_over_while_a_run_here_writes_the_output(cloud):
    gcs, service = cloud
    holder = this_process(program="pipelines.embed")
    with (
        locked(FOLDER, holder=holder, flag="output_path", output=OUTPUT, storage=UriStorage()),
        pytest.raises(InputError, match="another process is writing"),
    ):
        run_embed(service, *QUICK)
    assert not service.jobs
    assert LOCK not in gcs.names("bucket")


def test_a_job_that_the_service_refuses_leaves_no_lock(cloud):
    gcs, service = cloud
    service.refusal = (403, "not today", "POST")
    with pytest.raises(InputError, match="no permission"):
        run_embed(service, *QUICK)
    assert LOCK not in gcs.names("bucket")


def test_workers_whose_output_another_run_has_taken_over_finish_nothing(cloud, monkeypatch):
    gcs, service = cloud
    run_embed(service, *QUICK)
    (job,) = service.jobs
    last = stages_of(pipeline_of(gcs, job))["EmbedLists/FinishRecordSet"]
    job.states = ["JOB_STATE_FAILED"]  # So it looked, to the service.
    assert run_here(service, monkeypatch) == 0
    before = {name: gcs.get("bucket", name) for name in gcs.names("bucket")}
    # The run here has finished the set, and deleted the results of the job's workers.
    results = [StoredResult("_train/parts-0123456789ab/00000-0000000-01234567-0123456789ab.result.json")]
    with pytest.raises(InputError, match="this run has lost .* its lock is gone"):
        list(last.process(None, [(result,) for result in results]))
    assert {name: gcs.get("bucket", name) for name in gcs.names("bucket")} == before
