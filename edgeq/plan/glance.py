"""A model on a device at a glance: at 4, 8 and 16 bits, what it takes, whether it fits and how fast it can be.

The plan's own judgement of a few of its schemes; a full plan weighs some dozens more.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.amounts import count
from edgeq.device.spec import Device
from edgeq.estimate.pool import pool
from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import active_parameters, parameters
from edgeq.plan.candidate import Candidate
from edgeq.plan.expected import Experience
from edgeq.plan.plan import judge
from edgeq.plan.request import Request
from edgeq.plan.targets import TARGETS, unavailable
from edgeq.plan.words import gb, speed, tokens
from edgeq.scheme import Scheme, named_scheme

# Bits -> schemes that stand for the width, each for the runtimes that take it.
WIDTHS: dict[int, tuple[str, ...]] = {
    4: ("gguf-q4_k_m", "rtn-int4-g32"),
    8: ("gguf-q8_0", "rtn-int8-g32"),
    16: ("gguf-f16", "fp16"),
}
_WORDS = {"fits": "✓ fits", "tight": "✓ tight", "offload": "✓ split", "rejected": "✗ too big"}


@dataclass(frozen=True, slots=True)
class Glance:
    """Attributes:
    widths: bits -> the best candidate of that width; none where no runtime of the device takes one.
    """

    spec: ModelSpec
    parameters: int
    active_parameters: int
    request: Request
    widths: dict[int, Candidate]

    @property
    def fits(self) -> bool:
        """Some width does."""
        return any(c.fits for c in self.widths.values())


def glance(
    device: Device,
    spec: ModelSpec,
    request: Request,
    experience: Experience | None = None,
    bits: tuple[int, ...] = tuple(WIDTHS),
) -> Glance:
    """Judge a few schemes; some hundredths of a second.

    Args:
        experience: what was measured on this device; by default the local store's.
        bits: the widths that are asked for.
    """
    known = Experience(device) if experience is None else experience
    found: dict[int, Candidate] = {}
    for width in bits:
        judged = [
            made
            for name in WIDTHS[width]
            for target in TARGETS
            if (made := _judged(device, spec, request, named_scheme(name), target, known)) is not None
        ]
        if judged:
            found[width] = min(judged, key=_order)
    return Glance(spec, parameters(spec), active_parameters(spec), request, found)


def _judged(
    device: Device, spec: ModelSpec, request: Request, scheme: Scheme, target: str, known: Experience
) -> Candidate | None:
    one = TARGETS[target]
    if unavailable(one, device) or (scheme.gguf_type is not None) != target.startswith("llamacpp"):
        return None
    memory = pool(device, target)
    made = None if memory is None else judge(device, spec, request, one, scheme, memory, known)
    refused = made is not None and made.short not in ("", "too large", "too slow")
    return None if refused else made


def _order(c: Candidate) -> tuple[bool, bool, float, int, str]:
    """Best first: what fits whole, then what fits, then by speed, then by size."""
    reached = c.expected.tps if c.expected is not None else 0.0
    return (c.verdict == "offload" or not c.fits, not c.fits, -reached, c.footprint.total, c.target)


def rows(seen: Glance) -> list[tuple[str, str, str, str]]:
    """Bits, weights, whether it fits, most tokens/s: a line each width."""
    return [
        (str(width), gb(c.footprint.weights), _WORDS[c.verdict], speed(c.decode_ceiling))
        for width, c in seen.widths.items()
    ]


def sentence(seen: Glance) -> str:
    """What a person wants to know first: whether edgeq can make it at all, then whether it fits."""
    return f"Only to plan, edgeq can't make it. {_fit(seen)}" if seen.spec.estimated else _fit(seen)


def _fit(seen: Glance) -> str:
    best = next(((width, c) for width, c in seen.widths.items() if c.fits), None)
    if best is None:
        least = next(iter(seen.widths.items()), None)
        if least is None:
            return "No runtime of this device takes it."
        width, c = least
        return f"Too big for this device: at {width} bits it needs {gb(c.footprint.total)} and {gb(c.room)} are free."
    width, c = best
    most = "" if c.decode_ceiling is None else f", and writes at most {speed(c.decode_ceiling)}"
    return f"At {width} bits it takes {gb(c.footprint.total)} of the {gb(c.room)} that are free{most}."


def size_words(seen: Glance) -> str:
    """`120K parameters`, `8.03B parameters`, `30.5B parameters, 3.35B active`."""
    total = f"{count(seen.parameters)} parameters"
    if seen.active_parameters < 0.95 * seen.parameters:
        return f"{total}, {count(seen.active_parameters)} active"
    return total


def facts(seen: Glance) -> list[tuple[str, str]]:
    """What else there is to say of the model on this device."""
    spec = seen.spec
    said = [
        ("size", size_words(seen)),
        ("shape", f"{spec.family}, {spec.n_layers} layers"),
        ("made for", f"{tokens(spec.max_positions)}"),
    ]
    first = next(iter(seen.widths.values()), None)
    if first is not None:
        said.append(("KV cache", f"{gb(first.footprint.kv_cache)} for {tokens(seen.request.context)}"))
    return said
