"""The locks are complete: an install that looks at nothing but a lock leaves nothing out.

Each requirement of each locked package, with its extras and markers, is met by the lock itself. What a package requires
is read from its installed metadata; packages for other machines than this one are not installed and are passed over.
"""

import functools
import importlib.metadata
import pathlib
import re
import tomllib

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
LOCKS = {
    "requirements.lock": set(EXTRAS) - {"gpu"},
    "requirements-worker.lock": {"pipeline", "aws", "openvino", "heif", "weights"},
    "requirements-worker-gpu.lock": {"pipeline", "aws", "openvino", "heif", "gpu", "weights"},
    "requirements-trainer.lock": {"train", "aws", "export", "weights"},
    "requirements-server.lock": {"serve", "aws", "openvino", "heif", "weights"},
}
MACHINES = {
    f"{system}-{machine}-{python}": {
        "os_name": "posix",
        "platform_machine": machine,
        "platform_system": "Darwin" if system == "darwin" else "Linux",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "python_full_version": f"{python}.9",
        "python_version": python,
        "sys_platform": system,
        "extra": "",
    }
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
    for python in ("3.11", "3.12", "3.13")
}
_ENTRY = re.compile(
    r"(?m)^(?P<name>[a-z0-9._-]+)==(?P<version>\S+)(?: ; (?P<marker>[^\\\n]+?))?(?: \\)?\n(?P<hashes>(?: +--hash.*\n)*)"
)


@functools.cache
def entries(lock):
    """[(name, version, marker or None, whole text)]"""
    text = (ROOT / lock).read_text()
    found = [
        (match["name"], match["version"], match["marker"] and Marker(match["marker"]), match[0])
        for match in _ENTRY.finditer(text)
    ]
    lines = re.findall("(?m)^[^ #].*", text)
    assert len(found) == len(lines), "an entry that is not understood"
    return found


def locked_versions(lock, machine):
    chosen = [
        (name, version) for name, version, marker, _ in entries(lock) if marker is None or marker.evaluate(machine)
    ]
    assert len(dict(chosen)) == len(chosen), "a package is there in two versions"
    return dict(chosen)


@functools.cache
def metadata_requirements(name):
    return [Requirement(line) for line in importlib.metadata.requires(name) or []]


def installed(name, version):
    try:
        return importlib.metadata.version(name) == version
    except importlib.metadata.PackageNotFoundError:
        return False


def unmet_requirements(roots, versions, machine):
    """What the roots require, directly or not, and the versions do not give; and the packages that were looked at."""
    unmet, looked_at, seen = [], set(), set()
    queue = [("the project", root) for root in roots]
    while queue:
        who, requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        version = versions.get(name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            unmet.append(f"{who} requires {requirement}; the lock has {version}")
            continue
        key = (name, frozenset(requirement.extras))
        if key in seen or not installed(name, version):
            continue
        seen.add(key)
        looked_at.add(name)
        for one in metadata_requirements(name):
            extras = ("", *requirement.extras)
            if one.marker is None or any(one.marker.evaluate({**machine, "extra": extra}) for extra in extras):
                queue.append((f"{name}=={version}", one))
    return unmet, looked_at


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("lock", LOCKS)
def test_all_that_is_required_is_in_the_lock(lock, machine):
    if "gpu" in lock and machine["platform_machine"] != "x86_64":
        pytest.skip("Dataflow's machines with GPUs are x86_64")
    lines = [*PROJECT["project"]["dependencies"], *(line for extra in LOCKS[lock] for line in EXTRAS[extra])]
    versions = locked_versions(lock, machine)
    unmet, looked_at = unmet_requirements(map(Requirement, lines), versions, machine)
    assert not unmet
    assert looked_at >= {"tensorflow", "numpy"}


def test_this_environment_is_what_the_lock_says():
    # Or else the test above looked at less than it says.
    here = {**MACHINES["linux-x86_64-3.11"], **dict(_this_machine())}
    other = [f"{name}=={version}" for name, version in locked_versions("requirements.lock", here).items()]
    other = [line for line in other if not installed(*line.split("=="))]
    assert not other, "run `make setup`"


def _this_machine():
    from packaging.markers import default_environment

    return default_environment()


def test_a_lock_that_leaves_something_open_is_noticed():
    machine = MACHINES["linux-x86_64-3.11"]
    versions = locked_versions("requirements.lock", machine)
    beam = [Requirement("apache-beam[gcp]")]
    assert unmet_requirements(beam, versions, machine)[0] == []
    # What only an extra asks for.
    without = {name: version for name, version in versions.items() if name != "google-cloud-bigquery"}
    unmet, _ = unmet_requirements(beam, without, machine)
    assert any(re.match(r"apache-beam==\S+ requires google-cloud-bigquery", line) for line in unmet)
    assert unmet_requirements([Requirement("apache-beam")], without, machine)[0] == []
    older = {**versions, "protobuf": "3.0.0"}
    assert any("protobuf" in line for line in unmet_requirements(beam, older, machine)[0])


@pytest.mark.parametrize("lock", [*LOCKS, "demo/requirements.lock"])
def test_every_package_has_a_version_and_hashes(lock):
    assert all(text.count("--hash=sha256:") >= 1 for *_, text in entries(lock))


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock != "requirements.lock"])
def test_containers_have_the_versions_of_the_environment(lock):
    ours = {text for *_, text in entries("requirements.lock")}
    names = {name for name, *_ in entries("requirements.lock")}
    other = {name for name, _, _, text in entries(lock) if text not in ours}
    # CUDA comes as packages of its own, which nothing else needs; JAX itself is in the environment for the tests.
    assert other == {name for name, *_ in entries(lock) if name not in names}
    assert all(name.startswith(("jax-cuda12-", "nvidia-")) for name in other)
    assert bool(other) == ("gpu" in lock)


def test_what_the_demo_fetches_needs_nothing_more():
    ((name, version, _, _),) = entries("demo/requirements.lock")
    if not installed(name, version):
        pytest.skip(f"{name} is not installed; `make demo` fetches it")
    machine = MACHINES["linux-x86_64-3.11"]
    versions = {**locked_versions("requirements.lock", machine), name: version}
    assert unmet_requirements([Requirement(name)], versions, machine)[0] == []


def test_the_project_is_built_with_what_the_lock_has():
    versions = locked_versions("requirements.lock", MACHINES["linux-x86_64-3.11"])
    assert PROJECT["build-system"]["requires"] == [f"setuptools=={versions['setuptools']}"]
