"""What workers without an image install: a list in which pip has nothing to choose."""

import importlib.metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipelines.runners.worker_requirements import ROOTS, installed_version, worker_requirements


def test_all_that_a_listed_package_requires_is_listed_in_a_version_that_it_takes():
    versions = dict(line.split("==") for line in worker_requirements())
    assert list(versions)[: len(ROOTS)] == list(ROOTS)
    worker = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "extra": ""}
    for name in versions:
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(worker):
                assert not requirement.extras, "pip would look such a one up by itself: list its extras as well"
                assert versions[canonicalize_name(requirement.name)] in requirement.specifier


def test_what_beam_has_on_workers_takes_the_listed_versions():
    """Beam's image has Beam, whose requirements no listed version may break: protobuf, numpy, requests ..."""
    versions = dict(line.split("==") for line in worker_requirements())
    worker = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "extra": "gcp"}
    requirements = map(Requirement, importlib.metadata.requires("apache-beam"))
    of_beam = [one for one in requirements if one.marker is None or one.marker.evaluate(worker)]
    shared = [one for one in of_beam if canonicalize_name(one.name) in versions]
    assert {"protobuf", "numpy"} <= {one.name for one in shared}
    for one in shared:
        assert versions[canonicalize_name(one.name)] in one.specifier, one


def test_what_the_project_itself_requires_is_listed():
    listed = {line.partition("==")[0] for line in worker_requirements()}
    project = importlib.metadata.requires("hugs-image-classifier") or []
    base = {canonicalize_name(Requirement(line).name) for line in project if "extra ==" not in line}
    assert base
    assert base <= listed


def test_versions_are_those_of_this_machine_as_a_registry_has_them(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", {"tensorflow": "2.21.0+cpu"}.get)
    assert installed_version("tensorflow") == "2.21.0"


def test_what_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(
        "pipelines.runners.worker_requirements.installed_version",
        lambda name: None if name == "openvino" else installed_version(name),
    )
    listed = {line.partition("==")[0] for line in worker_requirements()}
    assert "openvino" not in listed
    assert "tensorflow" in listed
