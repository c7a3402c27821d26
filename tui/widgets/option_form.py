"""What forms of options have in common: a line each, and what the option under the cursor is about, told below."""

from __future__ import annotations

from typing import ClassVar

from textual.containers import VerticalScroll
from textual.events import DescendantFocus
from textual.widget import Widget
from textual.widgets import Static


class OptionForm(VerticalScroll):
    """A form whose fields have ids of `PREFIX` and the option's name, and that has an `about_line` at its end."""

    PREFIX: ClassVar[str]

    def about(self, name: str) -> str:
        """What an option is about, in a sentence; empty: it has none."""
        raise NotImplementedError

    def about_line(self) -> Static:
        return Static("", classes="about dim", markup=False)

    def option_of(self, widget: Widget) -> str:
        """The name of the option that a field is of."""
        return str(widget.id).removeprefix(self.PREFIX)

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """For those who have no mouse to hover with."""
        for line in self.query(".about").results(Static):
            line.update(self.about(self.option_of(event.widget)))
