"""A request as the command line that asks the same."""

from __future__ import annotations

import shlex

from edgeq.plan.request import Request


def plan_command(model: str, device: str, request: Request) -> str:
    """The `edgeq plan` that makes this plan."""
    words = ["edgeq", "plan", "-m", model]
    if device != "auto":
        words += ["-d", device]
    words += ["--context", str(request.context)]
    if request.batch != 1:
        words += ["--batch", str(request.batch)]
    if request.min_tps is not None:
        words += ["--min-tps", f"{request.min_tps:g}"]
    if request.max_memory is not None:
        words += ["--max-memory", str(request.max_memory)]
    if request.kv_dtype is not None:
        words += ["--kv-dtype", request.kv_dtype]
    if request.objective != Request().objective:
        words += ["--objective", request.objective]
    for target in request.targets:
        words += ["--target", target]
    return shlex.join(words)
