"""Quality at a size, side by side: edgeq's methods, llama.cpp's types, AutoRound, llm-compressor, onnxruntime-genai.

    python benchmarks/quality.py --model FOLDER --text FILE --calib FILE --work FOLDER [--llamacpp DIR]
        [--autoround PYTHON] [--llmcompressor PYTHON] [--only PATTERN] [--fresh] [--json]

Mean and 99th percentile of the KL divergence from the float model, top-1 agreement and perplexity on the second half
of every chunk of the text, all in the same arithmetic (edgeq's decoder in float32); "own" is the KLD by the peer's
own program. Calibration is by another text. Peers live in environments of their own, whose interpreters are given; a
row that can't be made says why. Results are kept in --work by all that they depend on; --fresh measures anew.

Bits are over all weights, of the tensors' bytes: a GGUF file also carries its vocabulary, which the others have
in a file of its own. Seconds are of whole processes, calibration included; those of the processors, which other work on
the machine hardly changes, are what methods are compared by, and what is given for a million linear weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import re
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from quality_bars import ratio_at_size, verdicts  # noqa: E402
from quality_peers import MAKERS  # noqa: E402
from quality_rows import EFFORTS, Row, rows  # noqa: E402
from quality_run import Bench  # noqa: E402

TOOLS = ("llamacpp", "autoround", "llmcompressor")


def main() -> None:
    options = _options()
    bench = Bench(
        model=options.model,
        text=options.text,
        calib=options.calib,
        work=options.work,
        tools={name: Path(getattr(options, name)) for name in TOOLS if getattr(options, name)},
        chunks=options.chunks,
        length=options.length,
        samples=options.nsamples,
        seqlen=options.seqlen,
        tuning_samples=options.autoround_nsamples,
        tuning_seqlen=options.autoround_seqlen,
        iters=options.autoround_iters,
        threads=options.threads,
        seed=options.seed,
        keep=options.keep,
    )
    (bench.work / "results").mkdir(parents=True, exist_ok=True)
    wanted = [row for row in rows(bench) if row.matches(options.only)]
    if options.list:
        print("\n".join(row.label for row in wanted))
        return
    results = []
    for row in wanted:
        result = kept_or_measured(row, bench, fresh=options.fresh, cached=options.cached)
        if result is not None:
            results.append(result)
    report = {"model": bench.model.name, "machine": f"{platform.processor() or platform.machine()}", "rows": results}
    report["bars"] = [str(v) for v in verdicts(results)]
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        show(report, bench)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="llama folder: config.json, safetensors, tokenizer")
    parser.add_argument("--text", type=Path, required=True, help="text to measure on")
    parser.add_argument("--calib", type=Path, required=True, help="text to calibrate on; another one")
    parser.add_argument("--work", type=Path, required=True, help="folder for results and what is made on the way")
    parser.add_argument("--llamacpp", help="folder of llama-quantize, llama-imatrix and llama-perplexity")
    parser.add_argument("--autoround", help="python of an environment with auto-round")
    parser.add_argument("--llmcompressor", help="python of an environment with llmcompressor")
    parser.add_argument("--chunks", type=int, default=16)
    parser.add_argument("--length", type=int, default=512, help="tokens of a chunk")
    parser.add_argument("--autoround-iters", type=int, default=200, choices=sorted(EFFORTS))
    parser.add_argument("--autoround-nsamples", type=int, default=128, help="likewise for auto-round and edgeq's")
    parser.add_argument("--autoround-seqlen", type=int, default=512)
    parser.add_argument("--nsamples", type=int, default=128, help="calibration sequences of all methods but imatrix")
    parser.add_argument("--seqlen", type=int, default=512, help="tokens of a calibration sequence")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="PATTERN", help="rows, e.g. 'llama.cpp' or '*g32*'; a,b: both")
    parser.add_argument("--fresh", action="store_true", help="measure again what is kept")
    parser.add_argument("--cached", action="store_true", help="measure nothing, show what is kept")
    parser.add_argument("--keep", action="store_true", help="keep the quantized models")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def kept_or_measured(row: Row, bench: Bench, *, fresh: bool, cached: bool = False) -> dict[str, Any] | None:
    """The row's figures, or `missing` with the reason; a failure is not kept. None: not kept and not to be measured."""
    file = result_file(row, bench)
    named: dict[str, Any] = {"label": row.label, "who": row.who, "method": row.method, "runs_on": row.runs_on}
    named |= {"bars": list(row.bars), "options": row.options}
    if file.exists() and not fresh:
        kept: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return kept | named
    if cached:
        return None
    print(f"measuring {row.label} ...", file=sys.stderr, flush=True)
    try:
        figures = MAKERS[row.who](bench, row.options)
    except Exception as error:  # a row that can't be made says so, the others go on
        said = (str(error).splitlines() or [""])[0]
        return named | {"missing": f"{type(error).__name__}: {said}"}
    total, linear = bench.parameters()
    figures["bits"] = figures["weight_bytes"] * 8 / total
    figures["seconds_per_million"] = figures["cpu_seconds"] / (linear / 1e6)
    figures |= {"code": code_version() if row.who == "edgeq" else "", "when": time.strftime("%Y-%m-%d %H:%M")}
    file.write_text(json.dumps(figures | named, indent=1))
    return named | figures


def result_file(row: Row, bench: Bench) -> Path:
    """Where a row's figures are kept: named by the row, its options, the model, both texts and the sizes."""
    key = json.dumps([row.who, row.options, bench.identity], sort_keys=True)
    slug = re.sub(r"[^a-z0-9]+", "-", row.label.lower()).strip("-")
    return bench.work / "results" / f"{slug}-{hashlib.sha256(key.encode()).hexdigest()[:10]}.json"


def code_version() -> str:
    """Of edgeq's own sources, to tell figures of another day's code."""
    import edgeq

    folder = Path(edgeq.__file__).parent
    sources = sorted(folder.rglob("*.py"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in sources)).hexdigest()[:10]


def show(report: dict[str, Any], bench: Bench) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(
        f"{report['model']}: {bench.chunks} x {bench.length} tokens, second halves; calibration {bench.samples} x "
        f"{bench.seqlen}; {bench.threads} threads; {report['machine']}"
    )
    good = [r for r in report["rows"] if "mean_kl" in r]
    peers = [r for r in good if r["who"] == "llama.cpp"]
    table = Table(box=None, padding=(0, 1))
    left = {"who", "method", "runs on"}
    names = [
        "who",
        "method",
        "file MB",
        "MB",
        "bits",
        "KLD",
        "±",
        "p99",
        "top-1",
        "PPL",
        "own KLD",
        "s",
        "CPU s",
        "CPU s/M",
        "GB",
    ]
    for name in [*names, "to llama.cpp", "runs on"]:
        table.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    for row in good:
        table.add_row(*cells(row, peers))
    console.print(table)
    for row in report["rows"]:
        if "missing" in row:
            console.print(f"{row['label']}: {row['missing']}", markup=False)
    old = [r["method"] for r in good if r["who"] == "edgeq" and r["code"] != code_version()]
    if old:
        console.print(f"measured with earlier code of edgeq: {', '.join(old)}", markup=False)
    for line in report["bars"]:
        console.print(line, markup=False, highlight=False)


def cells(row: dict[str, Any], peers: list[dict[str, Any]]) -> list[str]:
    """A row of the table; sizes in 10**6 bytes."""
    beside = ratio_at_size(row, peers) if row["who"] != "llama.cpp" else None
    own = row.get("own")
    return [
        row["who"],
        row["method"],
        f"{row['file_bytes'] / 1e6:.1f}",
        f"{row['weight_bytes'] / 1e6:.1f}",
        f"{row['bits']:.2f}",
        f"{row['mean_kl']:.4f}",
        f"{row['error']:.4f}" if row["error"] is not None else "",
        f"{row['p99_kl']:.3f}",
        f"{row['top1']:.1%}",
        f"{row['perplexity']:.2f}" if row["perplexity"] is not None else "",
        f"{own['mean_kl']:.4f}" if own else "",
        f"{row['seconds']:.0f}",
        f"{row['cpu_seconds']:.0f}",
        f"{row['seconds_per_million']:.2f}",
        f"{row['peak_bytes'] / 1e9:.1f}",
        f"{beside[0]:.2f} of {beside[1]}" if beside else "",
        row["runs_on"],
    ]


if __name__ == "__main__":
    main()
