"""What the hardware is: `profile_device` measures this machine, `load_device` finds another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeq.device.load_ref import load_device
    from edgeq.device.profile import profile_device
    from edgeq.device.spec import Device

__all__ = ["Device", "load_device", "profile_device"]

_HOMES = {
    "Device": "edgeq.device.spec",
    "load_device": "edgeq.device.load_ref",
    "profile_device": "edgeq.device.profile",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that naming a dataclass of this package costs no psutil or numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
