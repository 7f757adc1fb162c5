from __future__ import annotations

import pytest
import yaml

from cloud import train
from configs.errors import InputError
from tests.support.cloud_job import JOB_DIR, FakeGcloud, put_model, put_records

ARGUMENTS = ("--data_dir", "gs://bucket/", "--job_dir", f"{JOB_DIR}/")
CREATED = {"name": "projects/1/locations/us-central1/customJobs/55", "state": "JOB_STATE_PENDING"}


def fake(**answers):
    described = {"artifacts repositories describe": {}}
    return FakeGcloud(**{**described, "custom-jobs list": [], "custom-jobs create": CREATED, **answers})


def refusal(*flags, run=None):
    with pytest.raises(InputError) as error:
        train.main([*ARGUMENTS, *flags], run=run or FakeGcloud())
    return str(error.value)


def test_a_job_is_started(gcs, capsys):
    put_records(gcs, "train", "eval", "test")
    configs = []
    run = fake()

    def create(command):
        with open(next(flag for flag in command if flag.startswith("--config=")).removeprefix("--config=")) as stream:
            configs.append(yaml.safe_load(stream))
        return CREATED

    run.answers["custom-jobs create"] = create
    assert train.main([*ARGUMENTS, "--project", "my-project", "--", "--max_steps", "5"], run=run) == 0
    package, lock = sorted(name for name in gcs.names("bucket") if "/package/" in name)
    assert package.startswith("hugs_1/training/package/hugs-")
    assert b"\ntensorflow==" in gcs.get("bucket", lock)
    (create_command,) = run.named("ai", "custom-jobs", "create")
    assert "--project=my-project" in create_command
    assert "--display-name=bucket/hugs_1/training" in create_command
    container = configs[0]["workerPoolSpecs"][0]["containerSpec"]
    assert container["command"][-2:] == [f"/gcs/bucket/{lock}", f"/gcs/bucket/{package}"]
    assert container["args"][-2:] == ["--max_steps", "5"]
    assert f"--test_data_paths={JOB_DIR}/preproc/test" in container["args"]
    said = capsys.readouterr().out
    for words in (
        "job 55 was started in us-central1",
        "gcloud ai custom-jobs stream-logs 55 --project=my-project --region=us-central1",
        "https://console.cloud.google.com/agent-platform/training/custom-jobs?project=my-project",
        f"model    {JOB_DIR}/training/model",
        f"./hugs_deploy.sh {JOB_DIR}/training",
    ):
        assert words in said

    # The same source is not sent twice.
    sent = len(gcs.exchanges)
    assert train.main([*ARGUMENTS, "--", "--max_steps", "6"], run=fake()) == 0
    assert not any("upload" in one.request for one in gcs.exchanges[sent:])


def test_a_dry_run_sends_nothing_and_needs_no_gcloud(gcs, capsys):
    put_records(gcs, "train", "eval")

    def run(command):
        pytest.fail(f"{command} was run")

    assert train.main([*ARGUMENTS, "--dry_run", "--job_id", "x", "--region", "europe-west4"], run=run) == 0
    assert len(gcs.names("bucket")) == 2
    text = capsys.readouterr().out
    spec = yaml.safe_load(text.partition("\n\ngcloud")[0])
    assert f"--output_path={JOB_DIR}/x" in spec["workerPoolSpecs"][0]["containerSpec"]["args"]
    assert (
        "\ngcloud ai custom-jobs create --project=loopback --region=europe-west4 --display-name=bucket/hugs_1/x "
        "--config=custom_job.yaml\n" in text
    )
    assert "nothing was" in text


def test_an_image_with_the_trainer_needs_no_package(gcs, tmp_path, capsys):
    put_records(gcs, "train", "eval")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "vertex: {image: eu-docker.pkg.dev/p/r/hugs:1, trainer_in_image: true}\ncloud: {labels: {a: b}}\n"
    )
    run = fake()
    assert train.main([*ARGUMENTS, "--recipe", str(recipe)], run=run) == 0
    assert not any("/package/" in name for name in gcs.names("bucket"))
    assert "--labels=a=b" in run.named("ai", "custom-jobs", "create")[0]
    assert f"RECIPE={recipe} ./hugs_deploy.sh" in capsys.readouterr().out


def test_python_comes_through_the_repository_of_the_project(gcs, tmp_path):
    """Docker Hub limits pulls without an account, so the machines get its image from Artifact Registry."""
    put_records(gcs, "train", "eval")
    run = fake(**{"artifacts repositories describe": "ERROR: (gcloud.artifacts) NOT_FOUND: no\n"})
    said = refusal(run=run)
    assert "vertex.image: us-central1-docker.pkg.dev/loopback/docker-hub/library/python:3.11 is not there" in said
    assert "gcloud artifacts repositories create docker-hub --project loopback --location us-central1" in said
    assert not run.named("ai")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("vertex: {image: python:3.11}\n")
    assert train.main([*ARGUMENTS, "--recipe", str(recipe)], run=(own := fake())) == 0
    assert not own.named("artifacts")


def test_unfinished_records(gcs):
    assert f"{JOB_DIR}/preproc/_train/manifest.json: not there" in refusal()
    put_records(gcs, "train")
    said = refusal()
    assert f"{JOB_DIR}/preproc/_eval/manifest.json: not there, so the records are not finished" in said
    assert "gcloud dataflow jobs list --project loopback --region us-central1" in said
    assert f"./hugs_preproc.sh gs://bucket --job_dir {JOB_DIR}" in said
    assert f"RECIPE=flowers ./hugs_preproc.sh gs://bucket --job_dir {JOB_DIR} --region=europe-west4" in refusal(
        "--recipe", "flowers", "--region", "europe-west4"
    )


def test_records_of_several_networks_are_in_a_folder_each(gcs):
    gcs.put("bucket", "hugs_1/net/preproc/_train/manifest.json", b"{}")
    said = refusal()
    assert f"{JOB_DIR}: has the records of several networks, each in a folder. Train on one of them" in said
    assert f"hugs_train.sh gs://bucket {JOB_DIR}/net" in said


@pytest.mark.parametrize("split", ["eval", "test"])
def test_records_of_another_network(gcs, split):
    put_records(gcs, "train", "eval", "test")
    path = f"hugs_1/preproc/_{split}/manifest.json"
    gcs.put("bucket", path, gcs.get("bucket", path).replace(b"sha256:0", b"sha256:1"))
    assert f"{JOB_DIR}/preproc/train and {JOB_DIR}/preproc/{split} come from different backbones" in refusal()


def test_a_folder_that_is_no_model_of_ours_is_not_replaced(gcs):
    put_records(gcs, "train", "eval")
    gcs.put("bucket", "hugs_1/training/model/saved_model.pb", b"of somebody else")
    assert f"JOB_ID: {JOB_DIR}/training/model is there already and is not a model of an earlier run" in refusal()
    put_model(gcs)
    assert train.main([*ARGUMENTS, "--dry_run"], run=fake()) == 0


def test_weights_that_the_container_cannot_have(gcs):
    put_records(gcs, "train", "eval", weights="/home/me/w.h5")
    assert "weights: the records were made with the weights in /home/me/w.h5" in refusal()


def test_a_job_name_that_is_taken(gcs):
    put_records(gcs, "train", "eval")
    name = "bucket/hugs_1/training"
    ended = {"displayName": name, "name": "a/1", "state": "JOB_STATE_FAILED"}
    assert train.main(ARGUMENTS, run=fake(**{"custom-jobs list": [ended]})) == 0
    active = {"displayName": name, "name": "a/2", "state": "JOB_STATE_RUNNING"}
    run = fake(**{"custom-jobs list": [ended, active]})
    said = refusal(run=run)
    assert "job name taken: job 2 (running) already writes to gs://bucket/hugs_1/training" in said
    assert "stream-logs 2" in said
    assert "choose another JOB_ID" in said
    assert not run.named("ai", "custom-jobs", "create")


def test_nothing_is_sent_where_gcloud_refuses(gcs):
    put_records(gcs, "train", "eval")
    not_logged_in = "ERROR: (gcloud.ai.custom-jobs.list) You do not currently have an active account selected.\n"
    assert "active account selected. Log in: gcloud auth login" in refusal(
        run=fake(**{"custom-jobs list": not_logged_in})
    )
    assert len(gcs.names("bucket")) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--job_dir", "gs://bucket"], "--job_dir: must be gs://BUCKET/FOLDER"),
        (["--job_dir", "gs://bucket/a*b"], "--job_dir: must be gs://BUCKET/FOLDER"),
        (["--job_dir", "gs://bucket/a;b"], "--job_dir: must be gs://BUCKET/FOLDER"),
        (["--job_dir", "gs://bucket/a/../b"], "--job_dir: must be gs://BUCKET/FOLDER"),
        (["--job_dir", "gs://bucket//b"], "--job_dir: must be gs://BUCKET/FOLDER"),
        (["--data_dir", "gs://"], "--data_dir: must be gs://BUCKET"),
        (["--job_id", "a/b"], "--job_id must be letters, digits"),
        (["--region", "us-centrall"], "cloud.region must be"),
        (["--project", "My Project"], "cloud.project must be"),
        (["--waiting"], "unrecognized arguments: --waiting. Did you mean '--wait'?"),
        (
            ["--max_steps", "5"],
            "unrecognized arguments: --max_steps 5. `",
        ),
        (["--max_steps", "5"], "Flags of the trainer stand after '--'."),
        (["--", "--max_step=1"], "Did you mean '--max_steps'?"),
        (["--job_dir", "gs://no-such-bucket/x"], "No such bucket: gs://no-such-bucket"),
    ],
)
def test_wrong_input(gcs, flags, message):
    assert message in refusal(*flags)


def test_no_project(gcs, monkeypatch):
    for name in ("GOOGLE_CLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert "project: none is given" in refusal()


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("CANCELLED", 1)])
def test_waiting(gcs, capsys, monkeypatch, state, code):
    monkeypatch.setattr(train, "_POLL_SEC", 0)
    put_records(gcs, "train", "eval")
    busy = "ERROR: (gcloud.ai.custom-jobs.describe) UNAVAILABLE: busy\n"
    error = {"message": "The replica\nexited with 1."} if state == "FAILED" else {}
    states = iter(["QUEUED", "RUNNING", busy, "RUNNING", state])

    def describe(_):
        answer = next(states)
        return answer if answer is busy else {**CREATED, "state": f"JOB_STATE_{answer}", "error": error}

    assert train.main([*ARGUMENTS, "--wait"], run=fake(**{"custom-jobs describe": describe})) == code
    said = capsys.readouterr()
    assert [line.partition("job 55: ")[2] for line in said.out.splitlines()[-3:]] == [
        "queued",
        "running",
        state.lower(),
    ]
    if state == "FAILED":
        assert said.err == "training failed: The replica exited with 1.\n"


@pytest.mark.parametrize("answer", [None, {}, [1]])
def test_no_job_is_reported_where_gcloud_names_none(gcs, answer):
    put_records(gcs, "train", "eval")
    said = refusal(run=fake(**{"custom-jobs create": answer}))
    assert "gcloud ai custom-jobs create: gcloud's answer has not 'name'" in said


def test_waiting_ends_where_gcloud_does_not_answer(gcs, monkeypatch):
    monkeypatch.setattr(train, "_POLL_SEC", 0)
    put_records(gcs, "train", "eval")
    broken = fake(**{"custom-jobs describe": "ERROR: (gcloud) UNAVAILABLE: busy\n"})
    assert refusal("--wait", run=broken).endswith("Try again later. The job itself continues.")


def test_ctrl_c_while_waiting_says_that_the_job_goes_on(gcs):
    def interrupted(_):
        raise KeyboardInterrupt

    put_records(gcs, "train", "eval")
    with pytest.raises(
        KeyboardInterrupt, match=r"^Job 55 goes on\. To watch it: gcloud ai custom-jobs stream-logs 55 "
    ):
        train.main([*ARGUMENTS, "--wait"], run=fake(**{"custom-jobs describe": interrupted}))
