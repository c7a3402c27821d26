"""Prefill speed side by side: edgeq's sessions on every runtime and on 8-bit activations, and each runtime's own.

    python benchmarks/prefill.py --model FOLDER [--only NAME,...] [--prompts 32 128 512] [--json]

The engines and their models are those of `decode.py`. Every engine runs in a process of its own, with the same prompts
and threads, and they take turns in an order drawn anew, so that a busy machine is busy for all. A prompt's time ends
with the first token; no prompt begins as one before it did.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from engines import OURS, Made, Row, add_options, parsed, prompt_of, rows_of, versions  # noqa: E402

PEER = "onnxruntime-genai"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add_options(parser)
    parser.add_argument("--calibration", help="of the W8A8 ones made here, as `edgeq quantize` takes it")
    parser.add_argument("--calibration-tokens", type=int, default=12288)
    parser.add_argument("--prompts", type=int, nargs="+", default=[32, 128, 512], help="tokens of each prompt")
    options = parsed(parser)
    with tempfile.TemporaryDirectory(prefix="edgeq-prefill-") as scratch:
        place = options.keep or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        rows = list(rows_of(options, place, OURS | _eight_bits(options)))
        try:
            measure(rows, options)
        finally:
            for row in rows:
                row.stop()
    result = report(rows, options)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


def _eight_bits(options: argparse.Namespace) -> dict[str, Made]:
    """Rows of 8-bit weights, the last three with 8-bit inputs."""
    text = ("--calibration", options.calibration) if options.calibration else ()
    w8a8 = ("--method", "smoothquant", "--bits", "8", "--group-size", "-1", "--symmetric")
    w8a8 = (*w8a8, *text, "--calibration-tokens", str(options.calibration_tokens), "--activations")
    return {
        "edgeq onnx int8": (("--bits", "8"), (), PEER),
        "edgeq onnx W8A8 dynamic": ((*w8a8, "dynamic"), (), PEER),
        "edgeq onnx W8A8 dynamic, a scale a tensor": ((*w8a8, "dynamic"), ("--activation-scales", "tensor"), PEER),
        "edgeq onnx W8A8 static": ((*w8a8, "static"), (), PEER),
    }


def measure(rows: list[Row], options: argparse.Namespace) -> None:
    """Fresh processes several times; in each a warm-up, then rounds of all prompts in all engines."""
    order, context = random.Random(0), max(options.prompts) + 2
    for _ in range(options.restarts):
        for row in rows:
            row.start(options.threads, context)
        for turn in range(options.rounds + 1):
            tasks = [(row, n) for row in rows for n in options.prompts]
            for row, count in order.sample(tasks, len(tasks)):
                if row.path and not row.missing:
                    answer = row.ask(prompt_of(count, turn), 1)
                    if turn and not row.missing:
                        row.prefill.setdefault(count, []).append(count / answer["prefill_s"])
        for row in rows:
            row.stop()


def report(rows: list[Row], options: argparse.Namespace) -> dict[str, Any]:
    """Median tokens/s of each engine and prompt, its spread, and its ratio to its peer's."""
    from edgeq.device.cpu import probe_cpu

    cpu, peers = probe_cpu(), {r.name: r for r in rows}
    return {
        "model": options.shape or options.model.name,
        "machine": f"{cpu.name}, {cpu.cores} cores, {platform.system()}, {options.threads} threads",
        "versions": versions(),
        "workload": {"prompts": options.prompts, "rounds": options.rounds, "restarts": options.restarts},
        "rows": [_figures(row, peers.get(row.peer), options.prompts) for row in rows],
    }


def _figures(row: Row, peer: Row | None, prompts: list[int]) -> dict[str, Any]:
    if not all(n in row.prefill for n in prompts):
        return {"engine": row.name, "missing": row.missing or "nothing was measured"}
    found = {}
    for n in prompts:
        mine, other = row.prefill[n], peer.prefill.get(n, []) if peer else []
        middle = statistics.median(mine)
        found[str(n)] = {
            "tps": middle,
            "spread": (max(mine) - min(mine)) / 2 / middle,
            "to_peer": statistics.median(a / b for a, b in zip(mine, other, strict=False)) if other else None,
        }
    return {"engine": row.name, "peer": row.peer, "bytes": row.bytes_read, "prefill": found}


def show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console, work = Console(), result["workload"]
    console.print(result["machine"])
    console.print(", ".join(f"{n} {v or 'not installed'}" for n, v in result["versions"].items()))
    console.print(f"{result['model']}: prefill tok/s, {work['restarts']} x {work['rounds']} rounds (x: to its peer)")
    table = Table(box=None, padding=(0, 1))
    table.add_column("engine", no_wrap=True)
    for n in work["prompts"]:
        table.add_column(f"{n} tokens", justify="right", no_wrap=True)
    table.add_column("MB", justify="right")
    for row in result["rows"]:
        if "missing" in row:
            console.print(f"{row['engine']}: {row['missing']}")
            continue
        cells = [row["prefill"][str(n)] for n in work["prompts"]]
        table.add_row(row["engine"], *map(_words, cells), f"{row['bytes'] / 1e6:.1f}")
    console.print(table)


def _words(cell: dict[str, Any]) -> str:
    ratio = f" {cell['to_peer']:.2f}x" if cell["to_peer"] else ""
    return f"{cell['tps']:.0f} ±{cell['spread']:.0%}{ratio}"


if __name__ == "__main__":
    main()
