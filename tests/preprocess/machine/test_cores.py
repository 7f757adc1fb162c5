"""The cores of a container, by files as the kernel has them."""

from __future__ import annotations

import os
import types

import pytest

from preprocess.backbones import tensorflow_import
from preprocess.machine.cores import available_cores, cores_of_quota

HERE = len(os.sched_getaffinity(0))


def machine(root, files):
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return str(root)


@pytest.fixture(autouse=True)
def sixty_four_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
        # A part of a core is one; the least of a group and its ancestors counts.
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "250000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
            },
            3,
        ),
        # Version 1, beside an empty version 2; the path is the host's, and the mount is the container's own.
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/docker/0123\n4:memory:/docker/0123\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/a\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
            },
            64,
        ),
        # Without the link that has the name of the one controller.
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/a\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        # A process outside of its container's control group namespace.
        ({"proc/self/cgroup": "0::/../other\n", "sys/fs/cgroup/cpu.max": "600000 100000\n"}, 6),
        ({"proc/self/cgroup": "nonsense\n0::\n", "sys/fs/cgroup/cpu.max": "1 0\n"}, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": ""}, 64),
    ],
)
def test_the_quota_of_a_container_binds(tmp_path, files, cores):
    assert available_cores(root=machine(tmp_path, files)) == cores


def test_the_affinity_binds_too(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5})
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "800000 100000\n"}
    assert available_cores(root=machine(tmp_path, files)) == 2


def test_a_quota_that_binds_is_what_libraries_do_not_see(monkeypatch):
    for cores, told in ((64, None), (2, 2)):
        monkeypatch.setattr("preprocess.machine.cores.available_cores", lambda cores=cores: cores)
        assert cores_of_quota() == told


def test_tensorflow_gets_the_threads_of_the_quota(monkeypatch):
    given = {}
    threading = types.SimpleNamespace(
        set_intra_op_parallelism_threads=lambda cores: given.update(intra=cores),
        set_inter_op_parallelism_threads=lambda cores: given.update(inter=cores),
    )
    tf = types.SimpleNamespace(config=types.SimpleNamespace(threading=threading))
    for cores, expected in ((None, {}), (2, {"intra": 2, "inter": 2})):
        monkeypatch.setattr(tensorflow_import, "cores_of_quota", lambda cores=cores: cores)
        tensorflow_import.obey_quota(tf)
        assert given == expected
