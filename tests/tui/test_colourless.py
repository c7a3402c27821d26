"""Without colours every screen is drawn, and what is read is the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from making_data import until
from rich.segment import Segment
from rich.style import Style
from snapshot import characters
from textual.color import Color

from edgeq.journey import STEPS, begin
from edgeq.tui.app import EdgeqApp
from edgeq.tui.colourless import Colourless


def test_a_segment_without_a_style_is_left_as_it_is():
    bare, red = Segment("  "), Segment("x", Style(color="#ff0000", bold=True))
    seen = Colourless().apply([bare, red], Color.parse("black"))
    assert seen[0] == bare
    assert seen[1].text == "x" and seen[1].style.bold
    rgb = seen[1].style.color.get_truecolor()
    assert rgb.red == rgb.green == rgb.blue


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_every_step_is_drawn(size, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    app = EdgeqApp(replace(begin().with_device("ddr4-laptop").with_model("7B"), step="plan"))
    async with app.run_test(size=size) as pilot:
        assert app.no_color
        await until(pilot, lambda: "advised" in characters(app))
        for _ in range(3):
            await pilot.press("v")
            await pilot.pause()
        for step in STEPS:
            await pilot.press(str(STEPS.index(step) + 1))
            await until(pilot, lambda step=step: app.step == step)
        for key in ("question_mark", "escape", "j", "escape"):
            await pilot.press(key)
            await pilot.pause()
    assert app.return_code in (None, 0)
