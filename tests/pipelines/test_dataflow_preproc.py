"""All lists of a recipe on Dataflow at once: checked, handed over, waited for."""

import logging
import shlex
import time
import types

import pytest
from apache_beam.runners.dataflow import dataflow_runner

from configs.errors import InputError
from configs.printed_commands import program_command, program_words
from pipelines import embed, preproc
from tests.support.dataflow_job import QUICK, pipeline_of, run_embed, stages_of


def run_preproc(service, *flags, prepare=embed.prepare):
    argv = ["--data_dir", "gs://bucket", "--job_dir", "gs://bucket/job", "--weights", "random"]
    return preproc.main([*argv, f"--dataflow_endpoint={service.url}", *flags], prepare=prepare)


def test_a_dry_run_prints_commands_that_can_be_given_and_writes_nothing(cloud, capsys):
    gcs, service = cloud
    before = gcs.names("bucket")
    assert run_preproc(service, "--dry_run", "--embedding_cache=gs://bucket/cache") == 0
    assert {exchange.request.partition(" ")[0] for exchange in gcs.exchanges} == {"GET"}
    printed = capsys.readouterr().out
    assert printed.endswith("\ndry run: this would be run, unless it is done already; nothing was\n")
    assert "hugs_train.sh" not in printed  # There is nothing to train on.
    commands = [line for line in printed.splitlines() if line.startswith(program_command("embed"))]
    assert len(commands) == 2
    assert "--job_name=job-eval" in commands[1]
    assert "--runner=DataflowRunner" in commands[1]
    assert "--dry_run" not in commands[1]
    argv = shlex.split(commands[1])[len(program_words("embed")) :]
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


def test_who_does_not_wait_is_told_what_comes_then(cloud, capsys):
    _, service = cloud
    assert run_preproc(service, *QUICK) == 0
    assert [job.name.rpartition("-")[0] for job in service.jobs] == ["job-train", "job-eval"]
    *_, blank, once, command = capsys.readouterr().out.splitlines()
    assert blank == ""
    assert once == "next, once all of them are done (--wait waits for that, and says how they ended):"
    assert command.endswith("hugs_train.sh gs://bucket gs://bucket/job")


# As the service words it: https://github.com/GoogleCloudPlatform/pontem/issues/251.
STOCKOUT = (
    "Startup of the worker pool in zone europe-west1-c failed to bring up any of the desired 1 workers. Please refer "
    "to https://cloud.google.com/dataflow/docs/guides/common-errors#worker-pool-failure for help troubleshooting. "
    "ZONE_RESOURCE_POOL_EXHAUSTED: Instance creation failed: The zone 'projects/project/zones/europe-west1-c' does not "
    "have enough resources available to fulfill the request.  Try a different zone, or try again later."
)


def test_jobs_that_fail_are_all_heard_of_and_named(cloud, monkeypatch, capsys, caplog):
    _, service = cloud
    caplog.set_level(logging.WARNING, logger="apache_beam")
    short = types.SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, 0.02)), time=time.time)
    monkeypatch.setattr(dataflow_runner, "time", short)
    service.new_states = ["JOB_STATE_RUNNING", "JOB_STATE_FAILED"]
    service.new_messages = [("JOB_MESSAGE_ERROR", f"Workflow failed.\n{STOCKOUT}")]
    assert run_preproc(service, "--wait", *QUICK) == 2
    stdout, stderr = capsys.readouterr()
    for line, split in zip(stderr.splitlines(), ("train", "eval"), strict=True):
        assert line.startswith(f"error: gs://bucket/job/preproc/{split}: the job ended in state FAILED (Startup of ")
        assert "The region has no such machine at the moment. Try again later, or choose another" in line
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


def test_a_directory_goes_to_dataflow_only_if_asked_to(cloud, photos):
    _, service = cloud
    calls = []
    assert preproc.main(["--data_dir", str(photos)], embed=lambda flags: calls.append(list(flags)) or 0) == 0
    assert not any("DataflowRunner" in flag for call in calls for flag in call)
    with pytest.raises(InputError, match="train.csv' is on this machine"):
        preproc.main(["--data_dir", str(photos), "--runner=DataflowRunner", f"--dataflow_endpoint={service.url}"])


def test_a_local_dry_run_makes_no_folder(photos, tmp_path, capsys):
    argv = ["--data_dir", str(photos), "--job_dir", str(tmp_path / "job"), "--weights=random", "--dry_run"]
    assert preproc.main(argv) == 0
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out.count(program_command("embed", "--input_path")) == 2


def test_several_backbones_are_one_job_for_each_list(cloud, capsys):
    gcs, service = cloud
    backbones = ["--backbone", "inception_v3,mobilenet_1.0_224"]
    assert run_preproc(service, *backbones, *QUICK) == 0
    assert [job.name.rpartition("-")[0] for job in service.jobs] == [
        "job-inception-v3-mobilenet-1-0-224-train",
        "job-inception-v3-mobilenet-1-0-224-eval",
    ]
    told = capsys.readouterr().out
    stage = stages_of(pipeline_of(gcs, service.jobs[0]))["EmbedLists/EmbedImages"]
    for made, name, size in zip(stage._sets, ("inception_v3", "mobilenet_1.0_224"), (299, 224), strict=True):
        output = f"gs://bucket/job/{name}/preproc/train"
        assert (made.job.output_prefix, made.job.backbone_name, made.size) == (output, name, size)
        assert made.load_engine.backbone.architecture == name
        assert f"  records   {output}-*\n" in told
        assert told.count(f"hugs_train.sh gs://bucket gs://bucket/job/{name}\n") == 1
        # Each output is locked for this job until it is over.
        assert gcs.get("bucket", f"job/{name}/preproc/_train/.lock")
    with pytest.raises(InputError, match="job_name: .* is still running"):
        run_preproc(service, *backbones, *QUICK)
    with pytest.raises(InputError, match="gs://bucket/job/inception_v3/preproc/train' is being written by"):
        run_embed(service, *QUICK, output="gs://bucket/job/inception_v3/preproc/train")
