"""What workers without an image install: the packages that make pixels and embeddings, and all that these need.

Beam's workers run `pip install -r` on a list, and pip looks at what each package requires. So the list is complete: pip
finds every requirement in it, in the one version of this machine, and has nothing to choose.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Those that are there in any case: the dependencies of the project itself (pyproject.toml), and Keras by its name.
ROOTS = ("tensorflow", "keras", "numpy", "pillow", "pyyaml", "tqdm")
_WHERE_INSTALLED = ("openvino",)
_FOR_INT8 = ("nncf",)
# A worker, whatever machine starts the job. Its Python is that of this machine, which Beam asks for.
_WORKER = {"os_name": "posix", "platform_machine": "x86_64", "platform_system": "Linux", "sys_platform": "linux"}


def worker_requirements(*, int8: bool) -> list[str]:
    """The lines of a requirements file, NAME==VERSION: what the project imports first, then what that needs, sorted.

    Args:
      int8: whether the network will be calibrated for that.
    """
    wanted = [*ROOTS, *_WHERE_INSTALLED, *(_FOR_INT8 if int8 else ())]
    versions = {name: version for name in wanted if (version := installed_version(name)) is not None}
    needed = {name: version for name, version in _closure(list(versions)).items() if name not in versions}
    return [*map("==".join, versions.items()), *map("==".join, sorted(needed.items()))]


def installed_version(name: str) -> str | None:
    """The version of a package on this machine as a registry has it, or None if it is not installed."""
    try:
        # What follows a + names a build that the registry does not have.
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def _closure(roots: Sequence[str]) -> dict[str, str]:
    """The versions of packages and of all that they require, directly or not, by canonical name."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = [Requirement(name) for name in roots]
    while queue:
        requirement = queue.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        version = installed_version(requirement.name)
        # One that is not here is for other machines than this one, or this environment is broken, which pip will say.
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
