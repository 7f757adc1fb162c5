"""The packages that workers without an image install: those that make pixels and embeddings, and their dependencies.

Beam's workers run `pip install -r` on this list. It contains all dependencies, each in the version of this machine, so
pip does not choose any version itself.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Packages that are always installed: the dependencies of the project (pyproject.toml), and Keras.
ROOTS = ("tensorflow", "keras", "numpy", "pillow", "pyyaml", "tqdm")
_WHERE_INSTALLED = ("openvino", "pi-heif")
# The environment of a worker, which may differ from this machine. Only its Python is the same, as Beam requires.
_WORKER = {"os_name": "posix", "platform_machine": "x86_64", "platform_system": "Linux", "sys_platform": "linux"}


def worker_requirements() -> list[str]:
    """The lines NAME==VERSION of a requirements file: first what the project imports, then the dependencies, sorted."""
    wanted = (*ROOTS, *_WHERE_INSTALLED)
    versions = {name: version for name in wanted if (version := installed_version(name)) is not None}
    needed = {name: version for name, version in _closure(list(versions)).items() if name not in versions}
    return [*map("==".join, versions.items()), *map("==".join, sorted(needed.items()))]


def installed_version(name: str) -> str | None:
    """The installed version of a package as it is called in a registry; None if it is not installed."""
    try:
        # The text after a + names a local build, which a registry does not have.
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def _closure(roots: Sequence[str]) -> dict[str, str]:
    """The versions of packages and of all their direct and indirect dependencies, by canonical name."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = [Requirement(name) for name in roots]
    while queue:
        requirement = queue.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        version = installed_version(requirement.name)
        # A missing package is only for other machines; or this environment is broken, and pip will report it.
        if key not in seen and version is not None:
            seen.add(key)
            versions[key[0]] = version
            queue.extend(_requirements(requirement))
    return versions


def _requirements(package: Requirement) -> Iterator[Requirement]:
    for line in importlib.metadata.requires(package.name) or []:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**_WORKER, "extra": extra}) for extra in ("", *package.extras)):
            yield requirement
