"""`--device auto | FILE.json | NAME`: this machine, another machine's profile, or one of the catalog."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path

from edgeq.device.spec import Device, Figure
from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json

LARGEST_PROFILE = 8 << 20
HINT = "Write one with `edgeq profile --json > FILE.json`"


def load_device(ref: str) -> Device:
    """The device that `ref` names.

    Args:
        ref: `auto`, a file written by `edgeq profile --json`, or a name of the catalog (`edgeq profile --list`).

    Raises:
        EdgeqError: no such file or name, or the file is not a profile.
    """
    if ref == "auto":
        from edgeq.device.profile import profile_device

        return profile_device()
    path = Path(ref)
    if path.suffix.lower() == ".json" or "/" in ref or _is_file(path):
        return read_profile(path)
    from edgeq.device.catalog import catalog_device

    return catalog_device(ref)


def read_profile(path: Path) -> Device:
    """Another machine's profile; its origin is `file` from then on.

    Raises:
        EdgeqError: the file is missing, no JSON, no profile, or holds a figure that can't be.
    """
    try:
        if path.stat().st_size > LARGEST_PROFILE:
            raise EdgeqError("too large for a device profile", where=path, hint=HINT)
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EdgeqError(f"can't read the device profile: {error.strerror or error}", where=path, hint=HINT) from error
    except (ValueError, RecursionError) as error:
        raise EdgeqError(f"the device profile is not JSON: {error}", where=path, hint=HINT) from error
    device: Device = from_json(Device, data, where=path)
    problem = implausible(device)
    if problem:
        raise EdgeqError(f"the device profile is not plausible: {problem}", where=path, hint=HINT)
    return dataclasses.replace(device, origin="file")


def implausible(device: Device) -> str | None:
    """What can't be true of any machine, or None. A plan divides by these figures."""
    if device.cpu.cores < 1 or device.cpu.threads < 1:
        return "it has no processor core"
    memory = device.memory
    if memory.total_bytes <= 0 or memory.available_bytes < 0 or (memory.limit_bytes or 1) <= 0:
        return "its memory is not positive"
    if memory.available_bytes > memory.total_bytes:
        return "more memory is free than there is"
    if any(a.memory_bytes < 0 or a.available_bytes < 0 for a in device.accelerators):
        return "an accelerator's memory is negative"
    wrong = [f for f in figures(device) if not (math.isfinite(f.value) and f.value > 0)]
    return f"{wrong[0].value} {wrong[0].unit}" if wrong else None


def figures(value: object) -> Iterator[Figure]:
    """Every Figure inside a dataclass or tuple of them."""
    if isinstance(value, Figure):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from figures(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from figures(getattr(value, field.name))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name no file system takes
        return False
