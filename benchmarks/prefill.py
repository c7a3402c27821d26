"""Prefill speed side by side: edgeq's artifacts of one model (int4, W8A8 dynamic and static), onnxruntime-genai's own.

    python benchmarks/prefill.py --model FOLDER [--artifact NAME=FOLDER ...] [--prompts 32 128 512] [--json]

Every engine runs in a process of its own, with the same prompts and threads, and they take turns in an order drawn
anew, so that a busy machine is busy for all. A prompt's time ends with the first token.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from decode import Row, build_genai, prompt_of, row_for, run, version_of  # noqa: E402

PACKAGES = ("edgeq", "onnxruntime", "onnxruntime-genai")
W8A8 = ("--method", "smoothquant", "--bits", "8", "--group-size", "-1", "--symmetric", "--activations")
# What is made here: name -> options of `edgeq quantize`, options of `edgeq export`.
MADE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "int4": (("--bits", "4", "--group-size", "32"), ()),
    "int8": (("--bits", "8", "--group-size", "32"), ()),
    "w8a8 dynamic": ((*W8A8, "dynamic"), ()),
    "w8a8 dynamic, a scale a tensor": ((*W8A8, "dynamic"), ("--activation-scales", "tensor")),
    "w8a8 static": ((*W8A8, "static"), ()),
}


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="edgeq-prefill-") as scratch:
        place = options.keep or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        rows = list(_rows(options, place))
        seconds: dict[tuple[str, int], list[float]] = {}
        try:
            measure(rows, options, seconds)
        finally:
            for row in rows:
                row.stop()
    result = report(rows, options, seconds)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="llama folder (config.json, safetensors, tokenizer)")
    parser.add_argument("--artifact", action="append", help="NAME=FOLDER of edgeq's; made here when none is given")
    parser.add_argument("--genai", type=Path, help="onnxruntime-genai's own export; made here when not given")
    parser.add_argument("--calibration", help="of the W8A8 ones made here, as `edgeq quantize` takes it")
    parser.add_argument("--calibration-tokens", type=int, default=12288)
    parser.add_argument("--prompts", type=int, nargs="+", default=[32, 128, 512], help="tokens of each prompt")
    parser.add_argument("--restarts", type=int, default=3, help="times all engines are started afresh")
    parser.add_argument("--rounds", type=int, default=3, help="of measuring, each time")
    parser.add_argument("--threads", type=int, default=0, help="default: physical cores")
    parser.add_argument("--keep", type=Path, help="folder for what is made here, to use it again")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.threads:
        from edgeq.device.cpu import probe_cpu

        options.threads = probe_cpu().cores
    return options


def _rows(options: argparse.Namespace, place: Path) -> Iterator[Row]:
    """Every engine with its model, made here where it was not given."""
    for given in options.artifact or ():
        name, _, folder = given.rpartition("=")
        yield Row(name or Path(folder).name, "edgeq", Path(folder))
    for name in () if options.artifact else MADE:
        out = place / f"{options.model.name}-{name.replace(', ', '-').replace(' ', '-')}"
        yield row_for(name, "edgeq", None, out, partial(_export, options, name))
    made = place / f"{options.model.name}-genai"
    yield row_for("onnxruntime-genai int4", "genai", options.genai, made, partial(build_genai, options.model))


def _export(options: argparse.Namespace, name: str, out: Path) -> None:
    quantize, export = MADE[name]
    if "smoothquant" in quantize:
        text = ("--calibration", options.calibration) if options.calibration else ()
        quantize = (*quantize, *text, "--calibration-tokens", str(options.calibration_tokens))
    checkpoint = out.with_name(f"{out.name}-checkpoint")
    run("-m", "edgeq", "quantize", str(options.model), "-o", str(checkpoint), "--force", *quantize)
    run("-m", "edgeq", "export", str(checkpoint), "-o", str(out), "--no-verify", *export)


def measure(rows: list[Row], options: argparse.Namespace, seconds: dict[tuple[str, int], list[float]]) -> None:
    """Fresh processes several times; in each a warm-up, then rounds of all prompts in all engines."""
    order = random.Random(0)
    for _ in range(options.restarts):
        for row in rows:
            row.start(options.threads)
        for turn in range(options.rounds + 1):
            tasks = [(row, n) for row in rows for n in options.prompts]
            for row, count in order.sample(tasks, len(tasks)):
                if row.path and not row.missing:
                    answer = row.ask(prompt_of(count), 1)
                    row.missing = str(answer.get("missing", ""))
                    if turn and not row.missing:
                        seconds.setdefault((row.name, count), []).append(answer["prefill_s"])
        for row in rows:
            row.stop()


def report(rows: list[Row], options: argparse.Namespace, seconds: dict[tuple[str, int], list[float]]) -> dict[str, Any]:
    """Median tokens/s of each engine and prompt, its spread, and its ratio to the first engine's."""
    from edgeq.device.cpu import probe_cpu

    cpu = probe_cpu()
    return {
        "model": options.model.name,
        "machine": f"{cpu.name}, {cpu.cores} cores, {platform.system()}, {options.threads} threads",
        "versions": {name: version_of(name) for name in PACKAGES},
        "workload": {"prompts": options.prompts, "rounds": options.rounds, "restarts": options.restarts},
        "rows": [_figures(row, rows[0], options.prompts, seconds) for row in rows],
    }


def _figures(row: Row, base: Row, prompts: list[int], seconds: dict[tuple[str, int], list[float]]) -> dict[str, Any]:
    if not all((row.name, n) in seconds for n in prompts):
        return {"engine": row.name, "missing": row.missing or "nothing was measured"}
    found = {}
    for n in prompts:
        mine, other = seconds[row.name, n], seconds.get((base.name, n), [])
        tps = [n / s for s in mine]
        found[str(n)] = {
            "tps": statistics.median(tps),
            "spread": (max(tps) - min(tps)) / 2 / statistics.median(tps),
            "ratio": statistics.median(b / a for a, b in zip(mine, other, strict=False)) if other else None,
        }
    return {"engine": row.name, "bytes": row.bytes_read, "prefill": found}


def show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console, work = Console(), result["workload"]
    console.print(result["machine"])
    console.print(", ".join(f"{n} {v or 'not installed'}" for n, v in result["versions"].items()))
    console.print(f"{result['model']}: prefill tok/s, {work['restarts']} x {work['rounds']} rounds (x: to the first)")
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
        words = [f"{c['tps']:.0f} ±{c['spread']:.0%}" + (f" {c['ratio']:.2f}x" if c["ratio"] else "") for c in cells]
        table.add_row(row["engine"], *words, f"{row['bytes'] / 1e6:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
