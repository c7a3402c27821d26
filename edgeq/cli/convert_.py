"""`edgeq convert`: a quantized model of another tool's becomes a checkpoint."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgeq.amounts import amount

if TYPE_CHECKING:
    from edgeq.checkpoint.store import Checkpoint


def command(
    source: str = typer.Argument(..., help="A quantized model: folder, .gguf file or hub id."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder of the checkpoint to make."),
    force: bool = typer.Option(False, "--force", help="Replace OUT if it exists, once the new one is whole."),
    as_json: bool = typer.Option(False, "--json", help="Print what was made as JSON."),
) -> None:
    """Read a quantized model of another tool's into a checkpoint, without loss: every code and scale as it is.

    Reads GPTQ (gptq, gptq_v2), AWQ (gemm), AutoRound, compressed-tensors (pack-quantized, int-quantized,
    naive-quantized integers) and GGUF (Q4_0 to Q8_0, K-quants, IQ4_NL, IQ4_XS, F16, BF16, F32). `edgeq export`,
    `eval` and `report` take what it makes.
    """
    from edgeq.cli.progress import steps
    from edgeq.conversion import convert

    with steps("converting", quiet=as_json) as progress:
        made = convert(source, out, progress=progress, force=force)
    grids = _grids(made)
    if as_json:
        import json

        told = {"out": str(made.path), "scheme": made.scheme.name, "bytes": made.total_bytes, "grids": grids}
        print(json.dumps(told, indent=2))
        return
    from rich.console import Console

    console = Console()
    size = amount(made.total_bytes)
    lines = [f"{made.path}  {made.scheme.name}, {size}", *(f"  {count:4} matrices  {g}" for g, count in grids.items())]
    for line in (*lines, f"Next: edgeq export {made.path}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _grids(made: Checkpoint) -> dict[str, int]:
    """Words for a grid -> how many matrices are on it."""
    from edgeq.conversion import grid_name

    stored = made.manifest.tensors.values()
    return dict(Counter(grid_name(s.grid) for s in stored if len(s.shape) > 1).most_common())
