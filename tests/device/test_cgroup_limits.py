"""Container limits of both control-group versions, from fake trees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeq.device.cgroup import Limits, read_limits
from edgeq.device.memory import limited_memory

Tree = Callable[[dict[str, str]], Path]
MIB = 1 << 20
GIB = 1 << 30


def test_version_2_limits_less_what_is_in_use(tree: Tree) -> None:
    group = "sys/fs/cgroup/docker/abc"
    root = tree(
        {
            "proc/self/cgroup": "0::/docker/abc\n",
            f"{group}/memory.max": f"{2 * GIB}\n",
            f"{group}/memory.current": f"{600 * MIB}\n",
            f"{group}/memory.stat": f"anon 1\ninactive_file {100 * MIB}\n",
            f"{group}/cpu.max": "150000 100000\n",
        }
    )
    assert read_limits(root) == Limits(2 * GIB, 2 * GIB - 500 * MIB, 1.5)


def test_the_tightest_ancestor_binds(tree: Tree) -> None:
    root = tree(
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/memory.max": f"{GIB}",
            "sys/fs/cgroup/a/b/memory.max": f"{4 * GIB}",
            "sys/fs/cgroup/a/cpu.max": "max 100000",
            "sys/fs/cgroup/a/b/cpu.max": "50000 100000",
        }
    )
    limits = read_limits(root)
    assert limits.memory_bytes == GIB
    assert limits.cpus == 0.5


def test_a_container_that_sees_its_group_as_the_root(tree: Tree) -> None:
    root = tree({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{GIB}"})
    assert read_limits(root).memory_bytes == GIB


def test_version_1_with_the_hosts_path_and_the_containers_mount(tree: Tree) -> None:
    root = tree(
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{300 * MIB}",
            "sys/fs/cgroup/memory/memory.stat": f"cache 5\ntotal_inactive_file {50 * MIB}\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        }
    )
    assert read_limits(root) == Limits(GIB, GIB - 250 * MIB, 2.0)


def test_version_1s_unlimited_is_no_limit(tree: Tree) -> None:
    root = tree(
        {
            "proc/self/cgroup": "4:memory:/\n1:cpu:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        }
    )
    assert read_limits(root) == Limits()


def test_garbage_and_absence_are_no_limit(tree: Tree) -> None:
    root = tree({"proc/self/cgroup": "0::/x\nnonsense\n", "sys/fs/cgroup/x/memory.max": "plenty"})
    assert read_limits(root) == Limits()
    assert read_limits(root / "nowhere") == Limits()


def test_usable_memory_is_what_the_container_leaves() -> None:
    memory = limited_memory(16 * GIB, 12 * GIB, Limits(2 * GIB, GIB))
    assert (memory.limit_bytes, memory.available_bytes, memory.usable_bytes) == (2 * GIB, GIB, GIB)


def test_a_limit_above_the_ram_binds_nothing() -> None:
    memory = limited_memory(16 * GIB, 12 * GIB, Limits(64 * GIB, 60 * GIB))
    assert memory.limit_bytes is None
    assert memory.usable_bytes == 12 * GIB
