"""`hugs doctor`: what a project lacks is found, each with what mends it, and nothing else."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from cloud import doctor
from cloud.checkup import machine
from cloud.gcloud import run_command
from configs.cloud_roles import APIS, WORKER_ROLES, YOUR_ROLES
from configs.errors import InputError
from tests.support.fake_project import PERMISSIONS, PROJECT, REGION, WORKERS, FakeProject

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cloud.md").read_text()
TABLE = {role.name for role in YOUR_ROLES}


@pytest.fixture
def project(monkeypatch):
    with FakeProject() as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        yield fake


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(f"cloud: {{project: {PROJECT}, service_account: {WORKERS}}}\n")
    return str(path)


@pytest.fixture
def findings(project, recipe, capsys):
    """Runs the program; gives the exit code, and (verdict, what, remedy) of each check."""

    def run(*flags, bucket="gs://bucket", recipe=recipe, **changes):
        arguments = {"run": project.run, "login": project.login} | changes
        code = doctor.main([bucket, "--recipe", recipe, "--json", *flags], **arguments)
        lines = map(json.loads, capsys.readouterr().out.splitlines())
        return code, [(one["verdict"], one["what"], one["remedy"]) for one in lines]

    return run


def to_mend(found):
    return [(what, remedy) for verdict, what, remedy in found if verdict == "mend"]


def test_a_project_with_everything_has_nothing_to_mend(findings):
    code, found = findings()
    assert (code, to_mend(found)) == (0, [])
    text = "\n".join(what for _, what, _ in found)
    for words in (
        "Python 3.",
        "packages: apache-beam 2.",
        "gcloud is installed",
        "login of gcloud: me@example.com",
        f"quota project: {PROJECT}",
        f"gs://bucket is in {REGION}",
        "APIs: all",
        "you: roles/dataflow.developer",
        f"you: roles/iam.serviceAccountUser on {WORKERS}",
        f"{WORKERS}: roles/dataflow.worker",
        "quota N2_CPUS in us-central1: room for 500",
        "repository docker-hub",
    ):
        assert words in text


def test_exactly_the_roles_of_the_page_are_enough(project, findings):
    project.roles = set(TABLE)
    code, found = findings()
    assert (code, to_mend(found)) == (0, [])
    # Who has which role in the project, only its owner may read.
    assert [what for verdict, what, _ in found if verdict == "unknown"] == [
        f"roles of {WORKERS} on the project: you may not read who has which"
    ]


@pytest.mark.parametrize("role", sorted(TABLE))
def test_each_role_of_the_page_is_missed_if_it_is_missing(project, findings, role):
    project.roles = TABLE - {role}
    code, found = findings()
    assert code == 2
    commands = [remedy for _, remedy in to_mend(found) if f"--role={role}" in remedy]
    (command,) = commands
    assert shlex.split(command)[-1] == "--member=user:me@example.com"
    others = [what for what, remedy in to_mend(found) if "--role=" in remedy and f"--role={role}" not in remedy]
    assert not others


def test_the_roles_that_were_once_said_to_be_enough_are_not(project, findings):
    """roles/aiplatform.user has nothing of Artifact Registry, roles/dataflow.developer cannot look up machine types."""
    project.roles = TABLE - {
        "roles/compute.viewer",
        "roles/serviceusage.serviceUsageConsumer",
        "roles/artifactregistry.reader",
    }
    text = "\n".join(remedy for _, remedy in to_mend(findings()[1]))
    for role in ("roles/compute.viewer", "roles/serviceusage.serviceUsageConsumer", "roles/artifactregistry.reader"):
        assert f"gcloud projects add-iam-policy-binding {PROJECT} --condition=None --role={role}" in text


def test_the_page_has_the_roles_and_apis_that_are_checked():
    rows = re.findall(r"(?m)^\| (you|the workers' account) \| (.*?) \| ", PAGE)
    listed = {who: set() for who, _ in rows}
    for who, names in rows:
        listed[who] |= set(re.findall(r"roles/[\w.]+", names))
    assert listed["you"] - {"roles/artifactregistry.admin"} == TABLE
    assert listed["the workers' account"] == {role.name for role in WORKER_ROLES}
    enabled = re.search(r"gcloud services enable ((?:[\w.]+\s+(?:\\\s+)?)+)", PAGE)[1]
    assert set(re.findall(r"[\w.]+\.googleapis\.com", enabled)) == set(APIS)


def test_every_permission_that_is_checked_is_of_its_role():
    for role in YOUR_ROLES:
        assert set(role.permissions) <= PERMISSIONS[role.name], role.name


@pytest.mark.parametrize(
    ("change", "what", "remedy"),
    [
        (
            {"quota_project": None},
            "quota project: the login names none",
            "application-default set-quota-project my-pro",
        ),
        (
            {"apis": set(APIS) - {"aiplatform.googleapis.com", "iam.googleapis.com"}},
            "APIs: aiplatform.googleapis.com, iam.googleapis.com off",
            "gcloud services enable aiplatform.googleapis.com iam.googleapis.com --project my-project",
        ),
        (
            {"location": "EUROPE-WEST4"},
            "is in europe-west4, and the jobs run in us-central1",
            "cloud.region: europe-west4",
        ),
        ({"repositories": set()}, "repository docker-hub in us-central1 is missing", "--remote-docker-repo=DOCKER-HUB"),
        (
            {"quotas": {"N2_CPUS": (24.0, 16.0), "DISKS_TOTAL_GB": (9999.0, 0.0), "IN_USE_ADDRESSES": (69.0, 0.0)}},
            "quota N2_CPUS in us-central1: room for 8, and 3 lists with one worker each take 12",
            "quotas?project=my-project",
        ),
        (
            {"worker_roles": {"roles/dataflow.worker", "roles/storage.admin"}},
            f"{WORKERS}: roles/artifactregistry.reader on the project is missing",
            f"--role=roles/artifactregistry.reader --member=serviceAccount:{WORKERS}",
        ),
        ({"logged_in": False}, "login of gcloud: You do not currently have an active account", "gcloud auth login"),
    ],
)
def test_what_is_missing_is_said_with_what_mends_it(project, findings, change, what, remedy):
    for name, value in change.items():
        setattr(project, name, value)
    code, found = findings()
    assert code == 2
    ((said, command),) = to_mend(found)
    assert what in said
    assert remedy in command
    assert "\n" not in said + command


@pytest.mark.parametrize(
    ("location", "verdict"),
    [("US", "fine"), ("NAM4", "fine"), ("EU", "mend"), ("EUR4", "mend"), ("us-central1", "fine")],
)
def test_places_with_several_regions(project, findings, location, verdict):
    project.location = location
    assert [one for one, what, _ in findings()[1] if what.startswith("gs://bucket is in")] == [verdict]


def test_a_quota_for_fewer_workers_than_asked_for_is_fine_and_said(project, findings, recipe):
    project.quotas["N2_CPUS"] = (24.0, 0.0)
    code, found = findings()
    assert code == 0
    assert any("so for 6 of up to 60 workers (3 lists x max_workers)" in what for _, what, _ in found)


def test_quotas_follow_the_recipe(project, findings, tmp_path):
    mine = tmp_path / "other.yaml"
    account = f"cloud: {{project: {PROJECT}, service_account: {WORKERS}}}\n"
    mine.write_text(f"{account}dataflow: {{machine_type: c4-standard-8, flexrs: cost, public_ips: false}}\n")
    lines = {
        what.split()[1]: verdict for verdict, what, _ in findings(recipe=str(mine))[1] if what.startswith("quota ")
    }
    del lines["project:"]
    # A new family's quota is not among those of the region; without a preemptible quota, that of the others counts.
    assert lines == {"C4_CPUS": "unknown", "HDB_TOTAL_GB": "unknown"}
    project.quotas["PREEMPTIBLE_CPUS"] = (8.0, 0.0)
    found = findings(recipe=str(mine))[1]
    assert [verdict for verdict, what, _ in found if "PREEMPTIBLE_CPUS" in what] == ["mend"]


def test_images_of_your_own_need_no_repository(project, findings, tmp_path):
    project.repositories = set()
    mine = tmp_path / "other.yaml"
    mine.write_text(
        f"cloud: {{project: {PROJECT}, service_account: {WORKERS}}}\n"
        "vertex: {image: a/b:1, trainer_in_image: true}\ndeploy: {image: a/c:1}\n"
    )
    code, found = findings(recipe=str(mine))
    assert (code, to_mend(found)) == (0, [])


def test_workers_without_an_account_of_their_own(findings, tmp_path):
    mine = tmp_path / "other.yaml"
    mine.write_text(f"cloud: {{project: {PROJECT}}}\n")
    code, found = findings(recipe=str(mine))
    assert (code, to_mend(found)) == (0, [])
    ((said, remedy),) = [(what, remedy) for verdict, what, remedy in found if verdict == "unknown"]
    assert "workers' account: the recipe names none" in said
    assert "cloud.service_account" in remedy


def test_a_bucket_that_is_not_there(findings):
    code, found = findings(bucket="gs://another")
    assert code == 2
    assert any(what.startswith("the bucket: 404: The specified bucket does not exist") for what, _ in to_mend(found))


def test_without_a_login_of_beam_the_rest_is_checked(findings):
    def login():
        raise InputError("Your default credentials were not found")

    code, found = findings(login=login)
    assert code == 2
    (first, *_) = to_mend(found)
    assert first == (
        "login of Beam and Cloud Storage: Your default credentials were not found",
        "gcloud auth application-default login",
    )
    assert any(what.startswith("APIs: all") for _, what, _ in found)


def test_without_gcloud_what_needs_it_is_left_out(findings, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    code, found = findings(run=run_command)
    assert code == 2
    assert to_mend(found)[0][0].startswith("gcloud: not found on this machine. Install it")
    assert ("unknown", "roles/aiplatform.user: gcloud is not logged in", "gcloud auth login") in found


def test_without_a_network_it_stops_at_once(project, findings, monkeypatch):
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE", "http://127.0.0.1:9/")
    with pytest.raises(
        InputError, match=r"^cannot reach 127\.0\.0\.1 \(it refuses connections\)\. Check the network\.$"
    ):
        findings()
    assert not project.asked


@pytest.mark.parametrize("bucket", ["bucket", "gs://bucket/folder", "gs://", "gs://A", "s3://bucket"])
def test_what_is_no_bucket(findings, bucket):
    with pytest.raises(InputError, match="BUCKET: must be gs://BUCKET"):
        findings(bucket=bucket)


def test_packages_that_differ_from_the_lock(tmp_path):
    assert machine.check_packages().verdict == "fine"
    lock = tmp_path / "requirements.lock"
    lock.write_text("keras==1.0 \\\n    --hash=sha256:0\nprotobuf==0.1\n")
    found = machine.check_packages(str(lock))
    assert found.verdict == "mend"
    assert re.fullmatch(r"packages: keras is \S+ and not 1\.0, protobuf is \S+ and not 0\.1", found.what)
    assert found.remedy == "make setup"


def test_without_a_checkout_the_packages_that_are_needed_are_looked_for(monkeypatch, tmp_path):
    installed = dict.fromkeys(machine._REQUIRED, "1")
    monkeypatch.setattr(machine, "_installed", installed.get)
    assert machine.check_packages(str(tmp_path / "no.lock")).verdict == "fine"  # OpenVINO is optional.
    del installed["apache-beam"]
    found = machine.check_packages(str(tmp_path / "no.lock"))
    assert found.what == "packages: apache-beam is missing"
    assert "pip install" in found.remedy


def test_what_is_printed(project, recipe, capsys):
    project.quota_project = None
    assert doctor.main(["gs://bucket/", "--recipe", recipe], run=project.run, login=project.login) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"project {PROJECT}, region {REGION}, gs://bucket"
    place = next(number for number, line in enumerate(lines) if line.startswith("MEND"))
    assert lines[place] == "MEND     quota project: the login names none, so services say that their API is not enabled"
    assert lines[place + 1].strip() == f"gcloud auth application-default set-quota-project {PROJECT}"
    assert lines[-1] == "1 to mend"


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
def test_with_the_real_gcloud(project, recipe):
    project.roles = TABLE - {"roles/compute.viewer"}
    program = (
        "import sys; from cloud import doctor; from google.oauth2.credentials import Credentials\n"
        "sys.exit(doctor.main(sys.argv[1:], login=lambda: Credentials(token='t', quota_project_id='my-project')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "gs://bucket", "--recipe", recipe, "--json"],
        cwd=ROOT,
        env=os.environ | project.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["what"] for one in found if one["verdict"] == "mend"] == [
        "you: roles/compute.viewer is missing (compute.machineTypes.get and 1 more)",
        "quotas: gcloud compute regions describe us-central1: Could not fetch resource: Required 'compute.regions.get' "
        "permission for 'projects/my-project/regions/us-central1'. Your account needs the role roles/compute.viewer in "
        "project my-project; docs/cloud.md lists all roles.",
    ]
