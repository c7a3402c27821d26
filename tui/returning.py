"""The journeys that could go on: where each is, when it was last there, and what of it is at work now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgeq.jobs.words import ago, going_on
from edgeq.journey import changed, journeys
from edgeq.tui.widgets.stepbar import TITLES

if TYPE_CHECKING:
    from edgeq.journey import Journey

MOST = 8


@dataclass(frozen=True, slots=True)
class Way:
    """A journey for a list: its id, what it is of, and how it stands."""

    journey_id: str
    title: str
    line: str


def ways() -> list[Way]:
    """The latest ones. Blocks for some milliseconds each: their jobs are looked at."""
    now = datetime.now(UTC)
    return [_way(one, now) for one in journeys()[:MOST]]


def _way(one: Journey, now: datetime) -> Way:
    how = f", {one.scheme} on {one.target}" if one.scheme else ""
    when = changed(one)
    parts = (f"at {TITLES[one.step]}", ago(when, now) if when else "", _work(one))
    return Way(one.id, f"{one.model_name or 'nothing chosen yet'}{how}", ", ".join(part for part in parts if part))


def _work(one: Journey) -> str:
    """What of it is at work now: `Quantize runs now: 42%`."""
    from edgeq.jobs import find_job, look

    for step, job_id in one.jobs.items():
        job = find_job(job_id)
        said = "" if job is None else going_on(look(job))
        if said:
            return f"{TITLES[step]} {said}"  # type: ignore[index]
    return ""
