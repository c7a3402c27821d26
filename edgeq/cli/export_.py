"""`edgeq export`: turn a checkpoint into a runtime's artifact, and verify it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    from rich.console import Console

    from edgeq.artifact import Artifact
    from edgeq.checkpoint.weights import Weights
    from edgeq.registry import Exporter


def command(
    checkpoint: str = typer.Argument(
        ..., help="A folder that `edgeq quantize` made, or a model to export unquantized."
    ),
    to: str = typer.Option("onnx", "--to", help="The exporter."),
    out: Path | None = typer.Option(None, "--out", "-o", help="Folder to make [default: CHECKPOINT's name and -onnx]."),
    force: bool = typer.Option(False, "--force", help="Replace OUT if it exists, once the new one is whole."),
    accuracy_level: int | None = typer.Option(
        None, "--accuracy-level", help="onnx: 4 multiplies in int8 [default], 0 in float32 (slow)."
    ),
    activation_scales: str | None = typer.Option(
        None,
        "--activation-scales",
        help="onnx, 8-bit dynamic activations: one scale a `token` [default] or, faster and coarser, a `tensor`.",
    ),
    context: int | None = typer.Option(
        None, "--context", help="Longest sequence to prepare for [default: the model's]."
    ),
    kv_dtype: str | None = typer.Option(
        None, "--kv-dtype", help="How the runtime keeps keys and values. onnx: f32 [default], int8, int4, f16 (slow)."
    ),
    kv_text: Path | None = typer.Option(
        None, "--kv-text", help="onnx: text that an integer cache's ranges are taken from [default: edgeq's passages]."
    ),
    check: bool = typer.Option(
        True,
        "--verify/--no-verify",
        help="Compare the logits with the checkpoint's; without a runtime for them, the file's tensors.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the artifact's manifest as JSON."),
) -> None:
    """Turn a checkpoint into a runtime's artifact, and verify it. Exit code 1 when the verification fails."""
    from rich.console import Console

    from edgeq.checkpoint.open import open_weights
    from edgeq.cli.progress import steps
    from edgeq.registry import exporter

    chosen = exporter(to)
    weights = open_weights(checkpoint)
    target = out or _default_out(checkpoint, to)
    given: dict[str, Any] = {
        "accuracy_level": accuracy_level,
        "activation_scales": activation_scales,
        "context": context,
        "kv_dtype": kv_dtype,
        "kv_text": kv_text,
    }
    options = _known(chosen, {name: value for name, value in given.items() if value is not None})
    with steps("exporting", quiet=as_json) as progress:
        artifact = chosen.export(weights, target, progress=progress, force=force, **options)
    passed = True
    if check and _runs(artifact):
        artifact, passed = _verify(artifact, weights, quiet=as_json)
    elif check:
        artifact, passed = _read_back(chosen, artifact, weights, quiet=as_json)
    if as_json:
        import json

        print(json.dumps(artifact.to_json(), indent=2))
    else:
        _tell(artifact, Console(), passed)
    if not passed:
        raise typer.Exit(1)


def _known(chosen: Exporter, options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given.

    Raises:
        EdgeqError: one that this exporter does not have.
    """
    for name in options.keys() - chosen.options:
        own = ", ".join(_flag(n) for n in sorted(chosen.options))
        raise EdgeqError(f"the {chosen.name} exporter has no {_flag(name)}", hint=f"It has {own}")
    return options


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _default_out(checkpoint: str, to: str) -> Path:
    path = Path(checkpoint).expanduser()
    if path.exists():
        path = path.resolve()
        return path.with_name(f"{path.name if path.is_dir() else path.stem}-{to}")
    return Path(f"{path.name}-{to}")


def _runs(artifact: Artifact) -> bool:
    """edgeq has a runtime for it."""
    from edgeq.registry import names

    return artifact.runtime in names("edgeq.runtimes")


def _read_back(chosen: Exporter, artifact: Artifact, weights: Weights, *, quiet: bool) -> tuple[Artifact, bool]:
    """What an artifact that edgeq can't run is verified by: the exporter's `read_back`, where it has one."""
    from rich.console import Console

    from edgeq.artifact import MANIFEST
    from edgeq.cli.progress import steps
    from edgeq.files import write_json

    check = getattr(chosen, "read_back", None)
    if check is None:
        if not quiet:
            Console().print(f"not verified: edgeq has no runtime {artifact.runtime}", markup=False, highlight=False)
        return artifact, True
    with steps("reading back", quiet=quiet) as progress:
        wrong: list[str] = check(artifact, weights, progress=progress)
    count = len(weights.names())
    verdict = {"verdict": "fail" if wrong else "pass", "reasons": wrong, "read_back": count}
    kept = replace(artifact, verify=verdict)
    write_json(artifact.path / MANIFEST, kept.to_json())
    if not quiet:
        said = "; ".join(wrong[:3]) if wrong else "identical"
        Console().print(f"read back: {count} tensors, {said}", markup=False, highlight=False, soft_wrap=True)
    return kept, not wrong


def _verify(artifact: Artifact, weights: Weights, *, quiet: bool) -> tuple[Artifact, bool]:
    """The artifact with the verification in its manifest, and whether it passed."""
    from rich.console import Console

    from edgeq.cli.progress import steps
    from edgeq.cli.verify_ import render
    from edgeq.measure.verify import record, verify

    with steps("verifying", quiet=quiet) as progress:
        found = verify(artifact, checkpoint=weights, progress=progress)
    if not quiet:
        render(artifact, found, Console())
    return record(artifact, found), found.verdict == "pass"


def _tell(artifact: Artifact, console: Console, passed: bool) -> None:
    size = f"{artifact.total_bytes / 1e6:,.1f} MB in {len(artifact.files)} files"
    console.print(f"{artifact.path}  {size}", markup=False, highlight=False, soft_wrap=True)
    if not passed:
        console.print("[red]Do not use this artifact: its runtime computes something else.[/]", highlight=False)
    elif _runs(artifact):
        console.print(f"Next: edgeq run {artifact.path}", markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(f"Next: open it with {artifact.runtime}", markup=False, highlight=False, soft_wrap=True)
