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
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from shapes import SHAPES, random_llama, write_gguf  # noqa: E402

# edgeq's rows: options of `edgeq quantize` and of `edgeq export`, and the row of the same runtime to compare with.
OURS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "edgeq onnx": ((), (), "onnxruntime-genai"),
    "edgeq onnx, no zero points": (("--symmetric",), (), "onnxruntime-genai"),  # as genai's builder stores it
    "edgeq onnx, standard operators": ((), ("--dialect", "standard"), "onnxruntime-genai"),
    "edgeq openvino": ((), ("--to", "openvino"), "openvino-genai"),
    "edgeq llama.cpp Q4_0": (("--grid", "q4_0"), ("--to", "gguf"), "llama.cpp Q4_0"),
}
STORED = ("*.data", "*model*.bin", "*.gguf")  # where weights are
PACKAGES = ("edgeq", "onnxruntime", "onnxruntime-genai", "xllamacpp", "openvino", "openvino-genai")


@dataclass(slots=True)
class Row:
    """One engine with its model and what it did. `peer`: the row that it is compared with."""

    name: str
    kind: str
    path: Path | None = None
    peer: str = ""
    missing: str = ""
    worker: subprocess.Popen[str] | None = None
    decode: list[float] = field(default_factory=list)
    prefill: list[float] = field(default_factory=list)

    def start(self, threads: int) -> None:
        if self.path is None:
            return
        command = [sys.executable, str(HERE / "peers.py"), self.kind, str(self.path), str(threads)]
        pipe = subprocess.PIPE
        self.worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        self.missing = self._answer().get("missing", "")

    def ask(self, prompt: list[int], tokens: int) -> dict[str, Any]:
        assert self.worker is not None and self.worker.stdin is not None
        with suppress(BrokenPipeError):
            print(json.dumps({"prompt": prompt, "tokens": tokens}), file=self.worker.stdin, flush=True)
        return self._answer()

    def stop(self) -> None:
        if self.worker is not None and self.worker.stdin is not None:
            with suppress(BrokenPipeError):
                self.worker.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self.worker.wait(10)
            self.worker.kill()

    def _answer(self) -> dict[str, Any]:
        assert self.worker is not None and self.worker.stdout is not None
        line = self.worker.stdout.readline()
        return json.loads(line) if line else {"missing": "it ended without an answer"}

    @property
    def bytes_read(self) -> int:
        if self.path is None:
            return 0
        files = [self.path] if self.path.is_file() else [f for p in STORED for f in self.path.glob(p)]
        return sum(f.stat().st_size for f in files)


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="edgeq-bench-") as scratch:
        place = options.keep or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        model = options.model
        if options.shape:
            model = place / f"random-{options.shape}"
            if not model.exists():
                random_llama(SHAPES[options.shape], options.model, model)
        rows = list(_rows(options, model, place))
        try:
            measure(rows, options)
        finally:
            for row in rows:
                row.stop()
        result = report(rows, options, model)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="llama folder (config.json, safetensors, tokenizer)")
    parser.add_argument("--artifact", type=Path, help="edgeq's artifact of it; made here when not given")
    parser.add_argument("--genai", type=Path, help="onnxruntime-genai's own export; made here when not given")
    parser.add_argument("--openvino", type=Path, help="an export for openvino-genai; edgeq's when not given")
    parser.add_argument("--gguf", type=Path, action="append", help="GGUF files beside the Q4_0 and Q4_1 made here")
    parser.add_argument("--only", default="", metavar="NAME,...", help="edgeq's rows whose names hold one, their peers")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="random weights of this shape, --model's tokenizer")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prompt", type=int, default=32, help="tokens of the prompt")
    parser.add_argument("--restarts", type=int, default=5, help="times all engines are started afresh")
    parser.add_argument("--rounds", type=int, default=3, help="of measuring, each time")
    parser.add_argument("--threads", type=int, default=0, help="default: physical cores")
    parser.add_argument("--group-size", type=int, default=32)
    parser.add_argument("--embed-bits", type=int, default=8, help="of edgeq's embedding and tied head")
    parser.add_argument("--keep", type=Path, help="folder for what is made here, to use it again")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.threads:
        from edgeq.device.cpu import probe_cpu

        options.threads = probe_cpu().cores
    return options


def _rows(options: argparse.Namespace, model: Path, place: Path) -> Iterator[Row]:
    """Every engine with its model, made here where it was not given."""
    name, wanted = options.shape or model.name, [w for w in options.only.split(",") if w]
    made: dict[str, Row] = {}
    for label, (quantize, export, peer) in OURS.items():
        if not wanted or any(w in label for w in wanted):
            out = place / f"{name}-{label.replace(', ', '-').replace(' ', '-')}"
            given = options.artifact if label == "edgeq onnx" else None
            made[label] = row_for(label, "edgeq", given, out, partial(_export, model, options, quantize, export))
            made[label].peer = peer
            yield made[label]
    peers = {row.peer for row in made.values()}
    for row in _peers(options, model, place, name, made):
        if not wanted or row.name in peers:
            yield row


def _peers(options: argparse.Namespace, model: Path, place: Path, name: str, made: Mapping[str, Row]) -> Iterator[Row]:
    yield row_for("onnxruntime-genai", "genai", options.genai, place / f"{name}-genai", partial(build_genai, model))
    for file in options.gguf or ():
        yield Row(f"llama.cpp {file.stem}", "llamacpp", file)
    for kind in ("Q4_0", "Q4_1"):
        out = place / f"{name}-{kind}.gguf"
        yield row_for(f"llama.cpp {kind}", "llamacpp", None, out, partial(_convert, model, kind))
    ours = made.get("edgeq openvino")
    folder = options.openvino or (ours.path if ours else None)
    yield Row("openvino-genai", "openvino", folder, missing="" if folder else "no OpenVINO export")


def row_for(name: str, kind: str, given: Path | None, out: Path, make: Callable[[Path], None]) -> Row:
    if given is not None or out.exists():
        return Row(name, kind, given or out)
    try:
        make(out)
    except Exception as error:  # a peer that can't be made is a row that says so
        return Row(name, kind, None, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    return Row(name, kind, out)


def _export(
    model: Path, options: argparse.Namespace, quantize: tuple[str, ...], export: tuple[str, ...], out: Path
) -> None:
    sizes = ("--group-size", str(options.group_size), "--embed-bits", str(options.embed_bits))
    how = quantize if "--grid" in quantize else (*sizes, *quantize)
    checkpoint = out.with_name(f"{model.name}-{'-'.join(w.strip('-') for w in how)}-checkpoint")
    if not checkpoint.exists():  # several exports share one
        run("-m", "edgeq", "quantize", str(model), "-o", str(checkpoint), *how)
    run("-m", "edgeq", "export", str(checkpoint), "-o", str(out), "--no-verify", *export)


def build_genai(model: Path, out: Path) -> None:
    import onnxruntime_genai  # noqa: F401 - what is missing should be named

    extra = ["--extra_options", "int4_accuracy_level=4", "int4_block_size=32"]
    run("-m", "onnxruntime_genai.models.builder", "-m", str(model), "-o", str(out), "-p", "int4", "-e", "cpu", *extra)


def _convert(model: Path, kind: str, out: Path) -> None:
    write_gguf(model, out, kind)


def run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it failed"])[-1])


def prompt_of(count: int) -> list[int]:
    return [5 + i * 7919 % 5000 for i in range(count)]


def measure(rows: list[Row], options: argparse.Namespace) -> None:
    """Fresh processes several times: where a process's memory happens to lie is worth 10 % either way. In each, a
    warm-up and then rounds, whose order is drawn anew: a row would else always meet what the one before left."""
    order = random.Random(0)
    for _ in range(options.restarts):
        for row in rows:
            row.start(options.threads)
        for turn in range(options.rounds + 1):
            for row in order.sample(rows, len(rows)):
                if row.path and not row.missing:
                    _time(row, options, warm_up=turn == 0)
        for row in rows:
            row.stop()


def _time(row: Row, options: argparse.Namespace, *, warm_up: bool) -> None:
    answer = row.ask(prompt_of(options.prompt), 8 if warm_up else options.tokens)
    if "missing" in answer:
        row.missing = answer["missing"]
    elif not warm_up:
        row.decode.append(answer["decoded"] / answer["decode_s"])
        row.prefill.append(options.prompt / answer["prefill_s"])


def report(rows: list[Row], options: argparse.Namespace, model: Path) -> dict[str, Any]:
    from edgeq.device.profile import profile_device

    device = profile_device()
    figure = device.memory.read_bandwidth
    bandwidth = figure.value if figure else None
    peers = {r.name: r for r in rows if r.decode}
    return {
        "model": options.shape or model.name,
        "machine": f"{device.cpu.name}, {device.cpu.cores} cores, {platform.system()}, {options.threads} threads",
        "read_bandwidth": bandwidth,
        "versions": {name: version_of(name) for name in PACKAGES},
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
        "prefill_tps": statistics.median(row.prefill),
        "to_peer": _ratio(row, peer) if peer else None,
        "peer": row.peer,
        "bytes": row.bytes_read,
        "ceiling_share": tps * row.bytes_read / bandwidth if bandwidth else None,
    }


def _ratio(row: Row, base: Row) -> float:
    """Median over the rounds of tokens/s beside the base's in the same round."""
    return statistics.median(a / b for a, b in zip(row.decode, base.decode, strict=False))


def version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


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
