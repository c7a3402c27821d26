"""`edgeq verify`: compare an artifact's logits with its checkpoint's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    from rich.console import Console

    from edgeq.artifact import Artifact
    from edgeq.measure.divergence import Divergence
    from edgeq.measure.verify import Verification


def command(
    artifact: Path = typer.Argument(..., help="A folder that `edgeq export` made, or a GGUF file."),
    checkpoint: Path | None = typer.Option(
        None, help="The neutral checkpoint it was exported from [default: the one its manifest names]."
    ),
    original: str | None = typer.Option(None, help="The unquantized model, to show what quantization cost."),
    text: Path | None = typer.Option(None, help="A text file to compare on [default: a built-in, varied text]."),
    tokens: int = typer.Option(1024, min=2, help="At most so many tokens of text."),
    kld_limit: float | None = typer.Option(None, help="Mean KL divergence (nats) that still passes."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Compare an artifact's logits with the reference decoder's on its checkpoint. Exit code 1 when it fails."""
    from rich.console import Console

    from edgeq.artifact import check_sums, read_artifact
    from edgeq.checkpoint.open import open_weights
    from edgeq.cli.progress import steps
    from edgeq.jsonable import to_json
    from edgeq.measure.texts import read_text
    from edgeq.measure.verify import record, verify

    if kld_limit is not None and not 0 <= kld_limit < float("inf"):
        raise EdgeqError(f"--kld-limit is {kld_limit}", hint="Give nats, 0 or more, such as 0.05")
    opened = read_artifact(artifact)
    check_sums(opened)
    neutral = open_weights(checkpoint_of(opened, checkpoint))
    source = open_weights(original) if original else None
    own = read_text(text) if text else None
    with steps("verifying", quiet=as_json) as progress:
        found = verify(
            opened,
            checkpoint=neutral,
            original=source,
            text=own,
            tokens=tokens,
            kld_limit=kld_limit,
            progress=progress,
        )
    record(opened, found)
    if as_json:
        print(json.dumps(to_json(found), indent=2))
    else:
        render(opened, found, Console())
    if found.verdict == "fail":
        raise typer.Exit(1)


def checkpoint_of(artifact: Artifact, given: Path | None) -> Path:
    """The checkpoint to compare with.

    Raises:
        EdgeqError: none was given and the one in the manifest is gone.
    """
    if given is not None:
        return given
    hint = "Name it with --checkpoint"
    if artifact.checkpoint is None:
        raise EdgeqError("the artifact does not say which checkpoint it was exported from", hint=hint)
    path = Path(artifact.checkpoint)
    if not path.exists():
        raise EdgeqError("the checkpoint this artifact was exported from is gone", where=path, hint=hint)
    return path


ROUNDED = "The runtime rounds activations to 8 bits, so where two tokens are close it may choose the other one."


def render(artifact: Artifact, found: Verification, console: Console) -> None:
    """What was compared, what came out, and the verdict."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for name in ("tokens", "mean KL", "p99 KL", "max KL", "top-1", "perplexity"):
        table.add_column(name, justify="right")
    if found.text is not None:
        table.add_row("checkpoint, text", *_row(found.text))
    table.add_row("checkpoint, random", *_row(found.random))
    if found.steps is not None:
        table.add_row("step by step", *_row(found.steps))
    if found.original is not None:
        table.add_row("original, text", *_row(found.original))
    console.print(
        f"[bold]{escape(artifact.name)}[/]  {escape(artifact.scheme)}  on {artifact.runtime}", highlight=False
    )
    console.print(table)
    limits = f"mean KL {found.limits.mean_kl:g} nats, top-1 {found.limits.top1:.0%}"
    cache = artifact.options.get("kv_dtype", "f32")
    cached = "" if cache == "f32" else f" and an {cache} cache"
    console.print(f"[dim]Limits with {found.path} activations{cached}: {limits}.[/]", highlight=False)
    if found.verdict == "pass":
        console.print("[green]✓ The artifact computes what the checkpoint says.[/]")
        if found.path != "float":
            console.print(f"[dim]{ROUNDED}[/]", highlight=False)
    for reason in found.reasons:
        console.print(f"[red]✗ {escape(reason)}[/]", highlight=False)


def _row(d: Divergence) -> tuple[str, ...]:
    perplexity = "" if d.perplexity is None else f"{d.perplexity:,.1f}"
    return (
        str(d.tokens),
        *(_nats(value) for value in (d.mean_kl, d.p99_kl, d.max_kl)),
        f"{d.top1:.1%}",
        perplexity,
    )


def _nats(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-4 or value == 0 else f"{value:.0e}"
