from __future__ import annotations

import pytest

from trainer.data.memory import MemoryBudget, available_memory

MEMINFO = "MemTotal:       16000 kB\nMemAvailable:    8000 kB\n"


def machine(root, files: dict[str, str]) -> str:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return str(root)


def test_this_machine_has_some():
    assert 1 << 20 < available_memory() < 1 << 50


@pytest.mark.parametrize(
    ("files", "available"),
    [
        ({}, 8000 * 1024),
        # cgroup v2, bound by the parent; page cache that can be dropped is not counted as used.
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "1000\n",
                "sys/fs/cgroup/a/memory.current": "700\n",
                "sys/fs/cgroup/a/memory.stat": "anon 1\ninactive_file 200\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
                "sys/fs/cgroup/a/b/memory.current": "700\n",
            },
            500,
        ),
        # In a container that sees its own group as the root.
        (
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "1000\n",
                "sys/fs/cgroup/memory.current": "300\n",
            },
            700,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/x\n4:memory:/a\n0::/\n",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1000\n",
                "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "900\n",
                "sys/fs/cgroup/memory/a/memory.stat": "total_inactive_file 50\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "5\n",
            },
            150,
        ),
    ],
)
def test_the_least_of_machine_and_groups(tmp_path, files, available):
    assert available_memory(root=machine(tmp_path, {"proc/meminfo": MEMINFO, **files})) == available


def test_a_budget_is_given_out_once():
    budget = MemoryBudget(2)
    assert [budget.take(1 << 20), budget.take(1 << 21), budget.take(1 << 20), budget.take(1)] == [
        True,
        False,
        True,
        False,
    ]
