"""What parts of the application say to each other."""

from __future__ import annotations

from textual.message import Message

from edgeq.journey import Step


class GoTo(Message):
    """Show a step."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step


class Failed(Message):
    """Something went wrong; shown where it happened."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__()
        self.what, self.hint = what, hint
