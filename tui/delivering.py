"""The artifacts of a journey, ready to be handed over: what the screen shows of them, got from the core."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    from edgeq.deliver import Delivery
    from edgeq.tui.road import Road

SHORT = ("place", "size", "proof", "proof failed", "verified", "read back", "measured")  # rows for a small screen


@dataclass(frozen=True)
class Item:
    """One artifact; `found` is None where it can't be read, and `problem` says why and the way out."""

    path: str
    found: Delivery | None = None
    rows: tuple[tuple[str, str], ...] = ()
    problem: tuple[str, str] = ("", "")

    @property
    def label(self) -> str:
        runtime = "cannot be read" if self.found is None else self.found.artifact.runtime
        return f"{Path(self.path).name} ({runtime})"

    @property
    def short(self) -> list[tuple[str, str]]:
        return [row for row in self.rows if row[0] in SHORT]


@dataclass(frozen=True)
class Delivering:
    """The latest artifact is first."""

    items: tuple[Item, ...]
    at: int = 0

    @property
    def item(self) -> Item:
        return self.items[self.at]

    def shown(self, at: int) -> Delivering:
        return replace(self, at=at % len(self.items))

    @property
    def sentence(self) -> str:
        """Where the person stands, and what to press."""
        found = self.item.found
        if found is None:
            whole = any(one.found is not None for one in self.items)
            other = "a for another, " if whole else ""
            return f"This artifact can't be delivered. Press {other}5 to export it again."
        if found.verdict == "fail":
            return "Do not hand this over: its proof failed. Press 5 to export it again."
        proved = "ready and proved" if found.verdict else "ready, but not proved"
        return f"Done: {found.artifact.name} is {proved}. Press y to copy the program, w to save a report."


def delivering_of(road: Road) -> Delivering:
    """Blocks."""
    return Delivering(tuple(_item(path) for path in reversed(road.journey.artifacts)))


def report_to(found: Delivery, place: Path) -> Path:
    """Write the report; the place it has. Blocks: every file is compared with its checksum.

    Raises:
        EdgeqError: a file is damaged, or the place can't be written.
    """
    from edgeq.deliver.report import make_report, write_report

    whole = place.expanduser().absolute()
    write_report(make_report(found), whole)
    return whole


def _item(path: str) -> Item:
    from edgeq.deliver import deliver

    try:
        found = deliver(path)
    except EdgeqError as error:
        what = f"{error.what}{f' ({error.where})' if error.where else ''}"
        return Item(path, problem=(what, "Press 5 to export it again"))
    return Item(path, found, told(found))


def told(found: Delivery) -> tuple[tuple[str, str], ...]:
    """Rows of the artifact for the screen: each program says itself what it needs, and measuring is a key away."""
    from edgeq.deliver.delivery import rows

    said = dict.fromkeys(rows(found))
    if found.benchmark is None:
        said = {(name, "not yet: press 6" if name == "measured" else text): None for name, text in said}
    return tuple(row for row in said if row[0] != "needs")
