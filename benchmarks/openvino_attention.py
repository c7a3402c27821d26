"""Why openvino-genai's two attention backends give different greedy answers: one kind of rounding at a time.

    python benchmarks/openvino_attention.py FOLDER

FOLDER is what `edgeq export --to openvino` wrote. Each line tells for every prompt whether the answer equals that of
SDPA with all rounding off (`=`), or from which character on it differs.
"""

from __future__ import annotations

import sys
from typing import Any

PROMPTS = ("The capital of France is", "Once upon a time there was", "def fibonacci(n):", "Water boils at")
TOKENS = 40
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
SETTINGS: dict[str, dict[str, Any]] = {
    "all exact": EXACT,
    "default": {},
    "only precision f32": {"INFERENCE_PRECISION_HINT": "f32"},
    "only cache f32": {"KV_CACHE_PRECISION": "f32"},
    "only inputs not rounded": {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0},
    "exact but precision bf16": {**EXACT, "INFERENCE_PRECISION_HINT": "bf16"},
    "exact but cache u8": {**EXACT, "KV_CACHE_PRECISION": "u8"},
    "exact but inputs rounded": {**EXACT, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 32},
}


def answers(folder: str, backend: str, settings: dict[str, Any]) -> list[str]:
    import openvino_genai

    config = openvino_genai.GenerationConfig()
    config.max_new_tokens, config.do_sample, config.apply_chat_template = TOKENS, False, False
    pipe = openvino_genai.LLMPipeline(folder, "CPU", ATTENTION_BACKEND=backend, **settings)
    return [str(pipe.generate(p, config)) for p in PROMPTS]


def difference(a: str, b: str) -> str:
    if a == b:
        return "="
    return str(next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))))


def main(folder: str) -> None:
    reference = answers(folder, "SDPA", EXACT)
    for backend in ("SDPA", "PA"):
        for name, settings in SETTINGS.items():
            try:
                found = answers(folder, backend, settings)
                said = " ".join(f"{difference(a, b):>4}" for a, b in zip(reference, found, strict=True))
            except RuntimeError as error:
                said = f"OpenVINO refuses: {str(error).strip().splitlines()[-1][:90]}"
            print(f"{backend:5} {name:26} {said}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
