"""The plan: every scheme on every target of a device, judged, ranked, with the next command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edgeq.device.spec import Device
from edgeq.estimate.ceiling import ceiling
from edgeq.estimate.footprint import footprint
from edgeq.estimate.formats import bits_per_weight
from edgeq.estimate.needs import quantization_needs
from edgeq.estimate.pool import Pool, pool
from edgeq.estimate.prior import Expected
from edgeq.estimate.speed import BASIS, expected_prefill
from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import active_parameters, parameters
from edgeq.plan.candidate import Candidate, Verdict
from edgeq.plan.candidates import TARGETS as TARGET_EXPORTERS
from edgeq.plan.candidates import not_yet, schemes
from edgeq.plan.expected import Experience
from edgeq.plan.offload import both, offload
from edgeq.plan.quality import expected_quality
from edgeq.plan.rank import USABLE_KLD, order
from edgeq.plan.relief import relief
from edgeq.plan.request import SHORT, Request
from edgeq.plan.targets import SAME_WIDTH, TARGETS, Support, Target, on_phone, unavailable
from edgeq.plan.words import gb
from edgeq.scheme import Scheme

PATIENCE_HOURS = 12.0  # a night: what takes longer to make is not recommended
SLOW = 0.25  # of the expected speed, where a target has to unpack a scheme's weights at every use; assumed
_SMALLEST = ("smollm2-360m", "smollm2-135m")
TIGHT = 0.9  # above this share of the memory, other programs will feel it


@dataclass(frozen=True, slots=True)
class Plan:
    """Attributes:
    candidates: those that fit, best first.
    rejected: those that don't, with their reasons; the nearest to fitting first.
    absent: targets that this device can't run at all, with the reason.
    recommended: the best candidate edgeq can make today, within `PATIENCE_HOURS` if any, else the best of all; None
        when nothing fits.
    next_commands: what to type next, in order; empty when edgeq can't make any candidate.
    relief: with no candidate, what would have to give.
    notes: what to know about the plan as a whole.
    """

    device: Device
    model: ModelSpec
    parameters: int
    active_parameters: int
    request: Request
    candidates: tuple[Candidate, ...]
    rejected: tuple[Candidate, ...]
    absent: tuple[tuple[str, str], ...]
    recommended: Candidate | None
    next_commands: tuple[str, ...]
    relief: tuple[str, ...]
    notes: tuple[str, ...]


def make_plan(device: Device, spec: ModelSpec, request: Request, experience: Experience | None = None) -> Plan:
    """Judge every scheme on every target.

    Args:
        experience: what was measured on this device; by default the local store's.
    """
    known = Experience(device) if experience is None else experience
    wanted = [t for name, t in TARGETS.items() if not request.targets or name in request.targets]
    missing = {t.name: unavailable(t, device) for t in wanted}
    judged = [c for t in wanted if missing[t.name] is None for c in _judge_target(device, spec, request, t, known)]
    fitting = order([c for c in judged if c.fits], request.objective, request.batch)
    rejected = sorted((c for c in judged if not c.fits), key=lambda c: c.footprint.total - c.capacity)
    best = _recommended(fitting)
    return Plan(
        device=device,
        model=spec,
        parameters=parameters(spec),
        active_parameters=active_parameters(spec),
        request=request,
        candidates=tuple(fitting),
        rejected=tuple(rejected),
        absent=tuple((name, why) for name, why in missing.items() if why is not None),
        recommended=best,
        next_commands=next_commands(device, spec, best) if best else (),
        relief=() if fitting else tuple(relief(device, spec, request, rejected, _smaller(spec))),
        notes=tuple(_notes(device, spec, request, fitting, best)),
    )


def _recommended(fitting: list[Candidate]) -> Candidate | None:
    """The best that edgeq can make, and make before the user has given up; else what it could with patience."""
    made = [c for c in fitting if c.not_yet is None]
    soon = [c for c in made if (c.footprint.quantization.hours or 0.0) <= PATIENCE_HOURS]
    return next(iter((*soon, *made, *fitting)), None)


def _judge_target(
    device: Device, spec: ModelSpec, request: Request, target: Target, known: Experience
) -> Iterator[Candidate]:
    memory = pool(device, target.name)
    if memory is None:
        return
    for scheme in schemes():
        if (scheme.gguf_type is not None) == target.name.startswith("llamacpp"):  # no word on what makes no sense
            yield judge(device, spec, request, target, scheme, memory, known)


def judge(
    device: Device,
    spec: ModelSpec,
    request: Request,
    target: Target,
    scheme: Scheme,
    memory: Pool,
    known: Experience,
) -> Candidate:
    kv = target.kv_dtype(request.kv_dtype)
    need = footprint(spec, scheme, target.name, request.context, request.batch, kv)
    host = pool(device, "onnxruntime/cpu")
    need = replace(need, quantization=quantization_needs(spec, scheme, host.floating if host else None))
    bound = ceiling(device, spec, scheme, target.name, request.context, request.batch, kv)
    at_first = min(SHORT, request.context)
    short = ceiling(device, spec, scheme, target.name, at_first, request.batch, kv)
    candidate = Candidate(
        scheme=scheme,
        target=target.name,
        verdict="fits",
        footprint=need,
        capacity=min(memory.capacity, request.max_memory or memory.capacity),
        ceiling=bound,
        expected=known.decode(spec, scheme, target.name, request.context, request.batch, bound.decode_tps, kv),
        expected_short=known.decode(spec, scheme, target.name, at_first, request.batch, short.decode_tps, kv),
        quality=expected_quality(spec, scheme),
        bits_per_weight=bits_per_weight(spec, scheme, target.name),
        not_yet=not_yet(spec, scheme, target.name),
        expected_prompt=_prompt(device, spec, scheme, target.name, bound.prompt) if request.batch == 1 else None,
    )
    support = target.support(scheme, device)
    placed = _offloaded(candidate, device, spec, request, known)
    if support.level == "slow":
        placed = replace(placed, expected=_slowed(placed.expected), expected_short=_slowed(placed.expected_short))
    return _verdict(placed, support, request, both(device, target.name, request.max_memory))


def _prompt(device: Device, spec: ModelSpec, scheme: Scheme, target: str, tokens: int) -> Expected | None:
    """What the runtime was measured to do here; of a prompt that was not, the ceiling says enough."""
    found = expected_prefill(device, spec, scheme, target, prompt=tokens)
    return found if found is not None and found.basis == BASIS else None


def _slowed(expected: Expected | None) -> Expected | None:
    """Kernels that unpack weights before they multiply move several times the bytes; what was timed shows that."""
    if expected is None or expected.basis in ("measured here", BASIS):
        return expected
    return replace(expected, tps=SLOW * expected.tps, detail=f"{expected.detail}; a quarter: slow kernels")


def _offloaded(c: Candidate, device: Device, spec: ModelSpec, request: Request, known: Experience) -> Candidate:
    """Where the card is too small for all of it: part of the layers there, the rest on the processor."""
    if c.footprint.total <= c.capacity or (request.max_memory and c.footprint.total > request.max_memory):
        return c
    part = offload(device, spec, c.scheme, c.target, c.footprint, request.context, request.batch, c.capacity)
    if part is None:
        return c
    kv = c.footprint.kv_dtype
    expected = known.decode(spec, c.scheme, c.target, request.context, request.batch, part.decode_tps, kv)
    return replace(c, verdict="offload", offload=part, expected=expected, expected_short=None)


def _verdict(c: Candidate, support: Support, request: Request, both_hold: int | None) -> Candidate:
    """Args:
    both_hold: bytes of card and processor together, where llama.cpp can split the layers.
    """
    reasons: list[str] = []
    short = ""
    total = c.footprint.total
    if support.level == "refused":
        short = support.reason
        reasons.append(support.reason)
    if total > c.capacity and c.offload is None:
        reasons.append(_too_large(total, c.capacity, both_hold))
        short = short or "too large"
    slow = _too_slow(c, request)
    if slow:
        reasons.append(slow)
        short = short or "too slow"
    if reasons:
        return replace(c, verdict="rejected", reasons=tuple(reasons), short=short)
    return replace(c, verdict=_grade(c), reasons=tuple(_remarks(c, request, support.reason)))


def _too_large(total: int, capacity: int, both_hold: int | None) -> str:
    if both_hold is not None and both_hold > capacity and total > both_hold:
        return (
            f"needs {gb(total)}, {gb(total - both_hold)} more than the {gb(both_hold)} of card and processor together"
        )
    return f"needs {gb(total)}, {gb(total - capacity)} more than the {gb(capacity)} there is"


def _too_slow(c: Candidate, request: Request) -> str | None:
    if request.min_tps is None or c.expected is None:
        return None
    each = c.expected.tps / request.batch
    if each >= request.min_tps:
        return None
    return f"about {each:.1f} tok/s expected, {request.min_tps:g} wanted"


def _grade(c: Candidate) -> Verdict:
    if c.offload:
        return "offload"
    return "tight" if c.footprint.total > TIGHT * c.capacity else "fits"


def _remarks(c: Candidate, request: Request, slow: str) -> Iterator[str]:
    if slow:
        yield f"runs slowly: {slow}"
    if c.offload:
        yield f"{c.offload.layers} of {c.offload.of} layers fit the card, the rest runs on the processor"
    if c.quality.kld > USABLE_KLD:
        yield f"{c.quality.words} loss of quality: expected KL divergence {c.quality.kld:.2f}"
    if request.kv_dtype and c.footprint.kv_dtype not in {request.kv_dtype, SAME_WIDTH.get(request.kv_dtype)}:
        yield f"the runtime keeps its cache in {c.footprint.kv_dtype}, not {request.kv_dtype}"
    if request.min_tps is not None and c.expected is None:
        yield "its speed is unknown, so --min-tps is not checked"


def next_commands(device: Device, spec: ModelSpec, best: Candidate) -> tuple[str, ...]:
    """The commands that make `best` and measure it; empty when edgeq can't. A phone does not run `edgeq bench`."""
    if best.not_yet is not None:
        return ()
    model, (to, options) = source(spec), export_options(best)
    folder = shlex.quote(f"{model.rstrip('/').rsplit('/', 1)[-1].removesuffix('.gguf')}-{best.scheme.name}")
    export = f"edgeq export {folder}" if to == "onnx" else f"edgeq export {folder} --to {to}"
    if options:
        export += f" --kv-dtype {options['kv_dtype']}"
    make = (f"edgeq quantize {shlex.quote(model)} {' '.join(_options(best.scheme))} -o {folder}", export)
    return make if on_phone(device) else (*make, f"edgeq bench {folder}-{to}")


def export_options(best: Candidate) -> tuple[str | None, dict[str, str]]:
    """The exporter that writes for a candidate's target, and its options where they are not the defaults."""
    to, kv = TARGET_EXPORTERS.get(best.target), best.footprint.kv_dtype
    if to in (None, "gguf") or kv == TARGETS[best.target].kv_dtypes[0]:  # llama.cpp's is chosen when it is opened
        return to, {}
    return to, {"kv_dtype": kv}


def _options(scheme: Scheme) -> Iterator[str]:
    """Of `edgeq quantize`, for this scheme."""
    grid = scheme.linear
    if scheme.gguf_type is not None:
        yield f"--grid gguf-{scheme.gguf_type.lower()}"
        return
    if scheme.method != "rtn":
        yield f"--method {scheme.method}"
    yield f"--bits {grid.bits} --group-size {grid.group_size}"
    if grid.symmetric:
        yield "--symmetric"


def source(spec: ModelSpec) -> str:
    """Where the weights come from: the folder or id read, or the hub id that a short name or size class stands for."""
    if spec.origin != "class":
        return spec.location or spec.name
    from edgeq.model import catalog

    classes = {k.lower(): v for k, v in catalog.size_classes().items()}
    name = classes.get(spec.name.lower(), spec.name.lower())
    return next((m.hub for m in catalog.known_models() if m.name == name), spec.name)


def _smaller(spec: ModelSpec) -> Iterator[ModelSpec]:
    """Reference models below this one, largest first; below them all the smallest that are known by name."""
    from edgeq.model import catalog

    found = [m for m in map(catalog.find, (*catalog.size_classes(), *_SMALLEST)) if m is not None]
    below = [m for m in found if parameters(m) < parameters(spec)]
    yield from sorted(below, key=parameters, reverse=True)


def _notes(
    device: Device, spec: ModelSpec, request: Request, fitting: Sequence[Candidate], best: Candidate | None
) -> Iterator[str]:
    if request.context > spec.max_positions:
        yield (
            f"--context {request.context:,} is beyond the {spec.max_positions:,} tokens this model was made for: "
            "expect it to lose the thread"
        )
    if spec.origin == "gguf" and spec.source_dtype.upper() not in {"F32", "F16", "BF16"}:
        yield (
            f"this file's weights are quantized already ({spec.source_dtype}): "
            "the loss given here comes on top of theirs"
        )
    if best is not None and _guessed(best) and not all(_guessed(c) for c in fitting):
        yield (
            f"the speed of {best.target} is a guess from other machines, that of others was measured here: "
            "`edgeq profile` measures every runtime that is installed"
        )
    yield from spec.estimated
    yield from device.warnings


def _guessed(c: Candidate) -> bool:
    return c.expected is None or c.expected.basis == "prior"
