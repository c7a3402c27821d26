"""Candidates as rows of a table: what each cell says, and the orders a person sorts by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from edgeq.plan.candidate import Candidate
from edgeq.plan.words import gigabytes, kl, rate

Cell = Literal["scheme", "on", "gb", "share", "tps", "max", "kl", "loss", "verdict"]
Order = Literal["rank", "scheme", "on", "gb", "tps", "max", "kl"]
ORDERS: tuple[Order, ...] = get_args(Order)
FALLING = ("tps", "max")  # begin with the highest

_VERDICTS = {"fits": "fits", "tight": "tight", "offload": "split"}


def cells(c: Candidate) -> dict[Cell, str]:
    """A candidate's figures as short texts: memory in GB and of what there is, tokens/s expected and at most with the
    context full, KL divergence and its word, and the verdict: with the reason where it is out or edgeq can't make
    it."""
    return {
        "scheme": c.scheme.name,
        "on": c.target,
        "gb": gigabytes(c.footprint.total),
        "share": f"{c.share:.0%}",
        "tps": rate(c.expected.tps if c.expected else None),
        "max": rate(c.decode_ceiling),
        "kl": kl(c.quality.kld),
        "loss": c.quality.words,
        "verdict": _verdict(c),
    }


def _verdict(c: Candidate) -> str:
    if not c.fits:
        return c.short
    return _VERDICTS[c.verdict] if c.not_yet is None else f"not made: {c.not_yet}"


def arranged(candidates: Sequence[Candidate], order: Order, *, reverse: bool = False) -> list[Candidate]:
    """Sorted: `rank` keeps the plan's order, with what fits and edgeq can't make after what it can; speeds begin with
    the highest, all else with the least. Equal ones keep the plan's order among each other, and unknown speeds come
    last either way."""
    if order == "rank":
        return sorted(reversed(candidates) if reverse else candidates, key=lambda c: c.fits and c.not_yet is not None)
    value = _VALUES[order]
    known = [c for c in candidates if value(c) is not None]
    known.sort(key=lambda c: value(c) or 0, reverse=(order in FALLING) != reverse)  # type: ignore[arg-type, return-value]
    return [*known, *(c for c in candidates if value(c) is None)]


def place(candidates: Sequence[Candidate], c: Candidate) -> int:
    """Where one of a plan's candidates stands in its order, from 1."""
    return arranged(candidates, "rank").index(c) + 1


_VALUES: dict[Order, Callable[[Candidate], float | str | None]] = {
    "scheme": lambda c: c.scheme.name,
    "on": lambda c: c.target,
    "gb": lambda c: c.footprint.total,
    "tps": lambda c: c.expected.tps if c.expected else None,
    "max": lambda c: c.decode_ceiling,
    "kl": lambda c: c.quality.kld,
}
