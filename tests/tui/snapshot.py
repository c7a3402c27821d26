"""A screen as text that can be compared, kept beside the test: characters first, then the colours of each line.

`EDGEQ_WRITE_SNAPSHOTS=1` writes what is seen instead of comparing it; look at the difference before committing it.
"""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Callable
from pathlib import Path

from textual.app import App
from textual.pilot import Pilot

SIZES = ((80, 24), (120, 40), (200, 60))
THEMES = ("edgeq-dark", "edgeq-light")
FOLDER = Path(__file__).parent / "snapshots"
drawn: Callable[[App[None], str], None] | None = None  # docs/pictures.py sees each picture that is as it should be
PATIENCE_S = 6.0  # that a picture stands still before it is called wrong


def picture(app: App[None]) -> str:
    """The screen's characters, a line each, then per line the runs of one style as `length:style`."""
    lines, styles = [], []
    for strip in app.screen._compositor.render_strips(app.size):
        lines.append(strip.text.rstrip())
        runs: list[tuple[int, str]] = []
        for segment in strip:
            style = "" if segment.style is None else str(segment.style.without_color) + _colours(segment.style)
            length = len(segment.text)
            if runs and runs[-1][1] == style:
                runs[-1] = (runs[-1][0] + length, style)
            else:
                runs.append((length, style))
        styles.append(" ".join(f"{n}:{s}" for n, s in runs))
    return "\n".join((*lines, "-" * 8, *styles, ""))


def _colours(style: object) -> str:
    parts = [getattr(style, name) for name in ("color", "bgcolor")]
    return "/".join("" if c is None else c.get_truecolor().hex for c in parts)


def characters(app: App[None]) -> str:
    """What a person reads."""
    return picture(app).split("\n--------\n")[0]


async def settled(pilot: Pilot[None], still_s: float = 1.0) -> None:
    """Wait until the picture no longer changes."""
    seen, since = "", time.monotonic()
    while time.monotonic() - since < still_s:
        await pilot.pause(0.1)
        if (now := picture(pilot.app)) != seen:
            seen, since = now, time.monotonic()


async def _seen(pilot: Pilot[None], kept: str) -> None:
    """Wait until this picture is there, or another one has long stood still."""
    last, since = "", time.monotonic()
    while time.monotonic() - since < PATIENCE_S:
        await pilot.pause(0.1)
        if (now := picture(pilot.app)) == kept:
            return
        if now != last:
            last, since = now, time.monotonic()


async def check(pilot: Pilot[None], name: str) -> None:
    """Wait for the kept picture of this name, or write what is seen once it stands still."""
    file = FOLDER / f"{name}.txt"
    if os.environ.get("EDGEQ_WRITE_SNAPSHOTS"):
        await settled(pilot)
        file.parent.mkdir(exist_ok=True)
        file.write_text(picture(pilot.app), "utf-8")
    assert file.exists(), f"no picture of {name}: EDGEQ_WRITE_SNAPSHOTS=1 writes it"
    kept = file.read_text("utf-8")
    if picture(pilot.app) != kept:  # a busy machine draws late; a wrong picture stays as it is
        await _seen(pilot, kept)
    seen = picture(pilot.app)
    changed = "\n".join(difflib.unified_diff(kept.splitlines(), seen.splitlines(), "kept", "seen", lineterm="", n=1))
    assert kept == seen, f"{name} looks different:\n{changed[:4000]}"
    if drawn is not None:
        drawn(pilot.app, name)
