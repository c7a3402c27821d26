"""edgeq's OpenVINO folder in optimum-intel's `OVModelForCausalLM`: the same greedy tokens as edgeq's session?

    python benchmarks/optimum_intel.py CHECKPOINT --overlay FOLDER [--tokens 32] [--out FOLDER]

optimum-intel 2.2 needs an older transformers than edgeq's tests, so it runs in a process of its own with a folder of
packages before the installed ones:

    pip install --no-deps --target FOLDER "transformers<5.6" "huggingface-hub<1.22" "tokenizers==0.22.*" \
        optimum-intel optimum nncf httpx httpcore tabulate scipy

Two exports are compared. `float` rounds no inputs and keeps the cache in float32: every token has to agree, and the
exit code is 1 where one does not. `as exported by default` rounds inputs to 8 bits, in attention kernels that differ
(edgeq's session pages its cache): what agrees is told, and no more is asked.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "Water boils at a lower temperature on a mountain because",
)
EXPORTS: dict[str, dict[str, Any]] = {
    "float": {"dynamic_quantization": 0, "kv_dtype": "f32"},
    "as exported by default": {},
}


def main() -> int:
    options = _options()
    if options.child:
        return _child(Path(options.checkpoint), options.tokens)
    with tempfile.TemporaryDirectory(prefix="edgeq-optimum-") as scratch:
        same = [_compare(label, options, Path(options.out or scratch)) for label in EXPORTS]
    return 0 if same[0] else 1


def _compare(label: str, options: argparse.Namespace, place: Path) -> bool:
    from edgeq.checkpoint.open import open_weights
    from edgeq.registry import exporter

    folder = place / label.replace(" ", "-")
    weights = open_weights(options.checkpoint)
    exporter("openvino").export(weights, folder, force=True, **EXPORTS[label])
    asked, ours = _ours(folder, options.tokens)
    theirs = _theirs(folder, asked, options)
    print(f"{label}: {theirs['versions']}")
    alike = []
    for prompt, a, b in zip(PROMPTS, ours, theirs["tokens"], strict=True):
        first = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        alike.append(first == len(a) == len(b))
        print(f"  {first:3} of {len(a)} tokens the same  {prompt!r}")
    print(f"  {sum(alike)} of {len(alike)} prompts are continued alike")
    return all(alike)


def _ours(folder: Path, tokens: int) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts as tokens, and edgeq's continuations."""
    import edgeq

    asked, made = [], []
    with edgeq.load(folder) as session:
        found: Any = session
        for prompt in PROMPTS:
            ids = list(found.tokenizer.encode(prompt))
            engine, answer = found.engine, []
            engine.rewind(0)
            row = engine.prefill(ids)
            for _ in range(tokens):
                answer.append(int(row.argmax()))
                row = engine.decode(answer[-1])
            asked.append(ids)
            made.append(answer)
    return asked, made


def _theirs(folder: Path, asked: list[list[int]], options: argparse.Namespace) -> dict[str, Any]:
    line = [sys.executable, __file__, str(folder), "--child", "--tokens", str(options.tokens)]
    environment = {**os.environ, "PYTHONPATH": str(options.overlay.resolve())} if options.overlay else dict(os.environ)
    done = subprocess.run(line, input=json.dumps(asked), capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"optimum-intel failed; is --overlay right?\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _child(folder: Path, tokens: int) -> int:
    """Runs with the overlay: prompts on standard input, continuations on standard output."""
    from importlib.metadata import version

    import torch
    from optimum.intel import OVModelForCausalLM

    model = OVModelForCausalLM.from_pretrained(folder, device="CPU", ov_config={"INFERENCE_PRECISION_HINT": "f32"})
    made = []
    for ids in json.load(sys.stdin):
        asked = torch.tensor([ids])
        answer = model.generate(
            input_ids=asked,
            attention_mask=torch.ones_like(asked),
            do_sample=False,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            eos_token_id=-1,
        )
        made.append(answer[0, len(ids) :].tolist())
    used = ", ".join(f"{name} {version(name)}" for name in ("optimum-intel", "transformers", "openvino"))
    print(json.dumps({"tokens": made, "versions": used}))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", help="that edgeq quantize made, or a model")
    parser.add_argument("--overlay", type=Path, help="folder of packages that has optimum-intel")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--out", type=Path, help="keep the exports here")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
