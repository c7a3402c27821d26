"""What the plan promises for a model beside what its artifacts do, runtime by runtime, at a short and a long context.

    python benchmarks/promises.py --model FOLDER --keep FOLDER [--only openvino,Q4_0] [--lengths 32,2000] [--refresh]

Promised is the sum of what `edgeq profile` timed, never what benchmarks of the model have taught: the local store is
not read. Measured is `edgeq bench`'s worker, in a process of its own. A ratio is measured over promised. "Others" is
what other programs took of the machine meanwhile: above 0.15 a row says little.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from engines import run

from edgeq.artifact import Artifact, read_artifact
from edgeq.checkpoint.store import Checkpoint
from edgeq.device.profile import profile_device
from edgeq.device.spec import Device
from edgeq.estimate.prior import Expected
from edgeq.estimate.speed import expected_decode, expected_prefill
from edgeq.measure.bench import Workload, bench

# label -> (arguments of `edgeq quantize`, of `edgeq export`)
WAYS = {
    "onnxruntime int4": (("--scheme", "rtn-int4-g32"), ()),
    "openvino int4": (("--scheme", "rtn-int4-g32"), ("--to", "openvino")),
    "openvino g128": (("--scheme", "rtn-int4-g128"), ("--to", "openvino")),
    "llamacpp Q4_0": (("--grid", "gguf-q4_0"), ("--to", "gguf")),
    "llamacpp Q4_K_M": (("--grid", "gguf-q4_k_m"), ("--to", "gguf")),
    "llamacpp Q8_0": (("--grid", "gguf-q8_0"), ("--to", "gguf")),
}


@dataclass(frozen=True, slots=True)
class Line:
    """Attributes:
    what: `decode` with so many tokens before, or `prompt` of so many.
    promised, measured: tokens/s.
    others: share of the machine that other programs took.
    """

    artifact: str
    what: str
    tokens: int
    promised: float
    measured: float
    spread: float
    others: float
    basis: str

    @property
    def ratio(self) -> float:
        return self.measured / self.promised


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--keep", type=Path, required=True, help="folder for checkpoints and artifacts, used again")
    parser.add_argument("--only", default="", metavar="WORD,...", help="rows whose names hold one of these")
    parser.add_argument("--lengths", default="32,2000", help="tokens before, and of prompts")
    parser.add_argument("--tokens", type=int, default=48, help="decoded each time")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--refresh", action="store_true", help="measure the machine again first")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    wanted = [word for word in given.only.split(",") if word]
    device = profile_device(refresh=given.refresh, quick=False)
    lengths = [int(n) for n in given.lengths.split(",")]
    lines: list[Line] = []
    for label in WAYS:
        if wanted and not any(word in label for word in wanted):
            continue
        checkpoint, artifact = made(given.model, label, given.keep)
        for length in lengths:
            work = Workload((length,), given.tokens, length, given.reps)
            found = list(compared(label, device, checkpoint, artifact, work))
            lines += found
            if not given.json:
                for line in found:
                    print(told(line), flush=True)
    for warning in device.warnings if not given.json else ():
        print(f"! {warning}")
    if given.json:
        print(json.dumps([asdict(line) | {"ratio": line.ratio} for line in lines], indent=2))


def made(model: Path, label: str, place: Path) -> tuple[Checkpoint, Artifact]:
    """The checkpoint and the artifact, made where they are not there yet."""
    quantize, export = WAYS[label]
    checkpoint = place / f"{model.name}-{quantize[-1]}"
    artifact = place / f"{model.name}-{label.replace(' ', '-')}"
    if not checkpoint.exists():
        run("-m", "edgeq", "quantize", str(model), *quantize, "-o", str(checkpoint))
    if not artifact.exists():
        run("-m", "edgeq", "export", str(checkpoint), "-o", str(artifact), "--no-verify", *export)
    return Checkpoint.open(checkpoint), read_artifact(artifact)


def compared(label: str, device: Device, checkpoint: Checkpoint, artifact: Artifact, work: Workload) -> Iterator[Line]:
    spec, scheme, target = checkpoint.spec, checkpoint.scheme, f"{artifact.runtime}/cpu"
    middle, prompt = work.context + work.tokens // 2, work.prompt_tokens[0]
    decode = expected_decode(device, spec, scheme, target, context=middle)
    prefill = expected_prefill(device, spec, scheme, target, prompt=prompt)
    seen = bench(artifact, device, workload=work)
    rows = (("decode", work.context, decode, seen.decode.tps), ("prompt", prompt, prefill, seen.prefill[0].tps))
    for what, tokens, promise, samples in rows:
        tps, basis = _of(promise)
        yield Line(label, what, tokens, tps, samples.median, samples.spread, seen.load_during, basis)


def _of(promise: Expected | None) -> tuple[float, str]:
    return (float("nan"), "unknown") if promise is None else (promise.tps, f"{promise.basis}: {promise.detail}")


def told(line: Line) -> str:
    return (
        f"{line.artifact:20} {line.what} {line.tokens:5}  promised {line.promised:7.1f}  measured {line.measured:7.1f} "
        f"±{line.spread:4.0%}  ratio {line.ratio:5.2f}  others {line.others:.2f}  {line.basis}"
    )


if __name__ == "__main__":
    main()
