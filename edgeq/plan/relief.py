"""When nothing fits: what would have to give, and by how much."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from edgeq.device.spec import Device
from edgeq.estimate.ceiling import ceiling
from edgeq.estimate.footprint import footprint
from edgeq.estimate.pool import pool
from edgeq.estimate.prior import prior_decode
from edgeq.model.spec import ModelSpec
from edgeq.plan.candidate import Candidate
from edgeq.plan.request import Request
from edgeq.plan.targets import TARGETS
from edgeq.plan.words import gb, tokens
from edgeq.scheme import Scheme, named_scheme

LEAST_CONTEXT = 256
_WORST_KLD = 1.0


def relief(
    device: Device, spec: ModelSpec, request: Request, rejected: Sequence[Candidate], smaller: Iterable[ModelSpec]
) -> list[str]:
    """Sentences, each a way out with its figure; the least change first. `smaller` are models to fall back to."""
    usable = [c for c in rejected if c.quality.kld <= _WORST_KLD and c.capacity > 0] or [
        c for c in rejected if c.capacity > 0
    ]
    if not usable:
        return ["Choose another --target: none of those asked for runs on this device."]
    out: list[str] = []
    too_large = [c for c in usable if c.footprint.total > c.capacity]
    if len(too_large) == len(usable):
        out += _memory(spec, request, too_large)
    else:
        out += _speed(request, usable)
    model = _smaller_model(device, request, {c.target for c in rejected}, smaller)
    return [*out, model] if model else out


def _memory(spec: ModelSpec, request: Request, candidates: Sequence[Candidate]) -> list[str]:
    nearest = min(candidates, key=lambda c: c.footprint.total - c.capacity)
    over = nearest.footprint.total - nearest.capacity
    best: tuple[int, Candidate] | None = None
    for c in candidates:
        longest = longest_context(spec, c.scheme, c.target, request, c.footprint.kv_dtype, c.capacity)
        if longest >= LEAST_CONTEXT and (best is None or longest > best[0]):
            best = longest, c
    out = []
    if best is not None:
        longest, c = best
        out.append(
            f"Shorter context: --context {longest} fits with {c.scheme.name} on {c.target} "
            f"(asked: {tokens(request.context)})."
        )
    else:
        out.append("No context is short enough: the weights alone are too large in every scheme.")
    if request.batch > 1:
        out.append(f"Fewer sequences at once than {request.batch}: the cache grows with each.")
    out.append(
        f"More memory: {gb(over)} more would do for {nearest.scheme.name} on {nearest.target} "
        f"(needs {gb(nearest.footprint.total)}, has {gb(nearest.capacity)})."
    )
    return out


def _speed(request: Request, candidates: Sequence[Candidate]) -> list[str]:
    fitting = [c for c in candidates if c.footprint.total <= c.capacity and c.expected]
    if not fitting or request.min_tps is None:
        return []
    fastest = max(fitting, key=lambda c: c.expected.tps if c.expected else 0.0)
    tps = fastest.expected.tps / request.batch if fastest.expected else 0.0
    return [
        f"Less speed: {fastest.scheme.name} on {fastest.target} gives about {tps:.1f} tok/s "
        f"(asked: {request.min_tps:g})."
    ]


def longest_context(
    spec: ModelSpec, scheme: Scheme, target: str, request: Request, kv_dtype: str, capacity: int
) -> int:
    """The longest context that fits, rounded down to 256 tokens; 0 when none does. The footprint grows with it."""
    low, high = 0, max(request.context, 1) // LEAST_CONTEXT
    while low < high:
        middle = (low + high + 1) // 2
        need = footprint(spec, scheme, target, middle * LEAST_CONTEXT, request.batch, kv_dtype).total
        low, high = (middle, high) if need <= capacity else (low, middle - 1)
    return low * LEAST_CONTEXT


def _smaller_model(
    device: Device, request: Request, targets: Collection[str], smaller: Iterable[ModelSpec]
) -> str | None:
    """The largest model of the list that fits in 4 bits on one of the targets, edgeq's own first."""
    target = min(targets, key=lambda t: (not t.startswith("onnxruntime"), t))
    scheme = named_scheme("gguf-q4_k_m" if target.startswith("llamacpp") else "rtn-int4-g32")
    memory = pool(device, target)
    if memory is None:
        return None
    room = min(memory.capacity, request.max_memory or memory.capacity)
    kv = TARGETS[target].kv_dtype(request.kv_dtype)
    for spec in smaller:
        context = min(request.context, spec.max_positions)
        need = footprint(spec, scheme, target, context, request.batch, kv).total
        if need <= room and _quick_enough(device, spec, scheme, target, request, kv):
            return f"Smaller model: {spec.name} needs {gb(need)} with {scheme.name} on {target}."
    return None


def _quick_enough(device: Device, spec: ModelSpec, scheme: Scheme, target: str, request: Request, kv: str) -> bool:
    if request.min_tps is None:
        return True
    context = min(request.context, spec.max_positions)
    bound = ceiling(device, spec, scheme, target, context, request.batch, kv).decode_tps
    if bound is None:
        return False
    return prior_decode(spec, scheme, target, bound).tps / request.batch >= request.min_tps
