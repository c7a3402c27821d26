"""One file a screen."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from edgeq.journey import Step

if TYPE_CHECKING:
    from edgeq.tui.screens.step import StepScreen

_CLASSES: dict[Step, tuple[str, str]] = {
    "device": ("device", "DeviceScreen"),
    "model": ("model", "ModelScreen"),
    "plan": ("plan", "PlanScreen"),
    "quantize": ("quantize", "QuantizeScreen"),
    "export": ("export", "ExportScreen"),
    "bench": ("bench", "BenchScreen"),
    "chat": ("chat", "ChatScreen"),
    "deliver": ("deliver", "DeliverScreen"),
}


def screen_of(step: Step) -> StepScreen:
    """The screen of a step, imported when it is first shown."""
    module, name = _CLASSES[step]
    made: StepScreen = getattr(import_module(f"edgeq.tui.screens.{module}"), name)()
    return made
