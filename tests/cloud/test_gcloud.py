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
        (
            "ERROR: (gcloud.compute.regions) Could not fetch resource:\n - Required 'x' permission for 'y'\n\n",
            "Could not fetch resource: Required 'x' permission for 'y'",
        ),
        ("ERROR: (gcloud.x) Nothing follows:\n", "Nothing follows: "),
    ],
)
def test_the_last_error_of_gcloud(stderr, said):
    assert last_error(stderr) == said


QUOTA_PROJECT = (
    "PERMISSION_DENIED: Your application is authenticating by using local Application Default Credentials. The "
    "{api}.googleapis.com API requires a quota project, which is not set by default. To learn how to set your quota "
    "project, see https://cloud.google.com/docs/authentication/adc-troubleshooting/user-creds ."
)
API_OFF = (
    "PERMISSION_DENIED: Artifact Registry API has not been used in project 42 before or it is disabled. Enable it by "
    "visiting https://console.developers.google.com/apis/api/artifactregistry.googleapis.com/overview?project=42 then "
    "retry."
)


@pytest.mark.parametrize(
    ("words", "said", "remedy"),
    [
        ("ai models list", "You do not currently have an active account selected.", "Log in: gcloud auth login"),
        (
            "ai models list",
            "PERMISSION_DENIED: Vertex AI API has not been used in project 4 before",
            "gcloud services enable aiplatform.googleapis.com --project my-project",
        ),
        (
            "artifacts repositories describe",
            API_OFF,
            "gcloud services enable artifactregistry.googleapis.com --project my",
        ),
        (
            "artifacts repositories describe",
            "PERMISSION_DENIED: The API is not enabled",
            "enable artifactregistry.googleapis.com",
        ),
        ("services list", "SERVICE_DISABLED", "gcloud services enable serviceusage.googleapis.com"),
        # These also say that an API is off: in a project of Google.
        ("ai models list", QUOTA_PROJECT.format(api="aiplatform"), "application-default set-quota-project my-project"),
        (
            "ai models list",
            "PERMISSION_DENIED: Vertex AI API has not been used in project 32555940559 before or it is disabled.",
            "set-quota-project my-project",
        ),
        (
            "ai models list",
            "PERMISSION_DENIED: Caller does not have required permission to use project of-another. Grant the caller "
            "the roles/serviceusage.serviceUsageConsumer role",
            "needs the role roles/serviceusage.serviceUsageConsumer in project of-another, which is charged",
        ),
        (
            "ai custom-jobs create",
            "PERMISSION_DENIED: Permission 'aiplatform.customJobs.create' denied",
            "role roles/aiplatform.user in project my",
        ),
        (
            "ai custom-jobs create",
            "PERMISSION_DENIED: You do not have permission to act as service_account: hugs@p.iam.gserviceaccount.com",
            "the role roles/iam.serviceAccountUser on the service account that the recipe names",
        ),
        (
            "ai models upload",
            "PERMISSION_DENIED: someone does not have storage.objects.get access",
            "the role roles/storage.admin",
        ),
        (
            "artifacts repositories describe",
            "PERMISSION_DENIED: Permission 'artifactregistry.repositories.get' denied on resource (or it may not be)",
            "the role roles/artifactregistry.reader in project my-project",
        ),
        (
            "ai custom-jobs create",
            "PERMISSION_DENIED: storage.googleapis.com says: Permission 'aiplatform.customJobs.create' denied",
            "role roles/aiplatform.user in project my",
        ),
        ("artifacts repositories describe", "PERMISSION_DENIED: no", "the role roles/artifactregistry.reader in"),
        (
            "compute regions describe",
            "Required 'compute.regions.get' permission for 'x'",
            "the role roles/compute.viewer",
        ),
        (
            "ai custom-jobs create",
            "RESOURCE_EXHAUSTED: quotas are exceeded",
            "the recipe's section vertex, or ask for more",
        ),
        ("ai endpoints deploy-model", "RESOURCE_EXHAUSTED: quotas are exceeded", "the recipe's section deploy, or ask"),
        ("ai custom-jobs create", "RESOURCE_EXHAUSTED: quotas", "quotas?project=my-project"),
        (
            "ai endpoints deploy-model",
            "ZONE_RESOURCE_POOL_EXHAUSTED: The zone 'z' does not have enough resources available to fulfill it.",
            "has no such machine at the moment. Try again later",
        ),
        (
            "ai endpoints deploy-model",
            "INVALID_ARGUMENT: hyperdisk-balanced disk type cannot be used by n2-standard-4 machine type",
            "Leave dataflow.disk_type out of the recipe",
        ),
        (
            "ai endpoints predict",
            "FAILED_PRECONDITION: This endpoint is a dedicated endpoint via CloudESF and cannot be accessed through "
            "the Vertex AI API. Please access the endpoint using its dedicated dns name '3.us-central1-42.x.goog'",
            "Choose the name of another endpoint",
        ),
        (
            "ai custom-jobs create",
            "INVALID_ARGUMENT: Machine type x is not supported",
            "Correct the recipe's section vertex",
        ),
        ("ai models list", "Something new", "gcloud ai models list: Something new."),
    ],
)
def test_refusals_say_what_to_do(words, said, remedy):
    group = words.removeprefix("ai ")
    command = ["gcloud", *words.split(), "--x=y"]
    with pytest.raises(InputError) as refusal:
        gcloud(**{group: f"ERROR: (gcloud.{words}) {said}\n"}).call(command)
    assert remedy in str(refusal.value)
    assert str(refusal.value).startswith(f"gcloud {words}: ")


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


def test_a_bucket_that_one_may_not_read_is_not_called_a_wrong_name():
    said = (
        "403 GET https://storage.googleapis.com/storage/v1/b/bucket: me@example.com does not have storage.objects.list "
        "access to the Google Cloud Storage bucket. Permission 'storage.objects.list' denied on resource (or it may "
        "not exist)."
    )
    with pytest.raises(InputError) as refusal, faults_of("gs://bucket/x"):
        raise PermissionError(said)
    assert "needs storage.objects.list, which roles/storage.admin on the bucket has" in str(refusal.value)


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
