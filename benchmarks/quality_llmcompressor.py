"""llm-compressor in its own environment: `python quality_llmcompressor.py REQUEST`, a JSON object; answers in JSON.

GPTQ and AWQ leave the model with its weights rounded, as floats, for the harness to run; SmoothQuant, whose
activations are rounded too, leaves the logits of the text's chunks, computed with its own rounding of activations.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def recipe(request: dict[str, Any]) -> list[Any]:
    """The method's modifiers with their defaults, on all linear layers but the head."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    weights = {"num_bits": request["bits"], "type": "int", "symmetric": request["symmetric"]}
    grouped = weights | {"strategy": "group", "group_size": request["group_size"]}
    method = request["method"]
    if method == "smoothquant":
        static = request["activations"] == "static"
        acts = {"num_bits": 8, "type": "int", "symmetric": not static, "dynamic": not static}
        acts["strategy"] = "tensor" if static else "token"
        group = {"targets": ["Linear"], "weights": weights | {"strategy": "channel"}, "input_activations": acts}
        smooth = SmoothQuantModifier(smoothing_strength=request.get("strength", 0.5))
        return [smooth, GPTQModifier(config_groups={"all": group}, ignore=["lm_head"])]
    group = {"targets": ["Linear"], "weights": grouped}
    if method == "gptq":
        return [GPTQModifier(config_groups={"all": group}, ignore=["lm_head"])]
    return [AWQModifier(), QuantizationModifier(config_groups={"all": group}, ignore=["lm_head"])]


def round_weights(model: Any) -> None:
    """Put every weight where its stored scale and zero point put it."""
    import torch
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize

    with torch.no_grad():
        for module in model.modules():
            scheme = getattr(module, "quantization_scheme", None)
            if scheme is None or scheme.weights is None or not hasattr(module, "weight_scale"):
                continue
            zero = getattr(module, "weight_zero_point", None)
            rounded = fake_quantize(module.weight, module.weight_scale, zero, scheme.weights)
            module.weight.copy_(rounded)


def write_logits(model: Any, request: dict[str, Any]) -> None:
    import numpy as np
    import torch

    pieces = json.loads(Path(request["text_ids"]).read_text("utf-8"))
    shape = (len(pieces), len(pieces[0]), model.config.vocab_size)
    held = np.lib.format.open_memmap(request["out"], "w+", np.float32, shape)
    with torch.inference_mode():
        for i, piece in enumerate(pieces):
            held[i] = model(torch.tensor([piece])).logits[0].float().numpy()
    held.flush()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to standard output too
    request = json.loads(sys.argv[1])
    from importlib.metadata import version

    import torch
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.pipelines.cache import IntermediatesCache
    from transformers import AutoModelForCausalLM

    if not torch.accelerator.is_available():  # 0.14's AWQ page-locks memory even where there is nothing to copy it to
        IntermediatesCache.pin_memory = lambda *_, **__: None
    torch.set_num_threads(request["threads"])
    pieces = json.loads(Path(request["ids"]).read_text("utf-8"))
    rows = {"input_ids": pieces, "attention_mask": [[1] * len(p) for p in pieces]}
    start = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32)
    options = {"max_seq_length": len(pieces[0]), "num_calibration_samples": len(pieces)}
    oneshot(model=model, dataset=Dataset.from_dict(rows), recipe=recipe(request), **options)
    seconds = time.perf_counter() - start
    if request["method"] == "smoothquant":
        write_logits(model, request)
    else:
        round_weights(model)
        for module in model.modules():  # only the weights are wanted, under their plain names
            for name in [n for n, _ in module.named_parameters(recurse=False) if n.startswith("weight_")]:
                delattr(module, name)
        state = {n: t for n, t in model.state_dict().items() if n != "lm_head.weight"}
        Path(request["out"]).mkdir(parents=True, exist_ok=True)
        from safetensors.torch import save_file

        save_file(state, Path(request["out"]) / "model.safetensors")
        model.config.to_json_file(Path(request["out"]) / "config.json")
    print(json.dumps({"seconds": seconds, "version": version("llmcompressor")}), file=answers, flush=True)


if __name__ == "__main__":
    main()
