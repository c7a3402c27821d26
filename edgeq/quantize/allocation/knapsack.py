"""The multiple-choice knapsack, solved exactly: one choice for every unit, least loss within a budget of bytes.

States are the Pareto frontier of (bytes, loss) over the units decided so far. A state goes when another is no larger
and no worse, or when even the Lagrangian bound of what is left can't bring it below the best complete answer known
(Kellerer, Pferschy, Pisinger: Knapsack Problems, 2004, chapter 11). Both rules keep an optimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
BISECTIONS = 60
# Beyond so many states the frontier is thinned; the answer is then within `Solution.gap` of the optimum.
MOST_STATES = 1 << 20


@dataclass(frozen=True, slots=True)
class Unit:
    """What must take one choice together.

    Attributes:
        costs: int64 bytes of each choice.
        losses: float64 of each choice, not negative.
    """

    costs: tuple[int, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Solution:
    """Attributes:
    choices: index of each unit's choice.
    cost, loss: their sums.
    bound: no answer within the budget has a smaller loss than this (Lagrangian).
    exact: the choices are proved optimal.
    """

    choices: tuple[int, ...]
    cost: int
    loss: float
    bound: float
    exact: bool


def solve(units: Sequence[Unit], budget: int) -> Solution:
    """The choices with the least total loss whose total cost is within `budget`.

    Raises:
        EdgeqError: even the cheapest choices are over the budget.
    """
    cheapest = sum(min(u.costs) for u in units)
    if cheapest > budget:
        raise EdgeqError(f"the budget of {budget:,} bytes is below the least possible, {cheapest:,}")
    multiplier, bound = _dual(units, budget)
    best = _greedy(units, budget, multiplier)
    return _frontier(units, budget, multiplier, bound, best)


def _dual(units: Sequence[Unit], budget: int) -> tuple[float, float]:
    """The Lagrange multiplier with the largest lower bound, and that bound."""

    def bound_at(multiplier: float) -> tuple[float, int]:
        value, cost = -multiplier * budget, 0
        for u in units:
            score = [loss + multiplier * c for loss, c in zip(u.losses, u.costs, strict=True)]
            i = int(np.argmin(score))
            value += score[i]
            cost += u.costs[i]
        return value, cost

    low, high = 0.0, 1e-12
    value, cost = bound_at(low)
    if cost <= budget:
        return 0.0, value
    while bound_at(high)[1] > budget and high < 1e300:
        high *= 4
    best = (0.0, value)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        value, cost = bound_at(middle)
        if value > best[1]:
            best = (middle, value)
        low, high = (middle, high) if cost > budget else (low, middle)
    return best


def _greedy(units: Sequence[Unit], budget: int, multiplier: float) -> list[int]:
    """A complete answer: the multiplier's choices, made cheaper where they are over, then dearer where room is left."""
    chosen = [
        min(range(len(u.costs)), key=lambda i, u=u: (u.losses[i] + multiplier * u.costs[i], u.costs[i]))  # type: ignore[misc]
        for u in units
    ]
    cost = sum(u.costs[i] for u, i in zip(units, chosen, strict=True))
    while cost > budget:
        k, i = min(
            ((k, i) for k, u in enumerate(units) for i in range(len(u.costs)) if u.costs[i] < u.costs[chosen[k]]),
            key=lambda x: (
                (units[x[0]].losses[x[1]] - units[x[0]].losses[chosen[x[0]]])
                / (units[x[0]].costs[chosen[x[0]]] - units[x[0]].costs[x[1]])
            ),
        )
        cost += units[k].costs[i] - units[k].costs[chosen[k]]
        chosen[k] = i
    while True:
        gains = [
            (u.losses[chosen[k]] - u.losses[i], k, i)
            for k, u in enumerate(units)
            for i in range(len(u.costs))
            if u.losses[i] < u.losses[chosen[k]] and cost + u.costs[i] - u.costs[chosen[k]] <= budget
        ]
        if not gains:
            return chosen
        _, k, i = max(gains)
        cost += units[k].costs[i] - units[k].costs[chosen[k]]
        chosen[k] = i


def _frontier(units: Sequence[Unit], budget: int, multiplier: float, bound: float, incumbent: list[int]) -> Solution:
    least_cost, least_score = _rest(units, multiplier)
    known = sum(u.losses[i] for u, i in zip(units, incumbent, strict=True))
    slack = 1e-12 * max(1.0, abs(known))  # rounding of sums must not prune an equal answer
    costs, losses = np.zeros(1, np.int64), np.zeros(1)
    trail: list[tuple[Ints, Ints]] = []
    exact = True
    for k, unit in enumerate(units):
        many = len(costs)
        wide = (costs[:, None] + np.array(unit.costs, np.int64)).ravel()
        worse = (losses[:, None] + np.array(unit.losses)).ravel()
        hopeful = wide + least_cost[k + 1] <= budget
        hopeful &= worse + least_score[k + 1] - multiplier * (budget - wide) <= known + slack
        kept = _undominated(wide, worse, np.flatnonzero(hopeful))
        if len(kept) > MOST_STATES:
            kept = kept[:: -(-len(kept) // MOST_STATES)]
            exact = False
        trail.append((kept // len(unit.costs), kept % len(unit.costs)))
        costs, losses = wide[kept], worse[kept]
        if not len(kept):  # nothing is better than the incumbent
            break
        assert len(kept) <= many * len(unit.costs)
    if not len(losses) or float(losses.min()) >= known:
        cost = sum(u.costs[i] for u, i in zip(units, incumbent, strict=True))
        return Solution(tuple(incumbent), cost, known, bound, exact)
    at = int(np.argmin(losses))
    cost, loss = int(costs[at]), float(losses[at])
    choices: list[int] = []
    for before, choice in reversed(trail):
        choices.append(int(choice[at]))
        at = int(before[at])
    return Solution(tuple(reversed(choices)), cost, loss, bound, exact)


def _rest(units: Sequence[Unit], multiplier: float) -> tuple[list[int], list[float]]:
    """Of the units from k on: their least cost, and their least loss + multiplier * cost."""
    cost, score = [0], [0.0]
    for u in reversed(units):
        cost.append(cost[-1] + min(u.costs))
        score.append(score[-1] + min(loss + multiplier * c for loss, c in zip(u.losses, u.costs, strict=True)))
    return cost[::-1], score[::-1]


def _undominated(costs: Ints, losses: Doubles, among: Ints) -> Ints:
    """Indices of the states that no other is both no dearer and no worse than, by ascending cost."""
    order = among[np.lexsort((losses[among], costs[among]))]
    best = np.minimum.accumulate(losses[order])
    first = np.r_[True, losses[order][1:] < best[:-1]] if len(order) else np.zeros(0, bool)
    found: Ints = order[first]
    return found
