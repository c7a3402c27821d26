"""`edgeq tui`: the guided road in the terminal, or in a browser."""

from __future__ import annotations

from pathlib import Path

import typer

from edgeq.errors import EdgeqError


def command(
    model: str | None = typer.Option(None, "--model", "-m", help="Begin with this model: folder, .gguf, hub id, name."),
    device: str | None = typer.Option(None, "--device", "-d", help="Plan for this device instead of this machine."),
    plan: Path | None = typer.Option(None, "--plan", help="Begin with a plan: a file of `edgeq plan --json`."),
    step: str | None = typer.Option(
        None, "--step", help="Open at device, model, plan, quantize, export, bench, chat or deliver."
    ),
    resume: str | None = typer.Option(None, "--resume", help="Go on with this journey; `last` is the latest."),
    folder: Path | None = typer.Option(
        None, "--folder", help="Where what is made will lie [default: edgeq-models in this directory]."
    ),
    show: bool = typer.Option(False, "--list", help="List the journeys that could go on, and do nothing."),
    serve: bool = typer.Option(False, "--serve", help="Open it in a browser, on this machine's address alone."),
    port: int = typer.Option(8000, "--port", help="With --serve."),
) -> None:
    """The guided road: device, model, plan, quantize, export, benchmark, chat. What is chosen is kept."""
    if show:
        _print_journeys()
        return
    try:
        import textual  # noqa: F401
    except ImportError as error:
        raise EdgeqError("the application needs textual", hint="pip install 'edgeq[tui]'") from error
    if serve:
        from edgeq.tui.serve import serve as run

        run(_arguments(model, device, plan, step, resume, folder), port)
        return
    from edgeq.tui.launch import open_app

    open_app(model=model, device=device, plan=plan, step=step, resume=resume, folder=folder)


def _print_journeys() -> None:
    from datetime import UTC, datetime

    from edgeq.jobs.words import ago
    from edgeq.journey import changed, journeys

    for one in journeys():
        when = changed(one)
        print(f"{one.id}  {one.step:9} {ago(when, datetime.now(UTC)) if when else '':15} {one.title}")


def _arguments(
    model: str | None, device: str | None, plan: Path | None, step: str | None, resume: str | None, folder: Path | None
) -> list[str]:
    """The options that were given, for the process that each visitor gets."""
    given = {"model": model, "device": device, "plan": plan, "step": step, "resume": resume, "folder": folder}
    return [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
