"""The control groups that hold this process, version 1 or 2: what binds it in a container.

A group is bound by its ancestors too. In a container the path may be the host's, and the mount the group itself; so
every folder between the mount and the path is looked at, and those that are not there say nothing.
"""

from __future__ import annotations

from collections.abc import Iterator


def read_kernel_file(path: str) -> str | None:
    """What a file of the kernel says; None if it is not there or not for us."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except (OSError, ValueError):
        return None


def group_folders(controller: str, *, root: str = "") -> Iterator[tuple[int, str]]:
    """The folders of the groups that may bind this process.

    Args:
      controller: "cpu" or "memory".
      root: put before the paths of the kernel's files.

    Yields:
      The version of control groups, 1 or 2, and a folder, from the mount down to the group of this process.
    """
    for line in (read_kernel_file(f"{root}/proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            version, mount = 2, f"{root}/sys/fs/cgroup"
        elif controller in controllers.split(","):
            version, mount = 1, f"{root}/sys/fs/cgroup/{controller}"
        else:
            continue
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts) + 1):
            yield version, "/".join([mount, *parts[:depth]])
