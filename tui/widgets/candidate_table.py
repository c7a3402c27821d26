"""The candidates of a plan, sorted as a person likes, with as many columns as find room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text
from textual import events
from textual.message import Message
from textual.widgets import DataTable

from edgeq.plan.table import Cell, Order, cells

if TYPE_CHECKING:
    from edgeq.plan.candidate import Candidate

ADVISED, CHOSEN, NOT_YET, OUT = "★", "●", "–", "✗"


@dataclass(frozen=True)
class Column:
    """Attributes:
    need: the lower, the sooner it finds room; 0 is always there.
    order: what a click on its head sorts by.
    """

    cell: Cell
    title: str
    need: int
    order: Order | None = None
    number: bool = True


COLUMNS = (
    Column("scheme", "scheme", 0, "scheme", False),
    Column("on", "on", 0, "on", False),
    Column("gb", "GB", 0, "gb"),
    Column("share", "of it", 5),
    Column("tps", "tok/s", 0, "tps"),
    Column("max", "at most", 4, "max"),
    Column("kl", "KL", 1, "kl"),
    Column("loss", "loss", 3, "kl", False),
    Column("verdict", "", 2, "rank", False),
)
_LEAST_VERDICT = 6  # columns: the shortest words


class CandidateTable(DataTable[Text]):
    """Says which candidate is looked at, which is chosen, and which column's head was clicked."""

    class Looked(Message):
        def __init__(self, candidate: Candidate) -> None:
            super().__init__()
            self.candidate = candidate

    class Chosen(Looked):
        """Enter, or a click on the row that is looked at."""

    class Ordered(Message):
        def __init__(self, order: Order) -> None:
            super().__init__()
            self.order = order

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, cursor_type="row", cell_padding=1)
        self._rows: list[Candidate] = []
        self._marks: list[str] = []
        self._order: tuple[Order, bool] = ("rank", False)
        self._drawn: object = None

    def show(
        self, rows: Sequence[Candidate], marks: Sequence[str], order: Order, reverse: bool, look_at: int | None
    ) -> None:
        """Args:
        marks: a sign each.
        look_at: the row to select.
        """
        self._rows, self._marks, self._order = list(rows), list(marks), (order, reverse)
        self._draw(look_at)

    @property
    def looked_at(self) -> Candidate | None:
        return self._rows[self.cursor_row] if 0 <= self.cursor_row < len(self._rows) else None

    def on_resize(self, event: events.Resize) -> None:
        if self._rows and self._layout() != self._drawn:
            self._draw(self.cursor_row)

    def _layout(self) -> list[tuple[Column, int]]:
        """The columns that find room, and how wide."""
        texts = [cells(c) for c in self._rows]
        # A column of its own for the marks, and one for the scroll bar.
        left = self.size.width - self.styles.scrollbar_size_vertical - (1 + 2 * self.cell_padding)
        widths: dict[Cell, int] = {}
        for column in sorted(COLUMNS, key=lambda c: c.need):
            wanted = max(
                [len(column.title) + 1 if column.order else len(column.title), *(len(t[column.cell]) for t in texts)]
            )
            room = left - 2 * self.cell_padding
            if column.cell == "verdict" and wanted > room >= _LEAST_VERDICT:
                wanted = room
            if wanted <= room or column.need == 0:
                widths[column.cell] = wanted
                left -= wanted + 2 * self.cell_padding
        if "verdict" in widths and left > 0:
            longest = max((len(t["verdict"]) for t in texts), default=0)
            widths["verdict"] = min(widths["verdict"] + left, max(longest, _LEAST_VERDICT))
        return [(c, widths[c.cell]) for c in COLUMNS if c.cell in widths]

    def _draw(self, look_at: int | None) -> None:
        layout = self._drawn = self._layout()
        order, reverse = self._order
        self.clear(columns=True)
        self.add_column("", width=1, key="mark")
        for column, width in layout:
            sign = ("↓" if reverse else "↑") if column.order == order and order != "rank" else ""
            if sign and column.order in ("tps", "max"):
                sign = "↑" if reverse else "↓"
            if column.cell == "loss" and any(c.cell == "kl" for c, _ in layout):
                sign = ""
            side = "right" if column.number else "left"
            self.add_column(Text(f"{column.title}{sign}", justify=side), width=width, key=column.cell)  # type: ignore[arg-type]
        for number, (candidate, mark) in enumerate(zip(self._rows, self._marks, strict=True)):
            texts, style = cells(candidate), "" if candidate.fits else "dim"
            row = [Text(mark, style)]
            for column, width in layout:
                text = Text(texts[column.cell], style, justify="right" if column.number else "left", no_wrap=True)
                text.truncate(width, overflow="ellipsis")
                row.append(text)
            self.add_row(*row, key=str(number))
        if look_at is not None and self._rows:
            self.move_cursor(row=min(look_at, len(self._rows) - 1), animate=False)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        if self.looked_at is not None:  # the row that is highlighted by now, not when it was said
            self.post_message(self.Looked(self.looked_at))

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        if self.looked_at is not None:
            self.post_message(self.Chosen(self.looked_at))

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        event.stop()
        order = next((c.order for c in COLUMNS if c.cell == event.column_key.value), "rank")
        self.post_message(self.Ordered(order or "rank"))
