"""One checkpoint on an NVIDIA GPU: what computes there, the same numbers as the CPU's, and how fast. All in one call.

    python benchmarks/cuda.py CHECKPOINT [--prompt 512] [--tokens 64] [--json FILE] [--on cpu]

- the profiler's figures of the card, beside the bandwidth that a copy within its memory reaches
- the torch runtime in float32, bfloat16 and float16
- onnxruntime's CUDA provider on a float16 export, where `onnxruntime-gpu` is installed. (Its attention has no float32
  kernel there, so a float32 export would copy the cache to the CPU and back at every token: not run.)
- llama.cpp with all layers on the GPU, where a build with CUDA is installed and GGUF holds the checkpoint

Each row's logits are compared with the reference decoder's on the CPU, and so are 16 tokens of a greedy answer. What is
not installed is told and left out; a checkpoint that `edgeq quantize --symmetric` made leaves nothing out for its grid.
Exit code 0: every row that could be opened computes what the checkpoint says; 1: one does not, or breaks; 2: nothing
was run, as without an NVIDIA GPU. `--on cpu` runs the same rows on the processor, to try this script.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import EdgeqError

TEXT = 192  # tokens that logits are compared on
ANSWER = 16
REPEATS = 3
NOTHING_RUN = 2


@dataclass
class Row:
    """Attributes:
    export: exporter and options of what it runs; None: the checkpoint itself.
    limit: mean KL divergence from the CPU's float32, in nats, that its arithmetic may have.
    missing: why it can't be opened here; broken: what went wrong after it was.
    """

    name: str
    runtime: str
    opened: dict[str, Any]
    limit: float
    export: tuple[str, dict[str, Any]] = ("onnx", {"accuracy_level": 0})
    missing: str = ""
    broken: str = ""
    mean_kl: float | None = None
    same_answer: int = 0
    prefill_tps: float = 0.0
    decode_tps: list[float] = field(default_factory=list)

    @property
    def right(self) -> bool:
        return not self.broken and self.mean_kl is not None and self.mean_kl <= self.limit


def rows(on: str, layers: int) -> list[Row]:
    onnx16 = ("onnx", {"accuracy_level": 0, "dtype": "float16"})
    gpu_layers = layers + 1 if on == "cuda" else 0
    return [
        *(Row(f"torch {d}", "torch", {"device": on, "dtype": d}, k) for d, k in (("f32", 1e-4), ("bf16", 0.05))),
        Row("torch f16", "torch", {"device": on, "dtype": "f16"}, 0.005),
        Row("onnxruntime float16", "onnxruntime", {"device": on}, 0.005, onnx16),
        Row("llama.cpp", "llamacpp", {"gpu_layers": gpu_layers}, 0.05, ("gguf", {})),
    ]


def main() -> int:
    options = _options()
    if options.on == "cuda" and (why := no_gpu()):
        print(f"No NVIDIA GPU here: {why}. Nothing was run. (--on cpu tries this script without one.)")
        return NOTHING_RUN
    from edgeq.checkpoint.open import open_weights

    if options.on == "cuda":
        describe_card()
    weights = open_weights(options.checkpoint)
    made = rows(options.on, weights.spec.n_layers)
    with tempfile.TemporaryDirectory(prefix="edgeq-cuda-") as scratch:
        artifacts = Artifacts(weights, Path(scratch))
        reference = Reference(artifacts, options.checkpoint)
        print(f"{'':22} {'mean KL':>9} {'limit':>8}  same answer  prefill tok/s  decode tok/s  spread")
        for row in made:
            run(row, artifacts, reference, options)
            print(told(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in made], indent=2))
    if all(row.missing for row in made):
        return NOTHING_RUN
    return 0 if all(row.right or row.missing for row in made) else 1


def no_gpu() -> str:
    """Why there is no card to run on, empty where there is one."""
    from edgeq.device.nvidia import probe_nvidia

    cards = [card for card in probe_nvidia() if card.kind == "cuda"]
    return "" if cards else "no driver answers, and no card is listed"


def describe_card() -> None:
    from edgeq.device.nvidia import probe_nvidia

    for card in probe_nvidia():
        total, free = (size / 2**30 for size in (card.memory_bytes, card.available_bytes))
        print(f"{card.name}, {total:.1f} GiB, {free:.1f} free, driver {card.driver}")
        for what in ("read_bandwidth", "fp16_matmul", "int8_matmul", "link_bandwidth"):
            figure = getattr(card, what)
            if figure is not None:
                print(f"  {what}: {figure.value:.4g} {figure.unit}, {figure.basis}")
    if (copied := copy_bandwidth()) is not None:
        print(f"  a copy within its memory, read and written: {copied:.4g} bytes/s")


def copy_bandwidth() -> float | None:
    """Bytes read and written a second, the best of a few copies; None: torch has no CUDA."""
    import torch

    if not torch.cuda.is_available():
        return None
    source = torch.ones(1 << 28, dtype=torch.float32, device="cuda")
    target, best = torch.empty_like(source), 0.0
    for _ in range(10):
        torch.cuda.synchronize()
        start = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        best = max(best, 2 * source.numel() * 4 / (time.perf_counter() - start))
    return best


class Artifacts:
    """Exports of one checkpoint, each made once."""

    def __init__(self, weights: Any, place: Path) -> None:
        self.weights, self._place = weights, place
        self._made: dict[str, Any] = {}

    def get(self, name: str, options: dict[str, Any]) -> Any:
        """Raises EdgeqError where the exporter refuses."""
        from edgeq.registry import exporter

        key = f"{name}-{'-'.join(map(str, options.values()))}"
        if key not in self._made:
            self._made[key] = exporter(name).export(self.weights, self._place / key, **options)
        return self._made[key]


class Reference:
    """Logits of the decoder in float32 on the CPU, on text of the model's tokenizer; and its greedy answer."""

    def __init__(self, artifacts: Artifacts, checkpoint: str) -> None:
        from edgeq.decoder.torch_model import TorchModel
        from edgeq.model.texts import built_in_texts
        from edgeq.model.tokenizer import open_tokenizer

        spec = artifacts.weights.spec
        words = "\n\n".join(built_in_texts())
        model = TorchModel(artifacts.weights)
        self.longest = spec.max_positions
        most = min(TEXT, self.longest - ANSWER - 1)
        self.text = list(open_tokenizer(artifacts.weights.tokenizer_files(), checkpoint).encode(words))
        self.ids = self.text[:most]
        self.logits = model.logits(self.ids)
        cache = model.start()
        row, self.answer = model.step(self.ids, cache)[-1], []
        for _ in range(ANSWER):
            self.answer.append(int(row.argmax()))
            row = model.step(self.answer[-1:], cache)[-1]


def run(row: Row, artifacts: Artifacts, reference: Reference, options: argparse.Namespace) -> None:
    """Open, compare and time one row; its fields say what came out. One that fails does not hide the others."""
    try:
        session = opened(row, artifacts, reference, options)
    except EdgeqError as error:
        row.missing = error.line
        return
    try:
        measure(row, session, reference, options)
    except Exception as error:  # of a runtime or of a driver, which share no base
        row.broken = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:300]
    finally:
        session.close()


def opened(row: Row, artifacts: Artifacts, reference: Reference, options: argparse.Namespace) -> Any:
    """A session.

    Raises:
        EdgeqError: there can be none here, for a reason.
    """
    from edgeq.registry import runtime

    chosen = runtime(row.runtime)
    if absent := chosen.missing():
        raise EdgeqError(f"needs {absent}")
    artifact = artifacts.get(*row.export)
    context = max(len(reference.ids) + ANSWER, len(_prompt(reference, options)) + options.tokens) + 1
    return chosen.open(artifact, context=min(context, artifact.model["max_positions"]), **row.opened)


def measure(row: Row, session: Any, reference: Reference, options: argparse.Namespace) -> None:
    from edgeq.measure.divergence import DivergenceMeter

    meter = DivergenceMeter()
    meter.add(reference.logits, session.logits(reference.ids))
    row.mean_kl = meter.result().mean_kl if not meter.result().broken else float("inf")
    answer = list(_greedy(session.engine, reference.ids, ANSWER))
    same = (a == b for a, b in zip(answer, reference.answer, strict=True))
    row.same_answer = next((i for i, s in enumerate(same) if not s), ANSWER)
    prompt = _prompt(reference, options)
    for turn in range(REPEATS + 1):  # the first one warms up
        spent, tps = _timed(session.engine, prompt, min(options.tokens, session.engine.context - len(prompt) - 1))
        if turn:
            row.prefill_tps = max(row.prefill_tps, len(prompt) / spent)
            row.decode_tps.append(tps)


def _prompt(reference: Reference, options: argparse.Namespace) -> list[int]:
    text = reference.text
    return [text[i % len(text)] for i in range(min(options.prompt, reference.longest // 2))]


def _greedy(engine: Any, ids: list[int], tokens: int) -> Iterator[int]:
    row = _prefilled(engine, ids)
    for _ in range(tokens):
        token = int(np.argmax(row))
        yield token
        row = engine.decode(token)


def _prefilled(engine: Any, ids: list[int]) -> Any:
    engine.rewind(0)
    row = None
    for at in range(0, len(ids), engine.chunk):
        row = engine.prefill(ids[at : at + engine.chunk])
    return row


def _timed(engine: Any, prompt: list[int], tokens: int) -> tuple[float, float]:
    """Seconds of the prompt, and tokens a second after it."""
    start = time.perf_counter()
    row = _prefilled(engine, prompt)
    first = time.perf_counter()
    for _ in range(tokens):
        row = engine.decode(int(np.argmax(row)))
    return first - start, tokens / (time.perf_counter() - first)


def told(row: Row) -> str:
    if row.missing:
        return f"{row.name:22} not run: {row.missing}"
    if row.broken:
        return f"{row.name:22} FAILED: {row.broken}"
    decode = statistics.median(row.decode_tps)
    spread = (max(row.decode_tps) - min(row.decode_tps)) / decode
    verdict = "" if row.right else "  WRONG"
    return (
        f"{row.name:22} {row.mean_kl:9.2g} {row.limit:8.2g} {row.same_answer:7} of {ANSWER}"
        f" {row.prefill_tps:14,.0f} {decode:13,.1f} {spread:7.0%}{verdict}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", help="that edgeq quantize made, or a model")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt that is timed")
    parser.add_argument("--tokens", type=int, default=64, help="tokens decoded after it")
    parser.add_argument("--on", choices=("cuda", "cpu"), default="cuda", help="cpu: the same rows, to try this script")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
