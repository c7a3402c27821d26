"""A plan as a person looks at it: its rows in some order, what is said of one; got from the core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeq.plan.table import ORDERS, Order, arranged, place
from edgeq.tui.widgets.candidate_table import ADVISED, CHOSEN, NOT_YET, OUT

if TYPE_CHECKING:
    from edgeq.journey import Journey
    from edgeq.plan.candidate import Candidate
    from edgeq.plan.plan import Plan
    from edgeq.tui.road import Road


@dataclass(frozen=True)
class Planning:
    """Attributes:
    targets: that the device can run.
    out: whether the rejected ones are shown, below.
    """

    plan: Plan
    targets: tuple[str, ...]
    order: Order = "rank"
    reverse: bool = False
    out: bool = True

    @property
    def rows(self) -> list[Candidate]:
        fitting = arranged(self.plan.candidates, self.order, reverse=self.reverse)
        shown = self.out or not fitting
        return [*fitting, *(arranged(self.plan.rejected, self.order, reverse=self.reverse) if shown else [])]

    def mark(self, c: Candidate, journey: Journey) -> str:
        if not c.fits:
            return OUT
        if (c.scheme.name, c.target) == (journey.scheme, journey.target):
            return CHOSEN
        if c.not_yet is not None:  # though it be the plan's best
            return NOT_YET
        return ADVISED if c is self.plan.recommended else " "

    def first(self, journey: Journey, last: Candidate | None) -> int | None:
        """The row to look at: the last one's, else the chosen if it fits, else the advised, else the first."""
        rows = self.rows
        fitting = {(c.scheme.name, c.target) for c in self.plan.candidates}
        chosen = (journey.scheme, journey.target)
        names = [(c.scheme.name, c.target) for c in rows]
        best = self.plan.recommended
        for wanted in (
            last and (last.scheme.name, last.target),
            chosen if chosen in fitting else None,
            best and (best.scheme.name, best.target),
        ):
            if wanted in names:
                return names.index(wanted)  # type: ignore[arg-type]
        return 0 if rows else None

    def kept(self, looked: Candidate | None, plan: Plan) -> bool:
        """Whether another plan leaves the look where it is: not at one that it finds to be out, and whoever looks at
        the advised one goes on to."""
        if looked is None or looked is self.plan.recommended or not self.plan.candidates:
            return False
        fitting = {(c.scheme.name, c.target) for c in plan.candidates}
        return not looked.fits or (looked.scheme.name, looked.target) in fitting

    def next_order(self) -> Order:
        return ORDERS[(ORDERS.index(self.order) + 1) % len(ORDERS)]

    @property
    def asked(self) -> str:
        """What the plan is for, in a line."""
        from edgeq.cli.plan_words import asked

        return f"{self.plan.model.name} on {self.plan.device.name}: {asked(self.plan.request)}"

    def verdict(self, c: Candidate) -> str:
        """Why it is in or out; with nothing in, what would have to give; and what to know of the plan."""
        from edgeq.cli.plan_words import verdict
        from edgeq.plan.relief import in_words

        notes = [f"Note: {note}." for note in self.plan.notes]
        give = ["What would have to give:", *(f"- {in_words(s)}" for s in self.plan.relief)] if self.plan.relief else []
        return "\n".join((verdict(self.plan, c), *give, *notes))

    def place(self, c: Candidate) -> str:
        """`number 3 of 39 for balanced`, `out`."""
        if not c.fits:
            return "out"
        at, count = place(self.plan.candidates, c), len(self.plan.candidates)
        return f"{'best' if at == 1 else f'number {at}'} of {count} for {self.plan.request.objective}"

    @property
    def _advice(self) -> str:
        best = self.plan.recommended
        able = best is not None and best.not_yet is None
        return (
            f"{ADVISED} is edgeq's advice."
            if able
            else "Nor any other here: press e to ask otherwise, 2 for another model."
        )

    def guide(self, c: Candidate | None, journey: Journey) -> str:
        plan = self.plan
        if not plan.candidates:
            from edgeq.cli.plan_words import nothing
            from edgeq.plan.relief import nearest_way

            way = nearest_way(plan.relief)
            return f"{nothing(plan)} {f'{way} ' if way else ''}Press e to ask otherwise, 2 for another model."
        if plan.model.estimated:
            return "edgeq can plan this model but not make it: press 2 for another."
        if c is None or not c.fits:
            return f"This one is out. {self._advice}"
        if c.not_yet is not None:
            return f"edgeq can't make this one yet. {self._advice}"
        name = f"{c.scheme.name} on {c.target}"
        if (c.scheme.name, c.target) == (journey.scheme, journey.target):
            return f"{name} is chosen: press enter or n to quantize."
        if c is plan.recommended:
            return f"Press enter to take edgeq's advice: {name}."
        return f"Press enter for {name}. {ADVISED} is advised."


def planning_of(road: Road) -> Planning:
    """The plan for the journey's device and model. Blocks.

    Raises:
        EdgeqError: no such device or model.
    """
    from edgeq.plan.targets import TARGETS, unavailable

    device = road.device()
    targets = tuple(name for name, target in TARGETS.items() if unavailable(target, device) is None)
    return Planning(road.plan(), targets)
