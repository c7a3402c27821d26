"""Decode speed side by side: edgeq's sessions on every runtime, and each runtime's own: onnxruntime-genai on its own
export, llama.cpp (xllamacpp's server) on a file that gguf-py quantized, openvino-genai.

    python benchmarks/decode.py --model FOLDER [--only NAME,...] [--tokens 128] [--prompt 32] [--shape 1b] [--json]

All engines get the same model, about four bits a weight, the same prompt and the same threads, each in a process of
its own; they take turns within one run, so that a busy machine is busy for all. What is missing says so in its row.
The share is bytes of the weights a token reads, times tokens/s, over the measured read bandwidth.
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

from engines import Row, add_options, parsed, prompt_of, rows_of, versions  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add_options(parser)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prompt", type=int, default=32, help="tokens of the prompt")
    options = parsed(parser)
    with tempfile.TemporaryDirectory(prefix="edgeq-bench-") as scratch:
        place = options.keep or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        rows = list(rows_of(options, place))
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


def measure(rows: list[Row], options: argparse.Namespace) -> None:
    """Fresh processes several times: where a process's memory happens to lie is worth 10 % either way. In each, a
    warm-up and then rounds, whose order is drawn anew: a row would else always meet what the one before left."""
    order, context = random.Random(0), options.prompt + options.tokens + 2
    for _ in range(options.restarts):
        for row in rows:
            row.start(options.threads, context)
        for turn in range(options.rounds + 1):
            for row in order.sample(rows, len(rows)):
                if row.path and not row.missing:
                    _time(row, options, turn)
        for row in rows:
            row.stop()


def _time(row: Row, options: argparse.Namespace, turn: int) -> None:
    """Turn 0 is the warm-up, on a prompt that does not take long."""
    count = options.prompt if turn else min(options.prompt, 128)
    answer = row.ask(prompt_of(count, turn), options.tokens if turn else 8)
    if turn and not row.missing:
        row.decode.append(answer["decoded"] / answer["decode_s"])
        row.prefill.setdefault(count, []).append(count / answer["prefill_s"])


def report(rows: list[Row], options: argparse.Namespace) -> dict[str, Any]:
    from edgeq.device.profile import profile_device

    device = profile_device()
    figure = device.memory.read_bandwidth
    bandwidth = figure.value if figure else None
    peers = {r.name: r for r in rows if r.decode}
    return {
        "model": options.shape or options.model.name,
        "machine": f"{device.cpu.name}, {device.cpu.cores} cores, {platform.system()}, {options.threads} threads",
        "read_bandwidth": bandwidth,
        "versions": versions(),
        "workload": {
            "prompt": options.prompt,
            "tokens": options.tokens,
            "rounds": options.rounds,
            "restarts": options.restarts,
        },
        "rows": [_figures(row, peers.get(row.peer), bandwidth) for row in rows],
    }


def _figures(row: Row, peer: Row | None, bandwidth: float | None) -> dict[str, Any]:
    if not row.decode:
        return {"engine": row.name, "missing": row.missing or "nothing was measured"}
    tps = statistics.median(row.decode)
    return {
        "engine": row.name,
        "decode_tps": tps,
        "best_tps": max(row.decode),
        "spread": (max(row.decode) - min(row.decode)) / 2 / tps,
        "prefill_tps": statistics.median(next(iter(row.prefill.values()))),
        "to_peer": _ratio(row, peer) if peer else None,
        "peer": row.peer,
        "bytes": row.bytes_read,
        "ceiling_share": tps * row.bytes_read / bandwidth if bandwidth else None,
    }


def _ratio(row: Row, base: Row) -> float:
    """Median over the rounds of tokens/s beside the base's in the same round."""
    return statistics.median(a / b for a, b in zip(row.decode, base.decode, strict=False))


def show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    bandwidth = result["read_bandwidth"]
    work = result["workload"]
    console = Console()
    known = f"; read bandwidth {bandwidth / 1e9:.1f} GB/s" if bandwidth else ""
    console.print(f"{result['machine']}{known}")
    console.print(", ".join(f"{n} {v or 'not installed'}" for n, v in result["versions"].items()))
    console.print(
        f"{result['model']}: {work['prompt']} + {work['tokens']} tokens, {work['restarts']} x {work['rounds']} rounds"
    )
    table = Table(box=None, padding=(0, 1))
    for name in ("engine", "tok/s", "spread", "best", "to its peer", "MB", "ceiling", "prefill"):
        table.add_column(name, justify="left" if name == "engine" else "right", no_wrap=True)
    for row in result["rows"]:
        if "missing" in row:
            continue
        ratio, share = row["to_peer"], row["ceiling_share"]
        table.add_row(
            row["engine"],
            f"{row['decode_tps']:.1f}",
            f"±{row['spread']:.0%}",
            f"{row['best_tps']:.1f}",
            f"{ratio:.2f}" if ratio else "",
            f"{row['bytes'] / 1e6:.1f}",
            f"{share:.0%}" if share else "",
            f"{row['prefill_tps']:.0f}",
        )
    console.print(table)
    for row in result["rows"]:
        if "missing" in row:
            console.print(f"{row['engine']}: {row['missing']}")
    best = [max(side, key=lambda r: float(r["decode_tps"])) for side in _sides(result["rows"]) if side]
    if len(best) == 2:
        ours, peer = best
        ratio = ours["decode_tps"] / peer["decode_tps"]
        console.print(f"best of edgeq ({ours['engine']}) to the best peer ({peer['engine']}): {ratio:.2f}")


def _sides(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """edgeq's measured rows, and the others'."""
    measured = [r for r in rows if "missing" not in r]
    ours = [r for r in measured if r["engine"].startswith("edgeq")]
    return ours, [r for r in measured if r not in ours]


if __name__ == "__main__":
    main()
