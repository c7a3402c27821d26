"""`edgeq plan`: what fits this device, how fast it can go, and the next command."""

from __future__ import annotations

import typer


def command(
    model: str = typer.Option(..., "--model", "-m", help="A folder, .gguf file, hub id, name (llama-3.1-8b) or size."),
    device: str = typer.Option("auto", "--device", "-d", help="auto, a NAME of the catalog, or a profile FILE.json."),
    context: int | None = typer.Option(None, help="Tokens of prompt and answer together. [default: 8192]"),
    batch: int = typer.Option(1, help="Sequences at the same time."),
    min_tps: float | None = typer.Option(None, help="Tokens/s of a sequence that are enough."),
    max_memory: str | None = typer.Option(None, help="Memory the model may take, e.g. 6GB."),
    kv_dtype: str | None = typer.Option(
        None, help="Type of the KV cache: f16, int8, q8_0, ... [default: the runtime's]"
    ),
    objective: str = typer.Option("balanced", help="quality, speed, size or balanced."),
    target: list[str] = typer.Option([], "--target", "-t", help="Only this target, e.g. llamacpp/cuda; repeatable."),
    show_all: bool = typer.Option(False, "--all", help="Show every candidate."),
    as_json: bool = typer.Option(False, "--json", help="Print the whole plan as JSON."),
) -> None:
    """What fits this device, how fast it can go, and the next command."""
    from dataclasses import replace

    from edgeq.cli.plan_report import print_plan
    from edgeq.device import load_device
    from edgeq.model.read import read_model
    from edgeq.plan import Request, make_plan, parse_size

    limit = parse_size(max_memory) if max_memory is not None else None
    asked = Request(
        8192 if context is None else context, batch, min_tps, limit, kv_dtype, objective.lower(), tuple(target)
    )
    spec = read_model(model)
    if context is None:
        asked = replace(asked, context=min(asked.context, spec.max_positions))
    plan = make_plan(load_device(device), spec, asked)
    if as_json:
        import json

        from edgeq.jsonable import to_json

        print(json.dumps(to_json(plan), indent=2, allow_nan=False))
        return
    print_plan(plan, show_all=show_all)
