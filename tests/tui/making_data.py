"""A tiny random model on disk, journeys with it, and waiting for what a screen says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from snapshot import characters
from textual.app import App
from textual.pilot import Pilot
from tiny_llama import write_llama, write_words

from edgeq.journey import Journey, begin
from edgeq.plan import Request


def write_model(folder: Path, layers: int = 4) -> Path:
    """A llama of a few layers, whose tokenizer has a word a number."""
    write_llama(folder, num_hidden_layers=layers)
    write_words(folder)
    return folder


def journey(folder: Path, model: Path | str, scheme: str = "rtn-int4-g32", **changes: object) -> Journey:
    """One that has chosen a candidate, and stands at the step quantize."""
    chosen = begin(folder).with_model(str(model)).with_choice(Request(context=64), scheme, "onnxruntime/cpu")
    return replace(chosen, step="quantize", **changes)  # type: ignore[arg-type]


async def until(pilot: Pilot[None], seen: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end, f"still on the screen:\n{characters(pilot.app)}"
        await pilot.pause(0.05)
    await pilot.pause()


def guide(app: App[None]) -> str:
    return str(app.screen.query_one("#guide").render())


def problem(app: App[None]) -> str:
    return str(app.screen.query_one("#problem").render())
