"""What forms of options have in common: a line each, and what the option under the cursor is about, told below."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.containers import VerticalScroll
from textual.events import DescendantFocus
from textual.widget import Widget
from textual.widgets import Static

from edgeq.tui.widgets.facts import Facts


class OptionForm(VerticalScroll):
    """A form whose fields have ids of `PREFIX` and the option's name, and that has an `about_line` at its end."""

    PREFIX: ClassVar[str]

    def about(self, name: str) -> str:
        """What an option is about, in a sentence; empty: it has none."""
        raise NotImplementedError

    def about_line(self) -> Static:
        line = Static("", classes="about dim", markup=False)
        line.display = False  # until there is something to tell
        return line

    def all_about(self, names: Iterable[tuple[str, str]]) -> Facts:
        """What every option is about, for screens with room for all of it; `names` are labels and options."""
        told = Facts("", classes="abouts")
        told.show((label, about) for label, name in names if (about := self.about(name)))
        return told

    def focus_first(self) -> None:
        """Go to the first field."""
        self.query("Select, Input").first().focus()

    def option_of(self, widget: Widget) -> str:
        """The name of the option that a field is of."""
        return str(widget.id).removeprefix(self.PREFIX)

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """For those who have no mouse to hover with."""
        for line in self.query(".about").results(Static):
            line.update(self.about(self.option_of(event.widget)))
            line.display = bool(self.about(self.option_of(event.widget)))
