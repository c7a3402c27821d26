"""A Textual screen as an SVG of its cells.

Textual's own picture leaves lines and plots to a font from the web. Here they are drawn, so that they meet from cell to
cell, and each run of text is kept to its cells, whichever font the reader has.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import groupby

from rich.color import Color
from rich.style import Style
from textual.app import App

W, H = 10, 20  # a cell, px
_FONT = "'DejaVu Sans Mono', Menlo, Consolas, monospace"
_ADVANCE = 0.60205  # em a character, of the first of these fonts
_BASELINE = 15
_THICK = 2  # px; a thin line has one
# Lines from the middle of a cell: to the left, right, top, bottom; 1 thin, 2 thick.
_ARMS = {
    "─": (1, 1, 0, 0), "━": (2, 2, 0, 0), "│": (0, 0, 1, 1), "┃": (0, 0, 2, 2), "┏": (0, 2, 0, 2), "┓": (2, 0, 0, 2),
    "┗": (0, 2, 2, 0), "┛": (2, 0, 2, 0), "┣": (0, 2, 2, 2), "┫": (2, 0, 2, 2), "┳": (2, 2, 0, 2), "┻": (2, 2, 2, 0),
    "╋": (2, 2, 2, 2), "╸": (2, 0, 0, 0), "╺": (0, 2, 0, 0), "╶": (0, 1, 0, 0), "╴": (1, 0, 0, 0),
    "┌": (0, 1, 0, 1), "┐": (1, 0, 0, 1), "└": (0, 1, 1, 0), "┘": (1, 0, 1, 0), "├": (0, 1, 1, 1), "┤": (1, 0, 1, 1),
    "┬": (1, 1, 0, 1), "┴": (1, 1, 1, 0), "┼": (1, 1, 1, 1),
}  # fmt: skip
_ARCS = {"╭": (1, 1), "╮": (-1, 1), "╰": (1, -1), "╯": (-1, -1)}  # to which side, and up or down
# The eight dots of a braille cell, lowest bit first: column, row.
_DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))


def terminal_svg(app: App[None]) -> str:
    """What the application shows now."""
    plain = app.screen.styles.background.hex.lower()[:7]
    grounds, marks = [], []
    for row, strip in enumerate(app.screen._compositor.render_strips(app.size)):
        column = 0
        for segment in strip:
            ink, ground = _colours(segment.style or Style())
            if ground != plain:
                at = f'x="{column * W}" y="{row * H}" width="{segment.cell_length * W}" height="{H}"'
                grounds.append(f'<rect {at} fill="{ground}"/>')
            marks.extend(_drawn(segment.text, column, row, ink, segment.style or Style()))
            column += segment.cell_length
    width, height = (n * cell for n, cell in zip(app.size, (W, H), strict=True))
    style = f"text {{ font-family: {_FONT}; font-size: {W / _ADVANCE:.3f}px; white-space: pre; }}"
    style += " rect { shape-rendering: crispEdges; }"
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} xml:space="preserve">'
    back = f'<rect width="{width}" height="{height}" fill="{plain}"/>'
    return "\n".join((head, f"<style>{style}</style>", back, *_by_ink(grounds), *_by_ink(marks), "</svg>", ""))


def _by_ink(marks: list[str]) -> Iterator[str]:
    """Neighbours of one colour in one group, which says it once."""
    for ink, group in groupby(marks, lambda mark: mark.rpartition(' fill="')[2].partition('"')[0]):
        yield f'<g fill="{ink}">'
        yield from (mark.replace(f' fill="{ink}"', "") for mark in group)
        yield "</g>"


def _colours(style: Style) -> tuple[str, str]:
    """Ink and ground."""

    def hexed(color: Color | None) -> str:
        return "#808080" if color is None else str(color.get_truecolor().hex)

    ink, ground = hexed(style.color), hexed(style.bgcolor)
    return (ground, ink) if style.reverse else (ink, ground)


def _drawn(text: str, column: int, row: int, ink: str, style: Style) -> Iterator[str]:
    """The marks of one run: words as text, whatever fills its cell as a shape."""
    word, start = "", 0
    for n, char in enumerate((*text, "")):
        if char and ord(char) < 0x2000 and (char != " " or word):
            start = start if word else n
            word += char
            continue
        if word.strip():
            yield _text(word.rstrip(), column + start, row, ink, style)
        word = ""
        if char.strip():
            yield _shape(char, (column + n) * W, row * H, ink) or _text(char, column + n, row, ink, style)


def _text(text: str, column: int, row: int, ink: str, style: Style) -> str:
    more = ' font-weight="bold"' if style.bold else ""
    more += ' font-style="italic"' if style.italic else ""
    more += ' text-decoration="underline"' if style.underline else ""
    at = f'x="{column * W}" y="{row * H + _BASELINE}" textLength="{len(text) * W}"'
    return f'<text {at}{more} fill="{ink}">{escape(text)}</text>'


def _shape(char: str, x: float, y: float, ink: str) -> str:
    """A line, a block or dots in the cell whose corner is at x, y; empty for a character of text."""
    middle, centre = x + W / 2, y + H / 2
    if char in _ARMS:
        return "".join(_arm(side, weight, x, y, ink) for side, weight in enumerate(_ARMS[char]) if weight)
    if char in _ARCS:
        side, down = _ARCS[char]
        path = f"M{middle:g} {centre + down * H / 2:g}Q{middle:g} {centre:g} {middle + side * W / 2:g} {centre:g}"
        return f'<path d="{path}" stroke="{ink}" stroke-width="1" fill="none"/>'
    code = ord(char)
    if 0x2800 <= code <= 0x28FF:
        lit = (dot for bit, dot in enumerate(_DOTS) if code & 1 << bit)
        return "".join(
            f'<circle cx="{x + W * (1 + 2 * a) / 4:g}" cy="{y + H * (1 + 2 * b) / 8:g}" r="1.5" fill="{ink}"/>'
            for a, b in lit
        )
    return _block(code, x, y, ink)


def _arm(side: int, weight: int, x: float, y: float, ink: str) -> str:
    """From the middle of a cell to one of its sides."""
    a, b, long, half = x + W // 2 - 1, y + H // 2 - 1, (W, H)[side // 2], ((W, H)[side // 2]) // 2
    if side < 2:
        left, width = (x, half + weight - 1) if side == 0 else (a, long - half + 1)
        return f'<rect x="{left:g}" y="{b:g}" width="{width}" height="{weight}" fill="{ink}"/>'
    top, height = (y, half + weight - 1) if side == 2 else (b, long - half + 1)
    return f'<rect x="{a:g}" y="{top:g}" width="{weight}" height="{height}" fill="{ink}"/>'


def _block(code: int, x: float, y: float, ink: str) -> str:
    """One of the block elements: a part of the cell, or all of it half-lit."""
    part = {0x2580: (0.0, 0.0, 1.0, 0.5), 0x2590: (0.5, 0.0, 0.5, 1.0), 0x2594: (0.0, 0.0, 1.0, 0.125),
            0x2595: (0.875, 0.0, 0.125, 1.0)}.get(code)  # fmt: skip
    if 0x2581 <= code <= 0x2588:
        n = (code - 0x2580) / 8
        part = (0.0, 1 - n, 1.0, n)
    elif 0x2589 <= code <= 0x258F:
        part = (0.0, 0.0, (0x2590 - code) / 8, 1.0)
    lit = {0x2591: 0.25, 0x2592: 0.5, 0x2593: 0.75}.get(code)
    if part is None and lit is None:
        return ""
    a, b, c, d = part or (0.0, 0.0, 1.0, 1.0)
    faint = "" if lit is None else f' fill-opacity="{lit}"'
    at = f'x="{x + a * W:g}" y="{y + b * H:g}" width="{c * W:g}" height="{d * H:g}"'
    return f'<rect {at}{faint} fill="{ink}"/>'
