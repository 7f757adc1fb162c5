from __future__ import annotations

import pytest

from cloud.gcloud import Gcloud, last_error, run_command
from cloud.job_storage import faults_of
from configs.errors import InputError
from tests.support.cloud_job import FakeGcloud


def gcloud(**answers):
    return Gcloud("my-project", "us-central1", FakeGcloud(**answers))


def test_commands():
    command = gcloud().command("ai", "models", "list", labels={"a": "b", "c": "d"}, service_account=None, filter="x=1")
    assert command == [
        *("gcloud", "ai", "models", "list", "--project=my-project", "--region=us-central1"),
        *("--labels=a=b,c=d", "--filter=x=1"),
    ]
    assert gcloud().command("x", labels={}) == ["gcloud", "x", "--project=my-project", "--region=us-central1"]


def test_versions():
    gcloud().require_new_enough()
    with pytest.raises(InputError, match=r"gcloud: version 312\.0\.0 is too old; 400 or newer .* components update"):
        gcloud(version={"Google Cloud SDK": "312.0.0"}).require_new_enough()


def test_a_missing_gcloud_is_one_line(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match=r"gcloud: not found on this machine\. Install it"):
        run_command(["gcloud", "version"])


def test_a_gcloud_that_is_no_program_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "gcloud").write_bytes(b"\0")
    (tmp_path / "gcloud").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"gcloud: .* cannot be run \(Exec format error\)\. Install it"):
        run_command(["gcloud", "version"])


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        ("", ""),
        ("Using endpoint [x]\nERROR: (gcloud.ai.x.list) Bad thing.\n\nMore words.\n", "Bad thing."),
        ("ERROR: (gcloud) first\nERROR: gcloud crashed (KeyError): 'x'\n", "gcloud crashed (KeyError): 'x'"),
        ("Traceback\n  Killed\n", "Killed"),
    ],
)
def test_the_last_error_of_gcloud(stderr, said):
    assert last_error(stderr) == said


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("You do not currently have an active account selected.", "selected. Log in: gcloud auth login"),
        ("PERMISSION_DENIED: Vertex AI API has not been used in project 4 before", "gcloud services enable aiplatform"),
        (
            "PERMISSION_DENIED: Permission 'aiplatform.customJobs.create' denied",
            "role roles/aiplatform.user in project my",
        ),
        ("RESOURCE_EXHAUSTED: quotas are exceeded", "quotas?project=my-project"),
        ("INVALID_ARGUMENT: Machine type x is not supported", "supported. Correct the recipe's section"),
        ("Something new", "gcloud ai models list: Something new."),
    ],
)
def test_refusals_say_what_to_do(said, remedy):
    with pytest.raises(InputError) as refusal:
        gcloud(models=f"ERROR: (gcloud.ai.models.list) {said}\n").call(["gcloud", "ai", "models", "list", "--x=y"])
    assert remedy in str(refusal.value)
    assert str(refusal.value).startswith("gcloud ai models list: ")


@pytest.mark.parametrize("answer", [{"a": 1}, [1]])
def test_an_answer_of_another_kind(answer):
    other = gcloud(models=answer)
    with pytest.raises(InputError, match="gcloud ai models list: gcloud's answer has not a list"):
        other.listed(["gcloud", "ai", "models", "list"])
    with pytest.raises(InputError, match="gcloud ai models list: gcloud's answer has not 'name'"):
        other.resource(["gcloud", "ai", "models", "list"])


def test_an_answer_that_is_no_json(monkeypatch):
    import subprocess

    broken = Gcloud("p", "r", lambda command: subprocess.CompletedProcess(command, 0, "hello", ""))
    with pytest.raises(InputError, match="gcloud's answer is not JSON"):
        broken.call(["gcloud", "ai", "models", "list"])


CRASHED = (
    "ERROR: gcloud crashed (ConnectionError): HTTPSConnectionPool(host='us-central1-aiplatform.googleapis.com', "
    'port=443): Max retries exceeded with url: /v1/projects (Caused by NameResolutionError("x: Failed to resolve'
    " 'us-central1-aiplatform.googleapis.com' ([Errno -2] Name or service not known)\"))\n\nIf you would like to report"
    " this issue, please run the following command:\n  gcloud feedback\n"
)
NO_TOKEN = (
    "ERROR: (gcloud.ai.custom-jobs.list) There was a problem refreshing your current auth tokens: HTTPSConnectionPool("
    "host='oauth2.googleapis.com', port=443): Max retries exceeded with url: /token (Caused by NameResolutionError("
    "\"x: Failed to resolve 'oauth2.googleapis.com' ([Errno -2] Name or service not known)\"))\nPlease run:\n\n"
    "  $ gcloud auth login\n\nto obtain new credentials.\n"
)


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        (
            CRASHED,
            "gcloud ai models list: cannot reach us-central1-aiplatform.googleapis.com (its name is not found: no "
            "network, or no name service). Check the network, and whether there is a region us-central1.",
        ),
        (
            NO_TOKEN,
            "gcloud ai models list: cannot reach oauth2.googleapis.com (its name is not found: no network, or no name "
            "service). Check the network.",
        ),
    ],
)
def test_without_a_network_the_line_is_plain(stderr, line):
    """As gcloud 528 prints it. Without a network, to log in again would not help."""
    with pytest.raises(InputError) as refusal:
        gcloud(models=stderr).call(["gcloud", "ai", "models", "list", "--x=y"])
    assert str(refusal.value) == line


def test_a_bucket_that_cannot_be_reached_is_not_called_a_wrong_name():
    with pytest.raises(InputError) as refusal, faults_of("gs://bucket/x"):
        raise OSError(
            "gs://bucket/x: HTTPSConnectionPool(host='storage.googleapis.com', port=443): Max retries exceeded with "
            "url: /storage (Caused by NameResolutionError(\"x: Failed to resolve 'storage.googleapis.com' ([Errno -2] "
            'Name or service not known)")) (tried 9 times in 18 s)'
        )
    assert str(refusal.value) == (
        "gs://bucket/x: cannot reach storage.googleapis.com (its name is not found: no network, or no name service). "
        "Check the network."
    )
