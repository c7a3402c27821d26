"""Super-blocks without minima (Q3_K, Q6_K, IQ4_XS): a weight is `d * s * level`, with signed scale codes `s`.

Levels are `-2**(bits-1) ... 2**(bits-1) - 1` or a codebook's, one more or further out on one side: so a group's scale
may have either sign. The steps are those of `superblock_affine`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.quantize.grids.superblock_layout import Laid

Floats = npt.NDArray[np.float32]
SUPERS = 4  # super-scales tried in earnest
REFITS = 2
RATIOS = 32  # scales tried for a group alone, of either sign


@dataclass(slots=True)
class Found:
    """d float32 (S,) in units; codes of scales as float32 (M,) and the errors they leave."""

    d: Floats
    scale: Floats
    error: Floats


class SignedSearch:
    """Attributes: `code_low`, `code_top`: the range of a scale code; `levels`: float32, ascending."""

    def __init__(self, b: Laid, levels: Floats, scale_bits: int, *, uniform: bool) -> None:
        self.b, self.levels, self.uniform = b, levels, uniform
        self.low, self.top = levels[0], levels[-1]
        self.code_top = np.float32((1 << (scale_bits - 1)) - 1)
        self.code_low = -self.code_top - 1
        self._x, self._q = np.empty_like(b.x), np.empty_like(b.x)
        self._nearest = None if uniform else _Nearest(levels, b.x.shape)

    def run(self) -> Found:
        best = self.min_max()
        scale, squares = self.groups_alone()
        wide = max(10, int(self.code_top) // 5)
        for d in self.candidates(scale, squares):
            self.adopt(best, self.near(d, scale, wide // 5))
        self.adopt(best, self.near(best.d, scale, wide, both_signs=True))
        for _ in range(REFITS):
            self.adopt(best, self.refit(best))
        return best

    def min_max(self) -> Found:
        """What spans every group's range, as codes of the largest scale."""
        scale = self.spanning(1)
        d = self.b.stored(self.b.per_super(scale).max(0) / self.code_top)
        step = self.b.per_group(d)
        found = self.nothing(d)
        self.try_(found, np.maximum(self.code(scale, step), 1), step)
        return found

    def spanning(self, sign: int) -> Floats:
        """The least scale (a magnitude) whose levels, taken times `sign`, reach over a group's range."""
        x = self.b.x
        low, high = np.minimum(x.min(0), 0), np.maximum(x.max(0), 0)
        if sign < 0:
            low, high = -high, -low
        found: Floats = np.maximum(low / self.low, high / self.top)
        return found

    def nothing(self, d: Floats) -> Found:
        """All scale codes zero."""
        x = self.b.x
        return Found(d, np.zeros(x.shape[1], np.float32), self.b.dot(x, x))

    def nearest(self) -> None:
        """`_q`: the level next to each of `_x`."""
        if self._nearest is None:
            np.rint(self._x, out=self._q)
            np.clip(self._q, self.low, self.top, out=self._q)
        else:
            self._nearest(self._x, self._q)

    def groups_alone(self) -> tuple[Floats, Floats]:
        """Each group's own best scale, signed, and sum(h level level) of its codes: float32 (M,) each."""
        b = self.b
        shape = b.x.shape[1]
        best, squares = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        gain = np.zeros(shape, np.float32)
        for sign in (1, -1):
            span = self.spanning(sign)
            base = np.float32(sign) / np.where(span > 0, span, 1)
            for ratio in self.ratios():
                self.fit(base * ratio, best, squares, gain)
        for _ in range(2):
            self.fit(np.divide(1, best, out=np.zeros_like(best), where=best != 0), best, squares, gain)
        return best, squares

    def ratios(self) -> Floats:
        """Of the inverse of the spanning scale: above 1 clips, which pays the more the fewer levels there are."""
        low, high = {8: (0.85, 2.5), 16: (0.9, 1.8)}.get(len(self.levels), (0.97, 1.3))
        return np.linspace(low, high, RATIOS, dtype=np.float32)

    def fit(self, inverse: Floats, best: Floats, squares: Floats, gain: Floats) -> None:
        """Codes of the steps `1 / inverse`, then the least-squares scale; kept where best so far."""
        np.multiply(self.b.x, inverse, out=self._x)
        self.nearest()
        square, cross = self.b.dot(self._q, self._q), self.b.dot(self._q, self.b.x)
        scale = np.divide(cross, square, out=np.zeros_like(cross), where=square > 0)
        here = scale * cross
        better = here > gain
        for kept, value in ((gain, here), (best, scale), (squares, square)):
            np.copyto(kept, value, where=better)

    def code(self, scale: Floats, step: Floats) -> Floats:
        found: Floats = np.clip(np.rint(scale / step), self.code_low, self.code_top)
        return found

    def candidates(self, scale: Floats, squares: Floats) -> list[Floats]:
        """Super-scales on which the groups' scales come out as near to whole codes as possible: `SUPERS` of (S,)."""
        b = self.b
        at = np.abs(b.per_super(scale)).argmax(0)
        largest = np.take_along_axis(b.per_super(scale), at[None], axis=0)[0]
        steps, costs = [], []
        for c in range(int(self.code_top) // 2 + 1, int(self.code_top) + 2):
            # The code furthest out is a negative one: it asks for the other sign.
            sign = np.copysign(np.float32(1), -largest) if c > self.code_top else np.ones_like(largest)
            step = b.stored(np.abs(largest) / np.float32(c)) * sign
            spread = b.per_group(step)
            off = scale - spread * self.code(scale, spread)
            steps.append(step)
            costs.append(b.per_super(squares * off * off).sum(0))
        order = np.argsort(np.array(costs), axis=0)[:SUPERS]
        return list(np.take_along_axis(np.array(steps), order, axis=0))

    def near(self, d: Floats, scale: Floats, reach: int, *, both_signs: bool = False) -> Found:
        """The best codes no further than `reach` from the group's own scale."""
        found = self.nothing(d)
        step = self.b.per_group(d)
        centre = self.code(scale, step)
        sign = np.where(centre < 0, np.float32(-1), np.float32(1))
        for offset in range(-reach, reach + 1):
            code = sign * np.maximum(np.abs(centre) + offset, 1)
            self.try_(found, code, step)
            if both_signs:
                self.try_(found, -code, step)
        return found

    def try_(self, found: Found, code: Floats, step: Floats) -> None:
        """Take codes (not zero) of scales wherever they are better than the best so far."""
        code = np.clip(code, self.code_low, self.code_top)
        scale = code * step
        np.multiply(self.b.x, 1 / scale, out=self._x)
        self.nearest()
        np.subtract(self._q, self._x, out=self._q)
        error = self.b.dot(self._q, self._q) * (scale * scale)
        better = error < found.error
        np.copyto(found.error, error, where=better)
        np.copyto(found.scale, code, where=better)

    def refit(self, best: Found) -> Found:
        """`d` by least squares given all codes, then the codes around them."""
        b = self.b
        scale = best.scale * b.per_group(best.d)
        np.multiply(b.x, np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0), out=self._x)
        self.nearest()
        above = b.per_super(best.scale * b.dot(self._q, b.x)).sum(0)
        below = b.per_super(best.scale * best.scale * b.dot(self._q, self._q)).sum(0)
        d = np.divide(above, below, out=best.d.copy(), where=below > 0)
        d = b.stored(np.abs(d)) * np.copysign(np.float32(1), best.d)
        found = self.nothing(d)
        step = b.per_group(d)
        for offset in (-1, 0, 1):
            code = best.scale + np.float32(offset)
            self.try_(found, np.where(code == 0, 1, code), step)
        return found

    def adopt(self, best: Found, other: Found) -> None:
        """Take `other` for the super-blocks where it is better."""
        b = self.b
        better = b.per_super(other.error).sum(0) < b.per_super(best.error).sum(0)
        groups = np.tile(better, b.groups)
        np.copyto(best.d, other.d, where=better)
        np.copyto(best.scale, other.scale, where=groups)
        np.copyto(best.error, other.error, where=groups)


class _Nearest:
    """The nearest entry of a table of whole numbers, through a table of half steps."""

    def __init__(self, levels: Floats, shape: tuple[int, ...]) -> None:
        middles = levels[1:] + levels[:-1]  # in half steps, whole numbers too
        self.first = np.float32(np.floor(middles[0]) - 1)
        self.last = np.float32(np.ceil(middles[-1]) + 1)
        halves = np.arange(self.first, self.last + 1)
        # Values in [k, k + 1) half steps lie on one side of every middle.
        self.table = levels[np.searchsorted(middles, halves, side="right")].astype(np.float32)
        self.size = np.float32(len(self.table) - 1)
        self._index = np.empty(shape, np.intp)

    def __call__(self, x: Floats, out: Floats) -> None:
        np.multiply(x, np.float32(2), out=out)
        np.subtract(out, self.first, out=out)
        np.clip(out, 0, self.size, out=out)
        np.copyto(self._index, out, casting="unsafe")
        np.take(self.table, self._index, out=out, mode="clip")
