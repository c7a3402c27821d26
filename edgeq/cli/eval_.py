"""`edgeq eval`: what quantization cost, measured against the original."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.amounts import amount

if TYPE_CHECKING:
    from rich.console import Console

    from edgeq.measure.evaluate import Evaluation, ReferenceCache, Windows
    from edgeq.measure.model import Measured


def command(
    original: Annotated[str, typer.Argument(help="The unquantized model: a folder, .gguf file or hub id.")],
    candidate: Annotated[
        str, typer.Argument(help="What to judge: a checkpoint, an artifact, or any model edgeq reads.")
    ],
    text: Annotated[
        Path | None, typer.Option(help="A text file [default: a built-in text, too short for fine differences].")
    ] = None,
    chunks: Annotated[int | None, typer.Option(help="At most so many chunks of it. [default: all]")] = None,
    length: Annotated[int, typer.Option(help="Tokens of a chunk.")] = 512,
    second_half: Annotated[
        bool | None,
        typer.Option(
            "--second-half/--all",
            help="Score the second half of full chunks, as llama-perplexity does, or every token. "
            "[default: second half of --text, all of the built-in text]",
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps the original's logits for the next candidate.")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Tasks of lm-eval to run on both, e.g. hellaswag,arc_easy (needs lm-eval).")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Questions of each task. [default: all]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """KL divergence, agreement and perplexity of a quantized model, against the original on a text."""
    from rich.console import Console

    from edgeq.cli.progress import steps
    from edgeq.jsonable import to_json
    from edgeq.measure.evaluate import evaluate, windows
    from edgeq.measure.harness import task_names
    from edgeq.measure.model import open_model
    from edgeq.measure.texts import built_in_texts, read_text
    from edgeq.measure.verify import let_torch_sleep

    let_torch_sleep()
    names = task_names(tasks)  # before the models are opened
    own = read_text(text) if text is not None else None
    half = second_half if second_half is not None else text is not None
    first, second = open_model(original), open_model(candidate)
    try:
        passage = own if own is not None else "\n\n".join(built_in_texts())
        shortest = min(first.max_positions, second.max_positions)
        wanted = windows(first.tokenizer(), passage, length=length, count=chunks, second_half=half, longest=shortest)
        with steps("evaluating", quiet=as_json, remaining=True) as progress:
            found = evaluate(first, second, wanted, cache=_cache(cache, first), progress=progress)
        scores = _scores(first, second, names, limit, quiet=as_json)
    finally:
        first.close()
        second.close()
    if as_json:
        print(json.dumps({**to_json(found), "text": str(text or "built-in"), "tasks": scores}, indent=2))
        return
    render(found, wanted, str(text or "the built-in text"), Console())
    _render_tasks(scores, Console())


def _cache(folder: Path | None, model: Measured) -> ReferenceCache | None:
    from edgeq.measure.evaluate import ReferenceCache

    return None if folder is None else ReferenceCache(folder.expanduser(), model.fingerprint())


def _scores(
    original: Measured, candidate: Measured, names: tuple[str, ...], limit: int | None, *, quiet: bool
) -> dict[str, Any]:
    """Figures of the tasks, of both models."""
    if not names:
        return {}
    from edgeq.cli.progress import steps
    from edgeq.measure.harness import run_tasks

    found = {}
    with steps("tasks", quiet=quiet) as progress:
        for at, (role, model) in enumerate((("original", original), ("candidate", candidate))):
            progress(at, 2, f"{role}: {', '.join(names)}")
            found[role] = run_tasks(model, names, limit=limit)
    return found


def render(found: Evaluation, text: Windows, name: str, console: Console) -> None:
    """The figures, and what they were measured on."""
    from rich.markup import escape
    from rich.table import Table

    d = found.divergence
    size = f"  {amount(found.bytes)}" if found.bytes else ""
    console.print(f"[bold]{escape(found.candidate)}[/]  {escape(found.scheme)}{size}", highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", show_header=False)
    table.add_row("KL divergence", f"[bold]{_nats(d.mean_kl)}[/] nats", f"p99 {_nats(d.p99_kl)}, max {_nats(d.max_kl)}")
    table.add_row("same likeliest token", f"[bold]{d.top1:.1%}[/]", f"among its five likeliest {d.top5:.1%}")
    if d.perplexity is not None and d.reference_perplexity is not None:
        change = d.perplexity / d.reference_perplexity - 1
        table.add_row(
            "perplexity", f"[bold]{d.perplexity:,.2f}[/]", f"original {d.reference_perplexity:,.2f} ({change:+.1%})"
        )
    console.print(table, highlight=False)
    part = "second halves" if found.first else "all tokens"
    scored = f"{text.scored:,} tokens of {escape(name)}: {found.chunks} chunks of {found.length}, {part}"
    console.print(
        f"[dim]{scored}. {found.original_s:.1f} s + {found.candidate_s:.1f} s.[/]", highlight=False, soft_wrap=True
    )
    if d.broken:
        console.print(f"[red]✗ {d.broken} positions have logits that are not numbers[/]", highlight=False)


def _render_tasks(scores: dict[str, Any], console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    if not scores:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column, side in (("task", "left"), ("figure", "left"), ("original", "right"), ("candidate", "right")):
        table.add_column(column, justify=side)  # type: ignore[arg-type]
    for task, figures in scores["original"].items():
        for name, value in figures.items():
            if "stderr" not in name:
                table.add_row(escape(task), name.partition(",")[0], f"{value:.4f}", _figure(scores, task, name))
    console.print(table, highlight=False)


def _figure(scores: dict[str, Any], task: str, name: str) -> str:
    value = scores["candidate"].get(task, {}).get(name)
    return "" if value is None else f"{value:.4f}"


def _nats(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-3 or value == 0 else f"{value:.1e}"
