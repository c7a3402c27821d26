"""`edgeq jobs`: long work that the application began, seen and steered without it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from edgeq.jobs import Job, Look

EVERY_S = 1.0
_ID = "of the list; the beginning of one will do where it is no other's"


def command(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep looking, until none is at work.")] = False,
    pause: Annotated[str | None, typer.Option("--pause", metavar="ID", help=f"Stop one for now; ID {_ID}.")] = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="ID", help="Let one go on: paused, cancelled, interrupted, failed."),
    ] = None,
    cancel: Annotated[
        str | None, typer.Option("--cancel", metavar="ID", help="End one; --resume takes up what it had finished.")
    ] = None,
    forget: Annotated[str | None, typer.Option("--forget", metavar="ID", help="Take one off the list.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Long work in processes of its own: what there is, how far it is, and its pause, resume and cancel."""
    from rich.console import Console

    from edgeq import jobs

    acts = {"pause": pause, "resume": resume, "cancel": cancel, "forget": forget}
    given = {name: job_id for name, job_id in acts.items() if job_id is not None}
    if len(given) > 1:
        raise EdgeqError(f"{' and '.join(f'--{name}' for name in given)} at once", hint="Give one of them")
    for name, job_id in given.items():
        getattr(jobs, name)(_job(job_id))
    if watch and not as_json:
        _watch()
        return
    seen = [jobs.look(job) for job in jobs.all_jobs()]
    if as_json:
        print(json.dumps([_json(one) for one in seen], indent=2))
        return
    console = Console()
    console.print(_table(seen) if seen else "No jobs: `edgeq tui` begins them.", highlight=False)
    for one in seen:
        if one.failure is not None and one.failure.hint:
            console.print(f"{one.job.id}: {one.failure.hint}", markup=False, highlight=False, soft_wrap=True)


def _job(job_id: str) -> Job:
    from edgeq.jobs import find_job

    found = find_job(job_id)
    if found is None:
        raise EdgeqError(f"no job {job_id!r}, or several that begin so", hint="`edgeq jobs` lists them")
    return found


def _watch() -> None:
    from rich.live import Live

    from edgeq.jobs import all_jobs, look
    from edgeq.jobs.job import LIVE

    with Live(auto_refresh=False) as live:
        while True:
            seen = [look(job) for job in all_jobs()]
            live.update(_table(seen), refresh=True)
            if not any(one.state in LIVE for one in seen):
                return
            time.sleep(EVERY_S)


def _table(seen: Sequence[Look]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from edgeq.jobs import words

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("id", "what", "state"):
        table.add_column(name, overflow="fold")
    for name in ("done", "worked", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("now", overflow="fold")
    for one in seen:
        cells = (
            one.job.id,
            one.job.title,
            one.state,
            words.done(one),
            words.worked(one),
            words.left(one),
            words.now(one),
        )
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _json(seen: Look) -> Any:
    from edgeq.jsonable import to_json

    return {**to_json(seen), "share": seen.share, "remaining_s": seen.remaining_s}
