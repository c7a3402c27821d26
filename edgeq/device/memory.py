"""System memory: total, available now, and what a container allows of it."""

from __future__ import annotations

from pathlib import Path

from edgeq.device.cgroup import Limits, read_limits
from edgeq.device.spec import Memory


def probe_memory(root: Path = Path("/")) -> Memory:
    """Memory of this machine as this process may use it, in bytes. Takes a millisecond: read anew each time."""
    import psutil

    now = psutil.virtual_memory()
    return limited_memory(int(now.total), int(now.available), read_limits(root))


def limited_memory(total: int, available: int, limits: Limits) -> Memory:
    """`available` less what the control group won't give; a limit above the RAM there is binds nothing."""
    if limits.memory_bytes is None or limits.memory_bytes >= total:
        return Memory(total_bytes=total, available_bytes=available)
    left = limits.memory_bytes if limits.memory_left_bytes is None else limits.memory_left_bytes
    return Memory(total_bytes=total, available_bytes=min(available, left), limit_bytes=limits.memory_bytes)
