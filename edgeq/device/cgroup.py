"""Container limits: what the control groups of this process allow it to take.

Both hierarchies are read (v1 with one tree a controller, v2 with one for all), as described in the kernel's
Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst. A limit of any ancestor binds too, so the
whole path up to the root is walked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeq.device.text import read_text

# v1 says "no limit" with the largest page-aligned signed 64-bit number; anything near it is no limit.
UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True)
class Limits:
    """What a control group allows: bytes of memory, bytes of it left, and processors' worth of time."""

    memory_bytes: int | None = None
    memory_left_bytes: int | None = None
    cpus: float | None = None


def read_limits(root: Path = Path("/")) -> Limits:
    """The limits of the running process; `root` stands for `/`, so that a test can give a fake tree."""
    groups = _groups(read_text(root / "proc/self/cgroup"))
    limit, left = None, None
    for folder in _folders(root, groups, "memory"):
        allowed = _memory_limit(folder)
        if allowed is None:
            continue
        limit = allowed if limit is None else min(limit, allowed)
        room = max(0, allowed - _memory_in_use(folder))
        left = room if left is None else min(left, room)
    shares = [s for folder in _folders(root, groups, "cpu") if (s := _cpus(folder)) is not None]
    return Limits(limit, left, min(shares, default=None))


def _groups(text: str) -> dict[str, str]:
    """Controller -> path; the unified v2 hierarchy under the empty name. Lines are `id:controllers:path`."""
    groups: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            groups.update(dict.fromkeys(parts[1].split(","), parts[2]))
    return groups


def _folders(root: Path, groups: dict[str, str], controller: str) -> Iterator[Path]:
    """The group's folder and its ancestors, in v1's tree of the controller or v2's common one."""
    top = root / "sys/fs/cgroup"
    v1 = [top / controller, top / "cpu,cpuacct"] if controller == "cpu" else [top / controller]
    bases = [(base, groups[controller]) for base in v1 if controller in groups and base.is_dir()][:1]
    bases += [(base, groups[""]) for base in (top, top / "unified") if "" in groups]
    for base, path in bases:
        inside = [part for part in path.split("/") if part not in ("", "..")]
        # In a container the path may name the host's view while the mount shows only the last part: both are tried.
        for depth in range(len(inside), -1, -1):
            folder = base.joinpath(*inside[:depth])
            if folder.is_dir():
                yield folder


def _memory_limit(folder: Path) -> int | None:
    text = read_text(folder / "memory.max") or read_text(folder / "memory.limit_in_bytes")
    value = _integer(text)
    return value if value is not None and 0 < value < UNLIMITED else None


def _memory_in_use(folder: Path) -> int:
    """Bytes in use less the page cache that would be given back under pressure."""
    used = _integer(read_text(folder / "memory.current") or read_text(folder / "memory.usage_in_bytes")) or 0
    stat = dict(line.split()[:2] for line in read_text(folder / "memory.stat").splitlines() if len(line.split()) == 2)
    cache = _integer(stat.get("total_inactive_file") or stat.get("inactive_file") or "") or 0
    return max(0, used - cache)


def _cpus(folder: Path) -> float | None:
    """Quota over period: v2's `cpu.max` holds both, v1 has a file for each; `max` or -1 is no limit."""
    fields = read_text(folder / "cpu.max").split()
    if not fields:
        fields = [read_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    quota = _integer(fields[0])
    period = _integer(fields[1]) if len(fields) > 1 else 100_000
    if quota is None or quota <= 0 or not period or period <= 0:
        return None
    return quota / period


def _integer(text: str) -> int | None:
    try:
        return int(text.strip())
    except ValueError:
        return None
