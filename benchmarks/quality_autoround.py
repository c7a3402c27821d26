"""AutoRound in its own environment: `python quality_autoround.py REQUEST`, a JSON object; answers in JSON.

Leaves the model with its weights rounded, as floats, for the harness to run. Learns from the very chunks of tokens
that are given, in its bfloat16 default where the processor has units for it, else in float32, which is then faster.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def bfloat16_units() -> bool:
    """The processor multiplies matrices of bfloat16 (Linux on x86 tells; else no)."""
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to standard output too
    request = json.loads(sys.argv[1])
    import torch
    from auto_round import AutoRound
    from auto_round.version import __version__
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(request["threads"])
    pieces = json.loads(Path(request["ids"]).read_text("utf-8"))
    batch = request["batch_size"]
    batches = [torch.tensor(pieces[i : i + batch]) for i in range(0, len(pieces), batch)]
    start = time.perf_counter()
    rounder = AutoRound(
        AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32),
        AutoTokenizer.from_pretrained(request["model"]),
        bits=request["bits"],
        group_size=request["group_size"],
        sym=request["symmetric"],
        iters=request["iters"],
        nsamples=len(pieces),
        seqlen=len(pieces[0]),
        batch_size=batch,
        dataset=batches,
        device_map="cpu",
        amp=bfloat16_units(),
        lr=request["lr"],
        seed=request["seed"],
        enable_torch_compile=False,
        low_gpu_mem_usage=False,
    )
    model, _ = rounder.quantize()
    seconds = time.perf_counter() - start
    model.save_pretrained(request["out"])
    print(json.dumps({"seconds": seconds, "version": __version__}), file=answers, flush=True)


if __name__ == "__main__":
    main()
