"""`edgeq export`: turn a checkpoint into a runtime's artifact, and verify it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgeq.amounts import amount
from edgeq.errors import EdgeqError
from edgeq.export_command import default_out, flag

if TYPE_CHECKING:
    from rich.console import Console

    from edgeq.artifact import Artifact
    from edgeq.checkpoint.weights import Weights
    from edgeq.measure.proof import Proof
    from edgeq.registry import Exporter

# Sections of the help: what an exporter has alone, and what several have.
PROOF = "Proof"
SEVERAL = "Numbers, of several exporters"
ONNX, OPENVINO, GGUF = (f"--to {name}" for name in ("onnx", "openvino", "gguf"))


def command(
    checkpoint: str = typer.Argument(
        ..., help="A folder that `edgeq quantize` made, or a model to export unquantized."
    ),
    to: str = typer.Option("onnx", "--to", help="onnx, openvino, gguf, compressed-tensors, gptq or awq."),
    out: Path | None = typer.Option(None, "--out", "-o", help="Folder to make [default: CHECKPOINT's name and -onnx]."),
    force: bool = typer.Option(False, "--force", help="Replace OUT if it exists, once the new one is whole."),
    context: int | None = typer.Option(
        None, "--context", help="Longest sequence to prepare for [default: the model's]."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the artifact's manifest as JSON."),
    check: bool = typer.Option(
        True,
        "--verify/--no-verify",
        help="Compare with the checkpoint, above all the logits.",
        rich_help_panel=PROOF,
    ),
    read_back: bool | None = typer.Option(
        None,
        "--read-back/--no-read-back",
        help="Compare every number of the written file too [default: for files that others' tools load].",
        rich_help_panel=PROOF,
    ),
    dtype: str | None = typer.Option(
        None,
        "--dtype",
        help="onnx: float32 [default] or float16, for devices that compute in it. gguf: of an unquantized model: auto "
        "keeps the source's 16 bits [default], or f32.",
        rich_help_panel=SEVERAL,
    ),
    kv_dtype: str | None = typer.Option(
        None,
        "--kv-dtype",
        help="How keys and values are kept. onnx: as --dtype [default], int8, int4, f16 (slow on processors). "
        "openvino: u8 [default on a CPU], u4, bf16, f16, f32.",
        rich_help_panel=SEVERAL,
    ),
    dialect: str | None = typer.Option(
        None,
        "--dialect",
        help="contrib, onnxruntime's fused operators [default], or standard, ONNX's own alone.",
        rich_help_panel=ONNX,
    ),
    kv_buffer: str | None = typer.Option(
        None,
        "--kv-buffer",
        help="Of standard operators: growing, whose cache is copied at each token and which most runtimes run "
        "[default], or shared, written in place (opset 24), faster from some hundred tokens on.",
        rich_help_panel=ONNX,
    ),
    file_format: str | None = typer.Option(
        None,
        "--format",
        help="onnx [default], or ort: one file below 2 GiB, which onnxruntime's minimal builds load.",
        rich_help_panel=ONNX,
    ),
    pack: str | None = typer.Option(
        None,
        "--pack",
        help="fast, on integer kernels where one holds the same numbers [default], or small.",
        rich_help_panel=ONNX,
    ),
    accuracy_level: int | None = typer.Option(
        None,
        "--accuracy-level",
        help="4 multiplies in int8 [default], 0 in float32 (slow).",
        rich_help_panel=ONNX,
    ),
    activation_scales: str | None = typer.Option(
        None,
        "--activation-scales",
        help="Of 8-bit dynamic activations: one a `token` [default] or, faster and coarser, a `tensor`.",
        rich_help_panel=ONNX,
    ),
    kv_text: Path | None = typer.Option(
        None,
        "--kv-text",
        help="Text that an integer cache's ranges are taken from [default: edgeq's passages].",
        rich_help_panel=ONNX,
    ),
    device: str | None = typer.Option(
        None,
        "--device",
        help="cpu [default], gpu or npu, whose limits are checked before anything is written.",
        rich_help_panel=OPENVINO,
    ),
    dynamic_quantization: int | None = typer.Option(
        None,
        "--dynamic-quantization",
        help="Channels that share a scale where inputs are rounded to 8 bits [default: 32]; 0: not rounded.",
        rich_help_panel=OPENVINO,
    ),
    ternary_type: str | None = typer.Option(
        None,
        "--ternary-type",
        help="tq2_0 [default, fast] or tq1_0 (smaller) for ternary weights.",
        rich_help_panel=GGUF,
    ),
) -> None:
    """Turn a checkpoint into a runtime's artifact, and verify it. Exit code 1 when the verification fails."""
    from rich.console import Console

    from edgeq.checkpoint.open import open_weights
    from edgeq.cli.progress import steps
    from edgeq.registry import exporter

    chosen = exporter(to)
    weights = open_weights(checkpoint)
    target = out or default_out(checkpoint, to)
    given: dict[str, Any] = {
        "accuracy_level": accuracy_level,
        "activation_scales": activation_scales,
        "context": context,
        "dialect": dialect,
        "format": file_format,
        "pack": pack,
        "dtype": dtype,
        "ternary_type": ternary_type,
        "device": device,
        "kv_buffer": kv_buffer,
        "kv_dtype": kv_dtype,
        "kv_text": kv_text,
        "dynamic_quantization": dynamic_quantization,
    }
    options = _known(chosen, {name: value for name, value in given.items() if value is not None})
    with steps("exporting", quiet=as_json) as progress:
        artifact = chosen.export(weights, target, progress=progress, force=force, **options)
    passed = True
    if check:
        proof = _prove(chosen, artifact, weights, read_back, quiet=as_json)
        artifact, passed = proof.artifact, proof.passed
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
        own = ", ".join(flag(n) for n in sorted(chosen.options))
        others = _exporters_with(name)
        having = f"; {', '.join(others)} {'has' if len(others) == 1 else 'have'} that one" if others else ""
        raise EdgeqError(f"the {chosen.name} exporter has no {flag(name)}", hint=f"It has {own}{having}")
    return options


def _exporters_with(option: str) -> list[str]:
    """Those of the installed exporters that know an option; one whose packages are missing is left out."""
    from edgeq.registry import exporter, names

    found = []
    for name in names("edgeq.exporters"):
        with suppress(EdgeqError):
            if option in exporter(name).options:
                found.append(name)
    return found


def _prove(chosen: Exporter, artifact: Artifact, weights: Weights, read_back: bool | None, *, quiet: bool) -> Proof:
    """The proof, told as it went."""
    from rich.console import Console

    from edgeq.cli.progress import steps
    from edgeq.cli.verify_ import render
    from edgeq.measure.proof import prove

    with steps("proving", quiet=quiet) as progress:
        proof = prove(chosen, artifact, weights, read_back=read_back, progress=progress)
    if quiet:
        return proof
    said = Console()
    if proof.tensors:
        found = "; ".join(proof.wrong[:3]) if proof.wrong else "identical"
        said.print(f"read back: {proof.tensors} tensors, {found}", markup=False, highlight=False, soft_wrap=True)
    if proof.verification is not None:
        render(proof.artifact, proof.verification, said)
    elif proof.unchecked:
        what = "its logits are not compared" if proof.tensors else "not verified"
        said.print(f"{what}: {proof.unchecked}", markup=False, highlight=False, soft_wrap=True)
    return proof


def _tell(artifact: Artifact, console: Console, passed: bool) -> None:
    from edgeq.measure.proof import runs

    size = f"{amount(artifact.total_bytes)} in {len(artifact.files)} files"
    console.print(f"{artifact.path}  {size}", markup=False, highlight=False, soft_wrap=True)
    for note in artifact.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    if not passed:
        console.print("[red]Do not use this artifact: its runtime computes something else.[/]", highlight=False)
    elif runs(artifact):
        console.print(f"Next: edgeq run {artifact.path}", markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(f"Next: open it with {artifact.runtime}", markup=False, highlight=False, soft_wrap=True)
