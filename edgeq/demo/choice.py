"""What the demo is to make: the model that was asked for, and the scheme, from the plan."""

from __future__ import annotations

import os
from pathlib import Path

from edgeq.device.spec import Device
from edgeq.errors import EdgeqError
from edgeq.model.spec import ModelSpec
from edgeq.plan import Candidate, Request, make_plan
from edgeq.plan.candidates import TEXTLESS, not_yet, schemes
from edgeq.scheme import Scheme

TARGET = "onnxruntime/cpu"
CONTEXT = 2048
DEFAULT = "smollm2-135m"


def check_choice(model: str | None, bits: int) -> None:
    """Refuse what no machine could make, before anything is measured, fetched or written.

    Of a local model the headers are read, of one on the hub the configuration.

    Raises:
        EdgeqError: there is no such model, or edgeq can't read it; no scheme of that many bits can be made of it.
    """
    spec = _architecture(DEFAULT if model is None else model, weights=model is not None)
    same = [s for s in schemes() if _wanted(s, bits)]
    reasons = [not_yet(spec, s, TARGET) for s in same]
    if None not in reasons:
        raise _nothing_with(bits, reasons[0] if reasons else None)


def choose(device: Device, spec: ModelSpec, bits: int, begun: str | None = None) -> Candidate:
    """The plan's best candidate with that many bits that edgeq can make in minutes: without calibration text.

    Args:
        begun: name of the scheme that an earlier run chose. It stays the choice: what that run measured may have
            changed the ranking, and its work is to be taken up.

    Raises:
        EdgeqError: there is none; with the plan's reason.
    """
    plan = make_plan(device, spec, Request(context=min(CONTEXT, spec.max_positions), targets=(TARGET,)))
    same = [c for c in plan.candidates if _wanted(c.scheme, bits)]
    made = [c for c in same if c.not_yet is None]
    if made:
        return next((c for c in made if c.scheme.name == begun), made[0])
    out = [c for c in plan.rejected if _wanted(c.scheme, bits) and c.reasons]
    raise _nothing_with(bits, same[0].not_yet if same else out[0].reasons[0] if out else None)


def _wanted(scheme: Scheme, bits: int) -> bool:
    return scheme.linear.bits == bits and scheme.linear.kind == "int" and scheme.method in TEXTLESS


def _architecture(ref: str, weights: bool) -> ModelSpec:
    from edgeq.model.read import read_model
    from edgeq.model.weights import open_source

    if os.path.exists(Path(ref).expanduser()):  # noqa: PTH110  (Path.exists fails on a name too long)
        return open_source(ref).spec
    spec = read_model(ref)
    if weights and spec.origin == "class":
        open_source(ref, spec)  # which says that a size class has none
    return spec


def _nothing_with(bits: int, why: str | None) -> EdgeqError:
    return EdgeqError(
        f"nothing with {bits} bits can be made for {TARGET}: {why or 'no scheme has so many'}",
        hint="Try --bits 4 or --bits 8",
    )
