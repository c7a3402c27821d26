"""What was chosen for which device, and what the plan says of it: kept by the journey, or asked anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeq.amounts import count
from edgeq.benchmark import device_key
from edgeq.deliver.delivery import Delivery, Rows
from edgeq.journey import Journey, journeys
from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import parameters
from edgeq.plan.candidate import Candidate
from edgeq.plan.plan import Plan
from edgeq.plan.table import place
from edgeq.plan.words import gb, speed, tokens

OTHERS = 3  # candidates that are named beside the chosen one
CONTEXT = 8192  # tokens, where nobody asked for another context


@dataclass(frozen=True, slots=True)
class Choice:
    """Attributes:
    device, model: rows of a name and what is said of it.
    chosen: likewise of what was chosen.
    others: the best of the other candidates, with their figures.
    """

    device: Rows
    model: Rows
    chosen: Rows
    others: Rows


def choice_of(found: Delivery, spec: ModelSpec) -> Choice:
    """Plans anew for the device and request of the journey that made it, else for this machine.

    Raises:
        EdgeqError: no such device.
    """
    from edgeq.device import load_device
    from edgeq.plan import Request, make_plan

    way = journey_of(found.place)
    device = load_device("auto" if way is None else way.device)
    asked = (None if way is None else way.request) or Request(context=min(CONTEXT, spec.max_positions))
    plan = make_plan(device, spec, asked)
    scheme, target = _names(found, way)
    same = [c for c in plan.candidates if c.scheme.name == scheme and c.target.split("/")[0] == target.split("/")[0]]
    chosen = next((c for c in same if c.target == target), next(iter(same), None))
    others = [c for c in plan.candidates if c is not chosen][:OTHERS]
    return Choice(
        device=[("device", device_key(device)), ("memory free", gb(device.memory.usable_bytes))],
        model=_model_rows(spec),
        chosen=_chosen_rows(plan, chosen, scheme, target),
        others=[(f"{c.scheme.name} on {c.target}", _figures(c)) for c in others],
    )


def journey_of(place: Path) -> Journey | None:
    """The latest journey that made the artifact."""
    here = place.resolve()
    return next((j for j in journeys() if any(Path(a).resolve() == here for a in j.artifacts)), None)


def _names(found: Delivery, way: Journey | None) -> tuple[str, str]:
    """Scheme and target: of the journey's choice where the artifact is of it."""
    made = found.artifact
    if way is not None and way.scheme == made.scheme and (way.target or "").split("/")[0] == made.runtime:
        return made.scheme, str(way.target)
    return made.scheme, f"{made.runtime}/{made.options.get('device', 'cpu')}"


def _model_rows(spec: ModelSpec) -> Rows:
    shape = f"{spec.n_layers} layers, hidden size {spec.hidden_size:,}, vocabulary {spec.vocab_size:,}"
    return [
        ("model", f"{spec.name} ({spec.family}), {count(parameters(spec))} parameters"),
        ("shape", f"{shape}, made for {tokens(spec.max_positions)}"),
        *([("from", spec.location)] if spec.location else []),
    ]


def _chosen_rows(plan: Plan, chosen: Candidate | None, scheme: str, target: str) -> Rows:
    asked = plan.request
    rows = [
        ("chosen", f"{scheme} on {target}"),
        ("asked for", f"{tokens(asked.context)} of context, {asked.objective}"),
    ]
    if chosen is None:
        return [*rows, ("plan", "it is none of the plan's candidates: other settings, or another device")]
    at = place(plan.candidates, chosen)
    best = ", and recommended" if chosen is plan.recommended else ""
    rows.append(("rank", f"{at} of {len(plan.candidates)} that fit{best}"))
    rows.append(("expected", _figures(chosen)))
    if chosen.expected is not None:
        rows.append(("rests on", f"{chosen.expected.basis}, {chosen.expected.detail}"))
    rows.append(("quality", f"{chosen.quality.words} loss ({chosen.quality.kind}: {chosen.quality.source})"))
    return [*rows, *(("reason", reason) for reason in chosen.reasons)]


def _figures(c: Candidate) -> str:
    fast = speed(None if c.expected is None else c.expected.tps)
    return f"{fast}, {gb(c.footprint.total)} of {gb(c.capacity)} memory, KL divergence {c.quality.kld:.2g}"
