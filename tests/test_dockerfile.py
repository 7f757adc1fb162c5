"""What of the container images can be known without building them."""

import fnmatch
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib

import pytest

from configs.source_files import source_files

ROOT = pathlib.Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()


def stages():
    """The instructions of each stage: {name: [(instruction, its words)]}."""
    found = {}
    text = re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE).replace("\\\n", " ")
    python = re.search(r"(?m)^ARG PYTHON=(.+)\n", text)
    text = text.replace(python[0], "").replace("${PYTHON}", python[1])
    for line in filter(str.strip, text.splitlines()):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            current = found.setdefault(name, [("FROM", [base])])
        else:
            current.append((instruction, shlex.split(rest)))
    return found


STAGES = stages()


def is_sent(path):
    """Whether .dockerignore lets a path of the checkout into the build: the last rule that matches decides."""
    parts = path.split("/")
    sent = True
    for rule in (ROOT / ".dockerignore").read_text().splitlines():
        # "**/name" is a name anywhere, any other of our rules one beside the Dockerfile, with all that is in it.
        names = parts if rule.startswith("**/") else parts[:1]
        pattern = rule.removeprefix("!").removeprefix("**/")
        if rule and not rule.startswith("#") and fnmatch.filter(names, pattern):
            sent = rule.startswith("!")
    return sent


def copied_from_the_checkout():
    for instructions in STAGES.values():
        for instruction, words in instructions:
            if instruction == "COPY" and not words[0].startswith("--from="):
                yield from words[:-1]


def test_what_is_copied_is_there_and_is_sent_to_the_build():
    sources = set(copied_from_the_checkout())
    locks = {f"requirements-{name}.lock" for name in ("worker", "worker-gpu", "trainer", "server")}
    assert sources >= {*locks, "pyproject.toml", "setup.py", "README.md", "LICENSE"}
    for source in sources - {"weights*"}:
        assert (ROOT / source).exists(), source
        assert is_sent(source), source
    assert is_sent("weights/mine.weights.h5")
    for name in (".git", ".venv", "out", "data", "tests", "tests/configs", "preprocess/__pycache__"):
        assert not is_sent(name), name


def test_images_have_every_package_of_the_project():
    packages = {path.partition("/")[0] for path in source_files() if "/" in path}
    assert len(packages) > 5
    assert packages <= set(copied_from_the_checkout())


def test_stages_are_copied_from_stages():
    for instructions in STAGES.values():
        for instruction, words in instructions:
            if instruction == "COPY" and words[0].startswith("--from="):
                assert words[0].removeprefix("--from=") in STAGES


def test_beam_and_python_are_those_of_the_lock():
    ((_, (base,)),) = (one for one in STAGES["worker"] if one[0] == "FROM")
    python, version = re.fullmatch(r"apache/beam_python(.+)_sdk:(.+)", base).groups()
    assert re.search(rf"(?m)^apache-beam=={re.escape(version)}\s", LOCK)
    (pinned,) = (one for one in PROJECT["project"]["optional-dependencies"]["pipeline"] if "apache-beam" in one)
    assert fnmatch.fnmatch(version, pinned.partition("==")[2])
    assert f"Programming Language :: Python :: {python}" in PROJECT["project"]["classifiers"]
    assert STAGES["trainer"][0] == ("FROM", [f"python:{python}-slim"])


def commands(stage, program):
    for instruction, words in STAGES[stage]:
        if instruction == "RUN":
            for command in " ".join(shlex.quote(word) for word in words).split(" '&&' "):
                if command.startswith(program):
                    yield shlex.split(command)


@pytest.mark.parametrize("stage", ["worker", "worker-gpu", "trainer", "server"])
def test_what_is_installed_is_a_lock_as_it_is(stage):
    installs = list(commands(stage, "pip install"))
    assert all("--no-deps" in install for install in installs)
    assert installs[0][-2:] in (
        ["-r", f"/tmp/hugs/requirements-{stage}.lock"],
        ["-r", f"/tmp/requirements-{stage}.lock"],
    )
    assert "--require-hashes" in installs[0]
    # And the project itself, but for the stage that begins with the worker's.
    assert [install[-1] for install in installs[1:]] == ([] if stage == "worker-gpu" else ["/tmp/hugs"])


@pytest.mark.parametrize("stage", ["worker", "worker-gpu", "trainer", "server"])
def test_programs_that_images_run_are_there(stage):
    (baked,) = commands(stage, "python")
    assert baked[:3] == ["python", "-m", "preprocess.bake"]
    flags = [word for word in baked if word.startswith("--")]
    done = subprocess.run([sys.executable, *baked[1:3], "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert all(f"{flag} " in done.stdout or f"{flag}]" in done.stdout for flag in flags)


def test_a_worker_starts_as_beam_starts_it_and_a_trainer_trains():
    entry_points = {name: [words for one, words in stage if one == "ENTRYPOINT"] for name, stage in STAGES.items()}
    assert entry_points["worker"] == entry_points["worker-gpu"] == []
    assert entry_points["trainer"] == [["[python,", "-m,", "trainer.task]"]]


def test_a_server_takes_what_its_container_gives_it():
    from serving.options import parse_options

    (words,) = (words for one, words in STAGES["server"] if one == "ENTRYPOINT")
    words = [word.strip("[],") for word in words]
    assert words[:3] == ["python", "-m", "serving.serve"]
    options = parse_options(words[3:], {"AIP_STORAGE_URI": "gs://bucket/model"})
    assert options.host == "0.0.0.0"
    assert ("EXPOSE", [str(options.port)]) in STAGES["server"]
    assert ("USER", ["nobody"]) in STAGES["server"]
