"""Some paragraphs with `code` and **terms**, drawn in one piece: Textual's Markdown makes widgets of each."""

from __future__ import annotations

import re

from textual.content import Content
from textual.widgets import Static

_MARKED = re.compile(r"\*\*(.+?)\*\*|`(.+?)`")
_TERM, _CODE = "bold", "bold $accent"  # a theme's colour, which is looked up when it is drawn


class Prose(Static):
    """Text that `prose` reads."""

    def __init__(self, text: str, *, id: str | None = None) -> None:
        super().__init__(prose(text), id=id)


def prose(text: str) -> Content:
    """Paragraphs as they are written in a source file: an empty line parts two, other ends of lines are spaces."""
    paragraphs = [" ".join(part.split()) for part in text.strip().split("\n\n")]
    return Content("\n\n").join([_paragraph(p) for p in paragraphs])


def _paragraph(text: str) -> Content:
    parts: list[Content | str | tuple[str, str]] = []
    end = 0
    for found in _MARKED.finditer(text):
        parts += [text[end : found.start()], (found[1], _TERM) if found[1] is not None else (found[2], _CODE)]
        end = found.end()
    return Content.assemble(*parts, text[end:])
