"""The control groups of this process, version 1 or 2. They limit a process in a container.

The limits of a group's ancestors hold too. In a container, the path of the group may be that of the host, while the
mount is the group itself. So every folder between the mount and the path is read, and missing folders are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator


def read_kernel_file(path: str) -> str | None:
    """The content of a file of the kernel; None if it does not exist or cannot be read."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except (OSError, ValueError):
        return None


def group_folders(controller: str, *, root: str = "") -> Iterator[tuple[int, str]]:
    """The folders of the groups that may limit this process.

    Args:
      controller: "cpu" or "memory".
      root: a prefix for the paths of the kernel's files, for tests.

    Yields:
      The version of control groups, 1 or 2, and a folder, from the mount down to the group of this process.
    """
    for line in (read_kernel_file(f"{root}/proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            version, names = 2, [""]
        elif controller in controllers.split(","):
            # Where controllers share a mount, such as "cpu,cpuacct", there may be no link with the name of each.
            version, names = 1, [f"/{name}" for name in dict.fromkeys((controller, controllers))]
        else:
            continue
        parts = [part for part in path.split("/") if part]
        for name in names:
            for depth in range(len(parts) + 1):
                yield version, "/".join([f"{root}/sys/fs/cgroup{name}", *parts[:depth]])
