"""When nothing fits: what would have to give, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from edgeq.device.spec import Device
from edgeq.estimate.ceiling import ceiling
from edgeq.estimate.footprint import footprint
from edgeq.estimate.kv import KV_DTYPES
from edgeq.estimate.pool import pool
from edgeq.estimate.prior import prior_decode
from edgeq.model.spec import ModelSpec
from edgeq.plan.candidate import Candidate
from edgeq.plan.candidates import not_yet
from edgeq.plan.offload import both
from edgeq.plan.rank import USABLE_KLD
from edgeq.plan.request import SHORT, Request
from edgeq.plan.targets import SAME_WIDTH, TARGETS
from edgeq.plan.words import gb, tokens
from edgeq.scheme import Scheme, named_scheme

LEAST_CONTEXT = 256
_NO_WAYS = ("No ", "Fewer sequences than", "More memory")  # what does not help, or can't be had by asking otherwise
_FLAGS = ("--context ", "--batch ", "--kv-dtype ")


def relief(
    device: Device, spec: ModelSpec, request: Request, rejected: Sequence[Candidate], smaller: Iterable[ModelSpec]
) -> list[str]:
    """Sentences, each a way out with its figure; the least change first. `smaller` are models to fall back to."""
    possible = [c for c in rejected if c.capacity > 0]
    if not possible:
        return ["Choose another --target: none of those asked for runs on this device."]
    sensible = [c for c in possible if c.quality.kld <= USABLE_KLD and _runs_fast(c, device)] or possible
    out: list[str] = []
    if all(c.footprint.total > c.capacity for c in possible):
        out += _memory(device, spec, request, sensible, possible)
    else:
        out += _speed(request, possible)
    model = _smaller_model(device, request, {c.target for c in possible}, smaller)
    return [*out, model] if model else out


def nearest_way(sentences: Sequence[str]) -> str | None:
    """The first of `relief` that a person can take by asking for something else; all in words, without options."""
    return next((in_words(s) for s in sentences if not s.startswith(_NO_WAYS)), None)


def in_words(sentence: str) -> str:
    """`Shorter context: 4096 fits with ...`: for those who don't type options."""
    for flag in _FLAGS:
        sentence = sentence.replace(flag, "")
    return sentence


def _runs_fast(c: Candidate, device: Device) -> bool:
    return TARGETS[c.target].support(c.scheme, device).level == "fast"


def _memory(
    device: Device, spec: ModelSpec, request: Request, sensible: Sequence[Candidate], possible: Sequence[Candidate]
) -> Iterator[str]:
    """Ways to need less, then how much more would do. Schemes worth running come before any that fits."""
    cache = next((c for c in (_smaller_cache(spec, request, c) for c in _nearest(sensible)) if c), None)
    if cache:
        yield cache
    context = _shorter(device, spec, request, sensible) or _shorter(device, spec, request, possible)
    yield context or "No context is short enough: the weights alone are too large in every scheme."
    if request.batch > 1:
        yield _fewer(device, spec, request, sensible)
    yield _more(device, request, sensible)


def _nearest(candidates: Sequence[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda c: c.footprint.total - c.capacity)


def _smaller_cache(spec: ModelSpec, request: Request, c: Candidate) -> str | None:
    """The widest cache type of the runtime that makes the candidate fit."""
    for dtype in KV_DTYPES[KV_DTYPES.index(c.footprint.kv_dtype) + 1 :]:
        if dtype in TARGETS[c.target].kv_dtypes and dtype != SAME_WIDTH.get(c.footprint.kv_dtype):
            need = footprint(spec, c.scheme, c.target, request.context, request.batch, dtype).total
            if need <= c.capacity:
                cost = " (a cache of 4 bits costs quality)" if dtype in {"int4", "q4_0"} else ""
                return f"Smaller cache: --kv-dtype {dtype} fits with {c.scheme.name} on {c.target}{cost}."
    return None


def _room(device: Device, spec: ModelSpec, request: Request, c: Candidate) -> int:
    """Bytes that certainly hold it: with split layers, what both hold less a layer that may find no place whole."""
    together = both(device, c.target, request.max_memory)
    if together is None or together <= c.capacity:
        return c.capacity
    layer = (c.footprint.weights + c.footprint.kv_cache) // max(1, spec.n_layers)
    return max(c.capacity, together - layer - c.footprint.activations)


def _shorter(device: Device, spec: ModelSpec, request: Request, candidates: Sequence[Candidate]) -> str | None:
    def longest_of(c: Candidate) -> int:
        room = _room(device, spec, request, c)
        return longest_context(spec, c.scheme, c.target, request, c.footprint.kv_dtype, room)

    found = [(longest_of(c), -c.quality.kld, c) for c in candidates]
    longest, _, best = max(found, key=lambda x: x[:2])
    if longest < LEAST_CONTEXT:
        return None
    loss = f", with {best.quality.words} loss of quality" if best.quality.kld > USABLE_KLD else ""
    return (
        f"Shorter context: --context {longest} fits with {best.scheme.name} on {best.target}{loss} "
        f"(asked: {tokens(request.context)})."
    )


def _fewer(device: Device, spec: ModelSpec, request: Request, candidates: Sequence[Candidate]) -> str:
    def most(c: Candidate) -> int:
        def need(batch: int) -> int:
            return footprint(spec, c.scheme, c.target, request.context, batch, c.footprint.kv_dtype).total

        return _largest(need, request.batch, _room(device, spec, request, c))

    best = max(candidates, key=most)
    if not most(best):
        return f"Fewer sequences than {request.batch} would not be enough: not one of this length fits."
    return (
        f"Fewer sequences: --batch {most(best)} fits with {best.scheme.name} on {best.target} (asked: {request.batch})."
    )


def _more(device: Device, request: Request, candidates: Sequence[Candidate]) -> str:
    """The least memory that is missing; where llama.cpp splits layers, the processor's counts too."""

    def has(c: Candidate) -> int:
        return both(device, c.target, request.max_memory) or c.capacity

    nearest = min(candidates, key=lambda c: c.footprint.total - has(c))
    room = has(nearest)
    where = " of card and processor together" if room != nearest.capacity else ""
    return (
        f"More memory: {gb(nearest.footprint.total - room)} more would do for {nearest.scheme.name} on "
        f"{nearest.target} (needs {gb(nearest.footprint.total)}, has {gb(room)}{where})."
    )


def _speed(request: Request, candidates: Sequence[Candidate]) -> list[str]:
    """The fastest of those worth running; of any, where there is none."""
    fitting = [(c.expected.tps, c) for c in candidates if (c.footprint.total <= c.capacity or c.offload) and c.expected]
    usable = [x for x in fitting if x[1].quality.kld <= USABLE_KLD] or fitting
    if not usable or request.min_tps is None:
        return []
    tps, fastest = max(usable, key=lambda x: x[0])
    out = [
        f"Less speed: {fastest.scheme.name} on {fastest.target} gives about {tps / request.batch:.1f} tok/s "
        f"(asked: {request.min_tps:g})."
    ]
    short = _quick_context(fastest, request, request.min_tps)
    if short:
        way = f"{fastest.scheme.name} on {fastest.target}"
        out.append(f"Shorter context: up to about --context {short} {way} is quick enough.")
    return out


def _quick_context(c: Candidate, request: Request, min_tps: float) -> int | None:
    """The longest context that meets `min_tps`: a token's time grows linearly from a short prompt's to a full one's."""
    if c.expected is None or c.expected_short is None or request.context <= SHORT:
        return None
    at_first, full = request.batch / c.expected_short.tps, request.batch / c.expected.tps
    if not at_first < 1 / min_tps < full:
        return None
    longest = SHORT + (request.context - SHORT) * (1 / min_tps - at_first) / (full - at_first)
    return int(longest) // LEAST_CONTEXT * LEAST_CONTEXT


def longest_context(
    spec: ModelSpec, scheme: Scheme, target: str, request: Request, kv_dtype: str, capacity: int
) -> int:
    """The longest context that fits, rounded down to 256 tokens; 0 when none does. The footprint grows with it."""

    def need(steps: int) -> int:
        return footprint(spec, scheme, target, steps * LEAST_CONTEXT, request.batch, kv_dtype).total

    return _largest(need, max(request.context, 1) // LEAST_CONTEXT, capacity) * LEAST_CONTEXT


def _largest(need: Callable[[int], int], most: int, capacity: int) -> int:
    """The largest n up to `most` with need(n) <= capacity, by bisection; 0 when there is none."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if need(middle) <= capacity else (low, middle - 1)
    return low


def _smaller_model(
    device: Device, request: Request, targets: Collection[str], smaller: Iterable[ModelSpec]
) -> str | None:
    """The largest model of the list that fits in 4 bits on one of the targets: where edgeq can make it, else where it
    is fastest."""
    for spec in smaller:
        found = [way for target in sorted(targets) if (way := _way(device, request, spec, target))]
        if found:
            _, _, scheme, target, need = max(found, key=lambda x: x[:2])
            return f"Smaller model: {spec.name} needs {gb(need)} with {scheme} on {target}."
    return None


def _way(device: Device, request: Request, spec: ModelSpec, target: str) -> tuple[bool, float, str, str, int] | None:
    """(edgeq can make it, tokens/s of a sequence, scheme, target, bytes) where it fits and is quick enough."""
    scheme = named_scheme("gguf-q4_k_m" if target.startswith("llamacpp") else "rtn-int4-g32")
    memory = pool(device, target)
    if memory is None or TARGETS[target].support(scheme, device).level != "fast":
        return None
    kv, context = TARGETS[target].kv_dtype(request.kv_dtype), min(request.context, spec.max_positions)
    need = footprint(spec, scheme, target, context, request.batch, kv).total
    if need > min(memory.capacity, request.max_memory or memory.capacity):
        return None
    bound = ceiling(device, spec, scheme, target, context, request.batch, kv).decode_tps
    tps = prior_decode(spec, scheme, target, bound).tps / request.batch if bound else 0.0
    if request.min_tps is not None and tps < request.min_tps:
        return None
    return not_yet(spec, scheme, target) is None, tps, scheme.name, target, need
