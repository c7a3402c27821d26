"""`--device auto | FILE.json | NAME`: this machine, another machine's profile, or one of the catalog."""

from __future__ import annotations

import json
from pathlib import Path

from edgeq.device.spec import Device
from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json


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
    if path.suffix.lower() == ".json" or path.is_file() or "/" in ref:
        return read_profile(path)
    from edgeq.device.catalog import catalog_device

    return catalog_device(ref)


def read_profile(path: Path) -> Device:
    """Another machine's profile.

    Raises:
        EdgeqError: the file is missing, no JSON, or no profile.
    """
    hint = "Write one with `edgeq profile --json > FILE.json`"
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise EdgeqError(f"can't read the device profile: {error.strerror or error}", where=path, hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise EdgeqError(f"the device profile is not JSON: {error}", where=path, hint=hint) from error
    device: Device = from_json(Device, data, where=path)
    return device
