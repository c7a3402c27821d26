"""The picture of a checkpoint: error and bits of every matrix as two heat maps side by side, in SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from edgeq.amounts import amount
from edgeq.checkpoint.store import Checkpoint
from edgeq.errors import EdgeqError
from edgeq.files import write_bytes
from edgeq.model.tensors import parameters
from edgeq.quantize.heat import Heat, axes, dark, heats
from edgeq.quantize.layer_rows import LayerRow

CELL_WIDTH, CELL_HEIGHT = 46, 17
LEFT, TOP, GAP = 44, 100, 40
FONT = "font-family='Helvetica, Arial, sans-serif'"


def write_picture(path: Path, checkpoint: Checkpoint, rows: Sequence[LayerRow]) -> None:
    """Write an .svg, or a .png where the package cairosvg is installed.

    Raises:
        EdgeqError: another kind of file, nothing to draw, cairosvg missing, or the place can't be written.
    """
    kind = path.suffix.lower()
    if kind not in {".svg", ".png"}:
        raise EdgeqError("a picture is an .svg or a .png", where=path)
    svg = picture(checkpoint, rows).encode()
    if kind == ".svg":
        write_bytes(path, svg)
        return
    try:
        import cairosvg
    except (ImportError, OSError) as error:  # an OSError: without the cairo library
        raise EdgeqError(
            "a .png needs the package cairosvg", hint="pip install cairosvg, or ask for an .svg"
        ) from error
    write_bytes(path, cairosvg.svg2png(bytestring=svg, scale=2))


def picture(checkpoint: Checkpoint, rows: Sequence[LayerRow]) -> str:
    """An SVG document."""
    panels = heats(rows)
    if not panels:
        raise EdgeqError("the checkpoint has no quantized layers to draw", where=checkpoint.path)
    layers, roles = axes(rows)
    fallen = {(r.layer, r.role): r.fallback for r in rows if r.fallback and r.layer is not None}
    panel_width = LEFT + CELL_WIDTH * len(roles)
    width = max(460, GAP + len(panels) * (panel_width + GAP))
    height = TOP + CELL_HEIGHT * len(layers) + 58
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
        f"viewBox='0 0 {width} {height}' {FONT}>",
        f"<rect width='{width}' height='{height}' fill='#ffffff'/>",
        _text(GAP, 30, checkpoint.spec.name, size=16, weight="bold"),
        _text(GAP, 50, _subtitle(checkpoint), size=12, colour="#555555"),
    ]
    for i, heat in enumerate(panels):
        parts += _panel(heat, GAP + i * (panel_width + GAP), layers, roles, fallen)
    if fallen:
        count = f"{len(fallen)} of {len(panels[0].cells)} matrices fell back to something simpler (marked)"
        parts.append(_text(GAP, height - 10, count, size=11, colour="#555555"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(
    heat: Heat,
    x: int,
    layers: Sequence[int],
    roles: Sequence[str],
    fallen: dict[tuple[int, str], str],
) -> list[str]:
    """Title, the names of roles and layers, the cells, and the scale below them."""
    left, bottom = x + LEFT, TOP + CELL_HEIGHT * len(layers)
    found = [_text(left, TOP - 24, heat.title, size=13, weight="bold")]
    found += [
        _text(left + CELL_WIDTH * (i + 0.5), TOP - 7, role, size=11, anchor="middle") for i, role in enumerate(roles)
    ]
    for row, layer in enumerate(layers):
        y = TOP + CELL_HEIGHT * row
        found.append(_text(left - 8, y + 12, str(layer), size=11, anchor="end", colour="#555555"))
        for column, role in enumerate(roles):
            value = heat.cells.get((layer, role))
            if value is not None:
                why = fallen.get((layer, role))
                found.append(_cell(heat, value, left + CELL_WIDTH * column, y, f"layers.{layer}.{role}", why))
    return found + _scale(heat, left, bottom + 12, CELL_WIDTH * len(roles))


def _cell(heat: Heat, value: float, x: int, y: int, name: str, fallback: str | None) -> str:
    colour = heat.colour(value)
    tip = escape(f"{name}: {value:.4g}" + (f" ({fallback})" if fallback else ""))
    letters = "#ffffff" if dark(colour) else "#222222"
    mark = "" if fallback is None else f"<circle cx='{x + 6}' cy='{y + 8}' r='2.2' fill='{letters}'/>"
    return (
        f"<g><title>{tip}</title>"
        f"<rect x='{x}' y='{y}' width='{CELL_WIDTH - 1}' height='{CELL_HEIGHT - 1}' fill='{_hex(colour)}'/>"
        f"{_text(x + CELL_WIDTH / 2, y + 12, heat.show(value), size=10, anchor='middle', colour=letters)}{mark}</g>"
    )


def _scale(heat: Heat, x: int, y: int, width: int) -> list[str]:
    """The colours from the lowest value to the highest."""
    steps = 24
    step = width / steps
    values = [heat.low + (heat.high - heat.low) * i / (steps - 1) for i in range(steps)]
    if heat.logarithmic:
        values = [heat.low * (heat.high / heat.low) ** (i / (steps - 1)) for i in range(steps)]
    found = [
        f"<rect x='{x + step * i:.1f}' y='{y}' width='{step + 0.5:.1f}' height='8' fill='{_hex(heat.colour(v))}'/>"
        for i, v in enumerate(values)
    ]
    ends = (x, heat.low, "start"), (x + width, heat.high, "end")
    return found + [_text(at, y + 21, heat.show(v), size=10, anchor=a, colour="#555555") for at, v, a in ends]


def _subtitle(checkpoint: Checkpoint) -> str:
    bits = checkpoint.weight_bytes * 8 / parameters(checkpoint.spec)
    return f"{checkpoint.scheme.name}, {amount(checkpoint.total_bytes)}, {bits:.2f} bits a weight"


def _text(
    x: float, y: float, words: str, *, size: int, weight: str = "normal", anchor: str = "start", colour: str = "#222222"
) -> str:
    style = f"font-size='{size}' font-weight='{weight}' text-anchor='{anchor}' fill='{colour}'"
    return f"<text x='{x:g}' y='{y:g}' {style}>{escape(words)}</text>"


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
