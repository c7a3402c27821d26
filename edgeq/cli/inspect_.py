"""`edgeq inspect`: what a model is made of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from edgeq.model.spec import ModelSpec

GIB, GB = 1 << 30, 10**9
_ORIGINS = {"class": "reference architecture", "hub": "from the hub", "folder": "local folder", "gguf": "GGUF file"}


def command(
    model: str = typer.Argument(..., help="A folder, .gguf file, hub id, short name or size such as 7B."),
    context: int = typer.Option(8192, "--context", help="Tokens to give the KV cache for.", min=1),
    revision: str = typer.Option(None, "--revision", help="Branch, tag or commit of a hub id."),
    offline: bool = typer.Option(False, "--offline", help="Use only what is on this machine."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """What a model is made of: layers, parameters per role, KV cache per token. Reads no weight."""
    from edgeq.model.read import read_model

    spec = read_model(model, revision=revision, offline=offline)
    if as_json:
        print(json.dumps(report(spec, context), indent=2))
        return
    from rich.console import Console

    show(Console(highlight=False), spec, context)


def report(spec: ModelSpec, context: int) -> dict[str, Any]:
    """The same facts as plain data; sizes in bytes."""
    from edgeq.estimate.kv import kv_bytes_per_token, kv_cache_bytes, state_bytes
    from edgeq.jsonable import to_json
    from edgeq.model.tensors import active_parameters, by_role, parameters

    return {
        "model": to_json(spec),
        "parameters": {
            "total": parameters(spec),
            "active": active_parameters(spec),
            "by_role": by_role(spec),
        },
        "kv_cache": {
            "dtype": "f16",
            "bytes_per_token": kv_bytes_per_token(spec),
            "state_bytes": state_bytes(spec),
            "context": context,
            "bytes": kv_cache_bytes(spec, context),
        },
    }


def show(console: Console, spec: ModelSpec, context: int) -> None:
    """The report for a person."""
    from rich.markup import escape
    from rich.padding import Padding
    from rich.text import Text

    from edgeq.model.describe import facts

    title = Text.assemble((spec.name, "bold"), (f"  {_origin(spec)}", "dim"))
    blocks: list[RenderableType] = [title, _facts(facts(spec)), _parameters(spec), _facts(_sizes(spec, context))]
    for block in blocks:
        console.print(Padding(block, (0, 0, 1, 0), expand=False))
    for reason in spec.estimated:
        console.print(f"[yellow]estimated:[/] {escape(reason)}", soft_wrap=True)
    if spec.source:
        console.print(f"[dim]Source: {escape(spec.source)}[/]", soft_wrap=True)


def _origin(spec: ModelSpec) -> str:
    place = f" {spec.location}" if spec.location and spec.location != spec.name else ""
    return f"{_ORIGINS[spec.origin]}{place}"


def _facts(rows: list[tuple[str, str]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True, min_width=12)
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(label, escape(text))
    return table


def _parameters(spec: ModelSpec) -> Table:
    """Tensors of one role together: how many, the first one's shape, their parameters and share."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from edgeq.model.tensors import active_parameters, by_role, parameters, tensors

    total, active = parameters(spec), active_parameters(spec)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_footer=True, header_style="cyan", footer_style="bold")
    table.add_column("Role", footer="Total")
    table.add_column("Tensors", justify="right")
    table.add_column("Shape")
    table.add_column("Parameters", justify="right", footer=f"{total:,}")
    table.add_column("Share", justify="right")
    for role, count in by_role(spec).items():
        members = [t for t in tensors(spec) if t.role == role]
        shapes = {t.shape for t in members}
        shape = " × ".join(f"{n:,}" for n in members[0].shape) if len(shapes) == 1 else "[dim]various[/]"
        table.add_row(role, str(len(members)), shape, f"{count:,}", _share(count, total))
    if active != total:
        table.columns[0].footer = "Total\nUsed for one token"
        table.columns[3].footer = f"{total:,}\n{active:,}"
        table.columns[4].footer = f"\n{_share(active, total)}"
    return table


def _share(count: int, total: int) -> str:
    share = 100 * count / total
    return f"{share:.1f} %" if share >= 0.05 else "< 0.1 %"


def _sizes(spec: ModelSpec, context: int) -> list[tuple[str, str]]:
    from edgeq.estimate.kv import kv_bytes_per_token, kv_cache_bytes, state_bytes
    from edgeq.model.tensors import parameters

    total = parameters(spec)
    bits = ", ".join(f"{total * b / 8 / GB:,.2f} GB at {b} bits" for b in (16, 8, 4))
    rows = [("Weights", f"{bits} (before scales)")]
    per_token = kv_bytes_per_token(spec)
    if per_token:
        rows.append(("KV cache", f"{per_token:,} bytes a token at f16"))
    if state_bytes(spec):
        rows.append(("State", f"{_amount(state_bytes(spec))} a sequence, whatever its length"))
    lengths = sorted({context, spec.max_positions})
    for i, length in enumerate(lengths):
        note = " (the longest it takes)" if length == spec.max_positions else ""
        size = _amount(kv_cache_bytes(spec, length))
        rows.append(("Cache at" if i == 0 else "", f"{length:,} tokens: {size}{note}"))
    if context > spec.max_positions:
        rows.append(("", f"{context:,} tokens are more than the model was made for"))
    return rows


def _amount(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / (1 << 20):.1f} MiB"
