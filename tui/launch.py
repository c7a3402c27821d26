"""From the command line's options to a running application."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from edgeq.errors import EdgeqError
from edgeq.journey import STEPS, Journey, Step, begin, find_journey, from_plan, journeys


def open_app(
    *,
    model: str | None = None,
    device: str | None = None,
    plan: Path | None = None,
    step: str | None = None,
    resume: str | None = None,
    folder: Path | None = None,
) -> None:
    """Run the application until the person leaves it.

    Raises:
        EdgeqError: no terminal, a step, journey or plan that does not exist.
    """
    served = "TEXTUAL_DRIVER" in os.environ  # by textual-serve, which has the application draw into a pipe
    if not served and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise EdgeqError("the application needs a terminal", hint="Use the commands (`edgeq --help`), or --serve")
    journey = journey_of(model=model, device=device, plan=plan, step=step, resume=resume, folder=folder)
    asked = any(given is not None for given in (model, device, plan, step, resume))
    from edgeq.tui.app import EdgeqApp

    EdgeqApp(journey, welcome=not asked and bool(journeys())).run()


def journey_of(
    *,
    model: str | None = None,
    device: str | None = None,
    plan: Path | None = None,
    step: str | None = None,
    resume: str | None = None,
    folder: Path | None = None,
) -> Journey:
    """The journey that the options describe; it opens at the first step that is still to be taken, or at `step`.

    Raises:
        EdgeqError: a step, journey or plan that does not exist.
    """
    journey = _resumed(resume) if resume is not None else begin(folder)
    if device is not None:
        journey = journey.with_device(device)
    if plan is not None:
        journey = from_plan(_read(plan), journey, plan)
    if model is not None:
        journey = journey.with_model(model)
    if step is not None:
        return replace(journey, step=_step(step))
    return journey if resume is not None else replace(journey, step=_first_open(journey))


def _first_open(journey: Journey) -> Step:
    if journey.model is None:
        return "device"
    return "plan" if journey.scheme is None else "quantize"


def _resumed(name: str) -> Journey:
    if name != "last":
        return find_journey(name)
    kept = journeys()
    if not kept:
        raise EdgeqError("there is no journey to go on with", hint="Begin one: edgeq tui")
    return kept[0]


def _step(name: str) -> Step:
    for step in STEPS:
        if step == name.strip().lower():
            return step
    raise EdgeqError(f"no step named {name!r}", where="--step", hint=f"Known: {', '.join(STEPS)}")


def _read(path: Path) -> dict[str, object]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        hint = "Make one: edgeq plan -m MODEL --json > plan.json"
        raise EdgeqError("cannot read the plan", where=path, hint=hint) from error
    if not isinstance(data, dict):
        raise EdgeqError("not a plan", where=path)
    return data
