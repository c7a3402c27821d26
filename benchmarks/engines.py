"""The engines that are compared: edgeq's sessions, each runtime's own, and both's models, made where not given."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
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
Made = tuple[tuple[str, ...], tuple[str, ...], str]
OURS: dict[str, Made] = {
    "edgeq onnx": ((), (), "onnxruntime-genai"),
    "edgeq onnx, no zero points": (("--symmetric",), (), "onnxruntime-genai"),  # as genai's builder stores it
    "edgeq onnx, standard operators": (("--symmetric",), ("--dialect", "standard"), "onnxruntime-genai"),
    "edgeq onnx, standard in place": (
        ("--symmetric",),
        ("--dialect", "standard", "--kv-buffer", "shared"),
        "onnxruntime-genai",
    ),
    "edgeq openvino": ((), ("--to", "openvino"), "openvino-genai"),
    "edgeq llama.cpp Q4_0": (("--grid", "q4_0"), ("--to", "gguf"), "llama.cpp Q4_0"),
}
# Rows that open another's artifact with other options: openvino-genai leaves the precision to the plugin, which takes
# bf16 where the processor has it; edgeq's session stays in float32 unless told.
OPENED: dict[str, tuple[str, dict[str, Any]]] = {"edgeq openvino, bf16": ("edgeq openvino", {"precision": "bf16"})}
STORED = ("*.data", "*model*.bin", "*.gguf")  # where weights are
PACKAGES = ("edgeq", "onnxruntime", "onnxruntime-genai", "xllamacpp", "openvino", "openvino-genai")


@dataclass(slots=True)
class Row:
    """One engine with its model. `options`: of the session; `peer`: the row that it is compared with; `decode`, and
    `prefill` by the length of the prompt: tokens/s of each round."""

    name: str
    kind: str
    path: Path | None = None
    peer: str = ""
    missing: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    worker: subprocess.Popen[str] | None = None
    decode: list[float] = field(default_factory=list)
    prefill: dict[int, list[float]] = field(default_factory=dict)

    def start(self, threads: int, context: int) -> None:
        if self.path is None:
            return
        told = (self.kind, str(self.path), str(threads), str(context), json.dumps(self.options))
        command = [sys.executable, str(HERE / "peers.py"), *told]
        pipe = subprocess.PIPE
        self.worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        self.missing = self._answer().get("missing", "")

    def ask(self, prompt: list[int], tokens: int) -> dict[str, Any]:
        assert self.worker is not None and self.worker.stdin is not None
        with suppress(BrokenPipeError):
            print(json.dumps({"prompt": prompt, "tokens": tokens}), file=self.worker.stdin, flush=True)
        answer = self._answer()
        self.missing = str(answer.get("missing", ""))
        return answer

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


def add_options(parser: argparse.ArgumentParser) -> None:
    """What every comparison of engines takes."""
    parser.add_argument("--model", type=Path, required=True, help="llama folder (config.json, safetensors, tokenizer)")
    parser.add_argument("--artifact", type=Path, help="edgeq's artifact of it; made here when not given")
    parser.add_argument("--genai", type=Path, help="onnxruntime-genai's own export; made here when not given")
    parser.add_argument("--openvino", type=Path, help="an export for openvino-genai; edgeq's when not given")
    parser.add_argument("--gguf", type=Path, action="append", help="GGUF files beside the Q4_0 and Q4_1 made here")
    parser.add_argument("--only", default="", metavar="NAME,...", help="edgeq's rows whose names hold one, their peers")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="random weights of this shape, --model's tokenizer")
    parser.add_argument("--restarts", type=int, default=5, help="times all engines are started afresh")
    parser.add_argument("--rounds", type=int, default=3, help="of measuring, each time")
    parser.add_argument("--threads", type=int, default=0, help="default: physical cores")
    parser.add_argument("--group-size", type=int, default=32)
    parser.add_argument("--embed-bits", type=int, default=8, help="of edgeq's embedding and tied head")
    parser.add_argument("--keep", type=Path, help="folder for what is made here, to use it again")
    parser.add_argument("--json", action="store_true")


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options, with the threads that are meant where none are named."""
    options = parser.parse_args()
    if not options.threads:
        from edgeq.device.cpu import probe_cpu

        options.threads = probe_cpu().cores
    return options


def rows_of(options: argparse.Namespace, place: Path, ours: Mapping[str, Made] = OURS) -> Iterator[Row]:
    """Every engine with its model, made in `place` where it was not given."""
    model = options.model
    if options.shape:
        model = place / f"random-{options.shape}"
        if not model.exists():
            random_llama(SHAPES[options.shape], options.model, model)
    name, wanted = options.shape or model.name, [w for w in options.only.split(",") if w]
    made: dict[str, Row] = {}
    for label, (quantize, export, peer) in ours.items():
        if not wanted or any(w in label for w in wanted):
            out = place / f"{name}-{label.replace(', ', '-').replace(' ', '-')}"
            given = options.artifact if label == "edgeq onnx" else None
            made[label] = _row(label, "edgeq", given, out, partial(_export, model, options, quantize, export))
            made[label].peer = peer
            yield made[label]
    for label, (base, how) in OPENED.items():
        if base in made:
            yield Row(label, "edgeq", made[base].path, made[base].peer, made[base].missing, how)
    peers = {row.peer for row in made.values()}
    yield from _peers(options, model, place, name, made, peers if wanted else None)


def _peers(
    options: argparse.Namespace,
    model: Path,
    place: Path,
    name: str,
    made: Mapping[str, Row],
    wanted: set[str] | None,
) -> Iterator[Row]:
    def asked(label: str) -> bool:
        return wanted is None or label in wanted

    label = "onnxruntime-genai"
    if asked(label):
        yield _row(label, "genai", options.genai, place / f"{name}-genai", partial(_build_genai, model))
    for file in options.gguf or ():
        yield Row(f"llama.cpp {file.stem}", "llamacpp", file)
    for kind in ("Q4_0", "Q4_1"):
        if asked(f"llama.cpp {kind}"):
            out = place / f"{name}-{kind}.gguf"
            yield _row(f"llama.cpp {kind}", "llamacpp", None, out, partial(_convert, model, kind))
    if asked("openvino-genai"):
        ours = made.get("edgeq openvino")
        folder = options.openvino or (ours.path if ours else None)
        yield Row("openvino-genai", "openvino", folder, missing="" if folder else "no OpenVINO export")


def _row(name: str, kind: str, given: Path | None, out: Path, make: Callable[[Path], None]) -> Row:
    if given is not None or out.exists():
        return Row(name, kind, given or out)
    try:
        make(out)
    except Exception as error:  # a peer that can't be made is a row that says so
        return Row(name, kind, None, missing=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    return Row(name, kind, out)


def _export(
    model: Path, options: argparse.Namespace, quantize: tuple[str, ...], export: tuple[str, ...], out: Path
) -> None:
    sizes = ("--group-size", str(options.group_size), "--embed-bits", str(options.embed_bits))
    how = quantize if {"--grid", "--method"} & set(quantize) else (*sizes, *quantize)
    checkpoint = out.with_name(f"{model.name}-{'-'.join(w.strip('-') for w in how)}-checkpoint")
    if not checkpoint.exists():  # several exports share one
        run("-m", "edgeq", "quantize", str(model), "-o", str(checkpoint), *how)
    run("-m", "edgeq", "export", str(checkpoint), "-o", str(out), "--no-verify", *export)


def _build_genai(model: Path, out: Path) -> None:
    import onnxruntime_genai  # noqa: F401 - what is missing should be named

    extra = ["--extra_options", "int4_accuracy_level=4", "int4_block_size=32"]
    run("-m", "onnxruntime_genai.models.builder", "-m", str(model), "-o", str(out), "-p", "int4", "-e", "cpu", *extra)


def _convert(model: Path, kind: str, out: Path) -> None:
    write_gguf(model, out, kind)


def run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it failed"])[-1])


def prompt_of(count: int, turn: int) -> list[int]:
    """Tokens that no other turn or length begins with: some engines keep the caches of prompts they have seen."""
    return [5 + turn, *(5 + (i * 7919 + count * 31) % 5000 for i in range(1, count))]


def versions() -> dict[str, str | None]:
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
