"""The step model."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.widgets import Static

from edgeq.journey import Step
from edgeq.tui.screens.step import StepScreen


class ModelScreen(StepScreen):
    STEP: ClassVar[Step] = "model"

    def body(self) -> ComposeResult:
        yield Static("")
