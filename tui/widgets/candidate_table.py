"""The candidates of a plan, sorted as a person likes, with as many columns as find room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import DataTable

from edgeq.plan.table import FALLING, Cell, Order, cells

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
    Column("verdict", "verdict", 2, "rank", False),
)
_VERDICT, _LEAST_VERDICT = 9, 5  # columns: `too large`, `split`; what is left over goes there too


class CandidateTable(DataTable[Text]):
    """Says which candidate is looked at, which is chosen, and which column's head was clicked."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "Choose")]

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
        pads = 2 * self.cell_padding
        left = self.size.width - self.styles.scrollbar_size_vertical - (1 + pads)  # the marks have a column
        widths: dict[Cell, int] = {}
        for column in sorted(COLUMNS, key=lambda c: c.need):
            longest = max((len(t[column.cell]) for t in texts), default=0)
            wanted = max(longest, len(column.title) + (column.order is not None))
            if column.cell == "verdict":
                wanted = min(_VERDICT, left - pads) if left - pads >= _LEAST_VERDICT else wanted
            if wanted + pads <= left or column.need == 0:
                widths[column.cell] = wanted
                left -= wanted + pads
        if "verdict" in widths:
            longest = max((len(t["verdict"]) for t in texts), default=0)
            widths["verdict"] = max(widths["verdict"], min(widths["verdict"] + left, longest))
        return [(c, widths[c.cell]) for c in COLUMNS if c.cell in widths]

    def _draw(self, look_at: int | None) -> None:
        self._drawn = layout = self._layout()
        self.clear(columns=True)
        self.add_column("", width=1, key="mark")
        for column, width in layout:
            title = f"{column.title}{self._sign(column)}"
            head = Text(
                title if len(title) <= width else "", justify="right" if column.number else "left", no_wrap=True
            )
            self.add_column(head, width=width, key=column.cell)
        for number, (candidate, mark) in enumerate(zip(self._rows, self._marks, strict=True)):
            texts, style = cells(candidate), "" if candidate.fits and candidate.not_yet is None else "dim"
            row = [Text(mark, style)]
            for column, width in layout:
                text = Text(texts[column.cell], style, justify="right" if column.number else "left", no_wrap=True)
                text.truncate(width, overflow="ellipsis")
                row.append(text)
            self.add_row(*row, key=str(number))
        if look_at is not None and self._rows:
            self.move_cursor(row=min(look_at, len(self._rows) - 1), animate=False)
        if self.looked_at is not None:  # another plan's, though the row be the same
            self.post_message(self.Looked(self.looked_at))

    def _sign(self, column: Column) -> str:
        """Beside the head that rows are sorted by: whether they rise or fall."""
        order, reverse = self._order
        if order == "rank" or column.order != order or column.cell == "loss":
            return ""
        return "↓" if (order in FALLING) != reverse else "↑"

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
        order = next((c.order for c in COLUMNS if c.cell == event.column_key.value), None)
        self.post_message(self.Ordered(order or "rank"))
