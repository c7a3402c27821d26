"""Heat: numbers as colours, and the grid of layers by roles that the terminal and the picture both show."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeq.quantize.layer_rows import LayerRow

# From light to dark, so that what stands out is what is large, in colour as on grey paper.
WARM = ((255, 247, 222), (254, 196, 96), (240, 110, 55), (178, 24, 60), (84, 8, 60))
COOL = ((240, 247, 252), (170, 209, 232), (88, 160, 208), (30, 100, 170), (12, 44, 98))


@dataclass(frozen=True, slots=True)
class Heat:
    """One quantity over layers and roles.

    Attributes:
        title: what it is.
        cells: (layer, role) -> value.
        low, high: the ends of the colour scale.
        logarithmic: the scale is.
        show: a value in a few characters.
    """

    title: str
    cells: dict[tuple[int, str], float]
    low: float
    high: float
    logarithmic: bool
    palette: tuple[tuple[int, int, int], ...]
    show: Callable[[float], str]

    @property
    def even(self) -> bool:
        """All cells show the same."""
        return len({self.show(v) for v in self.cells.values()}) == 1

    def at(self, value: float) -> float:
        """Where a value lies on the scale, 0 to 1."""
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = (math.log(max(x, 1e-12)) for x in (value, low, high))
        return 0.5 if high <= low else min(1.0, max(0.0, (value - low) / (high - low)))

    def colour(self, value: float) -> tuple[int, int, int]:
        """Red, green, blue, 0 to 255."""
        place = self.at(value) * (len(self.palette) - 1)
        i = min(int(place), len(self.palette) - 2)
        return tuple(  # type: ignore[return-value]
            round(a + (b - a) * (place - i)) for a, b in zip(self.palette[i], self.palette[i + 1], strict=True)
        )


def heats(rows: Sequence[LayerRow]) -> tuple[Heat, ...]:
    """Error and bits of the layers' matrices; none where the checkpoint has no layers that were quantized."""
    inside = [r for r in rows if r.layer is not None]
    if not inside:
        return ()
    judged = any(r.error_after is not None for r in inside)
    title = "output error, %" if judged else "weight error squared, %"
    return (
        _heat(title, inside, lambda r: r.error, True, WARM, percent),
        _heat("bits a weight", inside, lambda r: r.bits, False, COOL, lambda x: f"{x:.2f}"),
    )


def axes(rows: Sequence[LayerRow]) -> tuple[list[int], list[str]]:
    """Layers and roles, in the order of the model."""
    layers = sorted({r.layer for r in rows if r.layer is not None})
    roles = list(dict.fromkeys(r.role for r in rows if r.layer is not None))
    return layers, roles


def percent(share: float) -> str:
    """A share in per cent, in five characters at most: `0.43`, `12`, `4e-03`."""
    value = 100 * share
    if value == 0 or value >= 9.95:
        return f"{value:.0f}"
    return f"{value:#.2g}" if value >= 0.01 else f"{value:.0e}"


def dark(colour: tuple[int, int, int]) -> bool:
    """Whether white letters read better on it (relative luminance, ITU-R BT.709)."""
    red, green, blue = colour
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 140


def _heat(
    title: str,
    rows: Sequence[LayerRow],
    value: Callable[[LayerRow], float],
    logarithmic: bool,
    palette: tuple[tuple[int, int, int], ...],
    show: Callable[[float], str],
) -> Heat:
    cells = {(r.layer, r.role): value(r) for r in rows if r.layer is not None}
    values = [v for v in cells.values() if v > 0] or [1.0]
    low, high = min(values), max(values)
    if not logarithmic:  # whole bits: a twentieth of a bit should not look like the difference between 2 and 8
        low, high = math.floor(low), math.ceil(high)
    return Heat(title, cells, low, high, logarithmic, palette, show)
