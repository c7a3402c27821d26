"""Decode speed side by side: edgeq's sessions on ONNX Runtime and on llama.cpp, onnxruntime-genai on its own export,
llama.cpp itself (xllamacpp's server), OpenVINO.

    python benchmarks/decode.py --model FOLDER [--gguf FILE ...] [--tokens 128] [--rounds 5] [--shape 1b] [--json]

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
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from shapes import SHAPES, random_llama, write_gguf  # noqa: E402

PACKAGES = ("edgeq", "onnxruntime", "onnxruntime-genai", "xllamacpp", "openvino", "openvino-genai")


@dataclass(slots=True)
class Row:
    """One engine with its model and what it did."""

    name: str
    kind: str
    path: Path | None = None
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
        files = [self.path] if self.path.is_file() else [*self.path.glob("*.data"), *self.path.glob("*model*.bin")]
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
    parser.add_argument("--openvino", type=Path, help="an OpenVINO export, for openvino-genai")
    parser.add_argument("--gguf", type=Path, action="append", help="GGUF files; Q4_0 and Q4_1 made here when not given")
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
    name = options.shape or model.name
    yield row_for("edgeq", "edgeq", options.artifact, place / f"{name}-edgeq", partial(_export, model, options, ()))
    if options.artifact is None:  # as onnxruntime-genai's builder stores it
        plain = partial(_export, model, options, ("--symmetric",))
        yield row_for("edgeq, no zero points", "edgeq", None, place / f"{name}-edgeq-symmetric", plain)
    yield row_for("onnxruntime-genai", "genai", options.genai, place / f"{name}-genai", partial(build_genai, model))
    for file in options.gguf or ():
        yield Row(f"llama.cpp {file.stem}", "llamacpp", file)
        yield Row(f"edgeq on llama.cpp {file.stem}", "edgeq", file)
    for kind in () if options.gguf else ("Q4_0", "Q4_1"):
        out = place / f"{name}-{kind}.gguf"
        yield row_for(f"llama.cpp {kind}", "llamacpp", None, out, partial(_convert, model, kind))
        yield row_for(f"edgeq on llama.cpp {kind}", "edgeq", None, out, partial(_convert, model, kind))
    missing = "" if options.openvino else "no --openvino FOLDER given"
    yield Row("openvino-genai", "openvino", options.openvino, missing)


def row_for(name: str, kind: str, given: Path | None, out: Path, make: Callable[[Path], None]) -> Row:
    if given is not None or out.exists():
        return Row(name, kind, given or out)
    try:
        make(out)
    except Exception as error:  # a peer that can't be made is a row that says so
        return Row(name, kind, None, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    return Row(name, kind, out)


def _export(model: Path, options: argparse.Namespace, more: tuple[str, ...], out: Path) -> None:
    checkpoint = out.with_name(f"{out.name}-checkpoint")
    sizes = ["--group-size", str(options.group_size), "--embed-bits", str(options.embed_bits), *more]
    run("-m", "edgeq", "quantize", str(model), "-o", str(checkpoint), "--force", *sizes)
    run("-m", "edgeq", "export", str(checkpoint), "-o", str(out), "--no-verify")


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
    base = next((r for r in rows if r.kind == "genai" and r.decode), None)
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
        "rows": [_figures(row, base, bandwidth) for row in rows],
    }


def _figures(row: Row, base: Row | None, bandwidth: float | None) -> dict[str, Any]:
    if not row.decode:
        return {"engine": row.name, "missing": row.missing or "nothing was measured"}
    tps = statistics.median(row.decode)
    return {
        "engine": row.name,
        "decode_tps": tps,
        "best_tps": max(row.decode),
        "spread": (max(row.decode) - min(row.decode)) / 2 / tps,
        "prefill_tps": statistics.median(row.prefill),
        "to_genai": _ratio(row, base) if base else None,
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
    for name in ("engine", "tok/s", "spread", "best", "to genai", "MB", "ceiling", "prefill"):
        table.add_column(name, justify="left" if name == "engine" else "right", no_wrap=True)
    for row in result["rows"]:
        if "missing" in row:
            continue
        ratio, share = row["to_genai"], row["ceiling_share"]
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


if __name__ == "__main__":
    main()
