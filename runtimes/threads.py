"""How many threads a kernel pool should have: the physical cores this process may really use."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores() -> int:
    """Physical cores within the affinity mask, no more than the container's CPU quota, at least 1.

    Decoding is bound by memory reads, so a second hardware thread of the same core only costs synchronisation.
    """
    cores = min(_physical_cores(_affinity()), _quota())
    return max(1, cores)


def _affinity() -> set[int]:
    """Logical processors this process may run on; all of them where the system can't say."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _physical_cores(logical: set[int], root: Path = Path("/sys/devices/system/cpu")) -> int:
    """Count distinct (package, core) pairs as sysfs tells them; psutil's count elsewhere, then the logical count."""
    pairs = set()
    for number in logical:
        topology = root / f"cpu{number}" / "topology"
        try:
            pairs.add(((topology / "physical_package_id").read_text(), (topology / "core_id").read_text()))
        except OSError:
            return min(len(logical), _psutil_cores() or len(logical))
    return len(pairs)


def _psutil_cores() -> int | None:
    try:
        import psutil
    except ImportError:
        return None
    count: int | None = psutil.cpu_count(logical=False)
    return count


def _quota(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Whole CPUs of the container's quota (cgroup v2 `cpu.max`, v1 `cfs_quota_us`), rounded up; huge when unlimited."""
    pairs = ((root / "cpu.max", None), (root / "cpu/cpu.cfs_quota_us", root / "cpu/cpu.cfs_period_us"))
    for quota_file, period_file in pairs:
        try:
            fields = quota_file.read_text().split()
            if period_file is not None:
                fields.append(period_file.read_text().strip())
            quota, period = int(fields[0]), int(fields[1])
        except (OSError, ValueError, IndexError):
            continue  # absent, or "max": no quota here
        if quota > 0 and period > 0:
            return -(-quota // period)
    return 1 << 20
