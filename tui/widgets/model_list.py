"""The list of models in sections; those that are known to fit the device are marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.widgets import OptionList
from textual.widgets.option_list import Option

if TYPE_CHECKING:
    from edgeq.tui.choosing import Entry, Section

_ORDER: tuple[Section, ...] = ("recent", "here", "known", "sizes", "hub")


class ModelList(OptionList):
    """Attributes:
    marks: ref -> whether it fits, and its size in a word.
    note: on the hub's search, at the end of the list.
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.marks: dict[str, tuple[bool, str]] = {}
        self.note = ""
        self._text = ""
        self._shown: dict[str, Entry] = {}

    @property
    def chosen(self) -> Entry | None:
        """The entry under the cursor."""
        at = self.highlighted
        option = None if at is None else self.get_option_at_index(at)
        return None if option is None or option.id is None else self._shown[option.id]

    def show(self, entries: list[Entry], hub: list[Entry], text: str) -> None:
        """List what has all words of `text` in it; `text` itself may be a model too.

        The cursor stays on its model when no other text is looked for.
        """
        from edgeq.tui.choosing import TITLES, looks_like_a_place, typed

        before = self.chosen if text == self._text else None
        self._text = text
        words = text.lower().split()
        found = [one for one in entries if one.matches(words)]
        own = [typed(text)] if text and (looks_like_a_place(text) or (not found and not hub)) else []
        self._shown, options = {}, []
        sections = [("typed", [one for one in own if all(one.ref != other.ref for other in found)])]
        sections += [(name, [one for one in (*found, *hub) if one.section == name]) for name in _ORDER]
        for name, members in sections:
            if members:
                options.append(Option(TITLES[name], disabled=True))  # type: ignore[index]
                options += [self._option(one) for one in members]
        if self.note:
            options.append(Option(self.note, disabled=True))
        self.clear_options()
        self.add_options(options)
        keep = None if before is None else next((i for i, o in enumerate(options) if o.id == _id(before)), None)
        self.highlighted = keep if keep is not None else next((i for i, o in enumerate(options) if o.id), None)

    def mark(self, marks: dict[str, tuple[bool, str]]) -> None:
        """Mark more of them; lines that are shown are drawn anew."""
        self.marks |= marks
        for option_id, one in self._shown.items():
            if one.ref in marks:
                self.replace_option_prompt(option_id, self._line(one))

    def _option(self, one: Entry) -> Option:
        self._shown[_id(one)] = one
        return Option(self._line(one), id=_id(one))

    def _line(self, one: Entry) -> str:
        fits, size = self.marks.get(one.ref, (None, ""))
        mark = " " if fits is None else "✓" if fits else "✗"
        said = f"{size:6} {one.note}" if size else one.note
        return f"{mark} {one.title:22} {said}".rstrip()


def _id(one: Entry) -> str:
    return f"{one.section}:{one.ref}"
