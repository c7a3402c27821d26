"""A measurement as it goes: how far it is, how fast each artifact writes, what came out so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from edgeq.tui.widgets.facts import Facts
from edgeq.tui.widgets.gauge import Gauges
from edgeq.tui.widgets.job_panel import JobPanel
from edgeq.tui.widgets.speeds import Speeds

if TYPE_CHECKING:
    from edgeq.jobs import Look
    from edgeq.jobs.job import Event
    from edgeq.tui.benching import Benching


class BenchLive(Vertical):
    """`begin` for another run, `behind` with what was said of it before, then `hear` each look."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._speeds: list[tuple[int, float]] = []
        self._heard: Event | None = None

    def compose(self) -> ComposeResult:
        yield JobPanel(id="job")
        yield Gauges(id="gauges")
        yield Static("Tokens/s while it writes, the latest at the right", id="speeds-title", classes="dim")
        yield Speeds(id="speeds")
        yield Facts("", id="so-far")

    def begin(self) -> None:
        self._speeds = []
        self.query_one("#so-far", Facts).show([])
        self.query_one(Gauges).show([], 0)
        self.query_one(Speeds).show([])

    def behind(self, speeds: list[tuple[int, float]]) -> None:
        """(artifact, tokens/s) of what was measured before this window looked."""
        self._speeds = [*speeds, *self._speeds]

    def hear(self, seen: Look, benching: Benching) -> None:
        from edgeq.measure.bench_words import so_far_rows
        from edgeq.measure.live import now_of

        now = None if seen.event is None else now_of(seen.event.more)
        if now is None:
            return
        if now.decode_tps is not None and seen.event != self._heard:  # a look may see the same again
            self._speeds.append((now.artifact, now.decode_tps))
        self._heard = seen.event
        self.query_one(Gauges).show(benching.dials(self._speeds), now.artifact)
        self.query_one(Speeds).show([speed for artifact, speed in self._speeds if artifact == now.artifact])
        self.query_one("#so-far", Facts).show(so_far_rows(now, benching.names))
