"""Super-blocks with minima (Q2_K, Q4_K, Q5_K): a weight is `d * s * code - dmin * m`, all of it not negative.

1. Each group alone: codes under many scales and ranges, each followed by the least-squares scale and minimum.
2. Super-scales under which the groups' scales lie near whole codes, by the quadratic model of a group's error around
   its least squares, and for each the `dmin` that suits the minima; the few best are tried in earnest.
3. In earnest: all codes near a group's own scale and minimum, each judged by rounding the weights anew.
4. With all codes known, `d` and `dmin` by least squares over the super-block, then 3 again around the best codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.quantize.grids.superblock_layout import Laid

Floats = npt.NDArray[np.float32]
SUPERS = 4  # super-scales tried in earnest
REFITS = 2
CLIPPED = (1.0, 0.94, 0.88, 0.82, 0.76, 0.7)  # a group alone: parts of its lower end, and for each of these
SHIFTS = np.linspace(-0.9, 2.5, 12, dtype=np.float32)  # steps more than its range is long: the rest is clipped


@dataclass(slots=True)
class Free:
    """Each group's own best: scale, minimum, and the sums of its codes, sum(h q q) and sum(h q): float32 (M,)."""

    scale: Floats
    minimum: Floats
    squares: Floats
    codes: Floats


@dataclass(slots=True)
class Found:
    """d, dmin float32 (S,) in units; codes as float32 (M,) and the errors they leave."""

    d: Floats
    dmin: Floats
    scale: Floats
    minimum: Floats
    error: Floats


class AffineSearch:
    """Attributes: `top`, largest code of a weight; `code_top`, largest code of a scale or minimum."""

    def __init__(self, b: Laid, top: int, code_top: int) -> None:
        self.b = b
        self.top, self.code_top = np.float32(top), np.float32(code_top)
        self.weight = b.weight()
        self.sum = b.total(b.x)
        self._scaled, self._q, self._r = np.empty_like(b.x), np.empty_like(b.x), np.empty_like(b.x)

    def run(self) -> Found:
        best = self.min_max()
        free = self.groups_alone()
        for d in self.super_scales(free):
            self.adopt(best, self.near(d, self.super_minimum(free, d), free, 1, 1))
        self.adopt(best, self.near(best.d, best.dmin, free, 4 if self.code_top < 16 else 10, 3))
        for _ in range(REFITS):
            self.adopt(best, self.refit(best))
        return best

    def min_max(self) -> Found:
        """What spans every group's range, as codes of the largest scale and minimum."""
        b = self.b
        low = np.minimum(b.x.min(0), 0)
        scale = (np.maximum(b.x.max(0), low) - low) / self.top
        d = b.stored(b.per_super(scale).max(0) / self.code_top)
        dmin = b.stored(b.per_super(-low).max(0) / self.code_top)
        found = Found(d, dmin, self.code(scale, b.per_group(d)), self.code(-low, b.per_group(dmin)), scale)
        found.error = self.error(found.scale * b.per_group(d), found.minimum * b.per_group(dmin))
        return found

    def code(self, value: Floats, unit: Floats) -> Floats:
        found: Floats = np.clip(np.rint(value / unit), 0, self.code_top)
        return found

    def error(self, scale: Floats, minimum: Floats) -> Floats:
        """sum(h * (x - rounded)**2) of each group, (M,)."""
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
        np.add(self.b.x, minimum, out=self._r)
        np.multiply(self._r, inverse, out=self._q)
        np.rint(self._q, out=self._q)
        np.clip(self._q, 0, self.top, out=self._q)
        np.multiply(self._q, scale, out=self._q)
        np.subtract(self._q, self._r, out=self._r)
        return self.b.dot(self._r, self._r)

    def groups_alone(self) -> Free:
        b = self.b
        low, high = np.minimum(b.x.min(0), 0), b.x.max(0)
        shape = low.shape
        best = Free(*(np.zeros(shape, np.float32) for _ in range(4)))
        gain = np.full(shape, -np.inf, np.float32)
        for clipped in CLIPPED:
            bottom = low * np.float32(clipped)
            span = np.maximum(high, bottom) - bottom
            span = np.where(span > 0, span, 1)
            for shift in SHIFTS:
                self.fit((self.top + shift) / span, bottom, best, gain)
        for _ in range(2):
            inverse = np.divide(1, best.scale, out=np.zeros_like(gain), where=best.scale > 0)
            self.fit(inverse, -best.minimum, best, gain)
        return best

    def fit(self, inverse: Floats, bottom: Floats, best: Free, gain: Floats) -> None:
        """Codes of steps `1 / inverse` above `bottom`; scale and minimum by least squares; kept where best so far."""
        b, q = self.b, self._q
        np.multiply(b.x, inverse, out=q)
        np.subtract(q, bottom * inverse, out=q)
        np.rint(q, out=q)
        np.clip(q, 0, self.top, out=q)
        squares, codes, cross = b.dot(q, q), b.total(q), b.dot(q, b.x)
        determinant = self.weight * squares - codes * codes
        sound = determinant > 1e-6 * self.weight * squares
        safe = np.where(sound, determinant, 1)
        scale = (self.weight * cross - self.sum * codes) / safe
        minimum = (codes * cross - squares * self.sum) / safe
        alone = np.divide(cross, squares, out=np.zeros_like(cross), where=squares > 0)
        positive = minimum < 0  # the least-squares minimum lies above zero, where the format has none
        scale, minimum = np.where(positive, alone, scale), np.where(positive, 0, minimum)
        here = scale * cross - minimum * self.sum
        better = (here > gain) & sound & (scale > 0)
        np.copyto(gain, here, where=better)
        np.copyto(best.scale, scale, where=better)
        np.copyto(best.minimum, minimum, where=better)
        np.copyto(best.squares, squares, where=better)
        np.copyto(best.codes, codes, where=better)

    def super_scales(self, free: Free) -> list[Floats]:
        curvature = free.squares - free.codes * free.codes / self.weight
        return self.candidates(free.scale, curvature, SUPERS)

    def super_minimum(self, free: Free, d: Floats) -> Floats:
        step = self.b.per_group(d)
        scale = step * np.maximum(self.code(free.scale, step), 1)
        return self.candidates(self.minimum_at(free, scale), self.weight, 1)[0]

    def minimum_at(self, free: Free, scale: Floats) -> Floats:
        """The least-squares minimum of a group's own codes under another scale."""
        found: Floats = np.maximum(free.minimum + (scale - free.scale) * free.codes / self.weight, 0)
        return found

    def candidates(self, value: Floats, curvature: Floats, count: int) -> list[Floats]:
        """Steps on which the groups' values come out as near to whole codes as possible: `count` of (S,)."""
        b = self.b
        largest = b.per_super(value).max(0)
        half = int(self.code_top) // 2 + 1
        steps = [
            b.stored(largest / np.float32(c)) for c in np.arange(half, self.code_top + 1.5, 1 if half > 8 else 0.5)
        ]
        costs = []
        for step in steps:
            spread = b.per_group(step)
            off = value - spread * self.code(value, spread)
            costs.append(b.per_super(curvature * off * off).sum(0))
        order = np.argsort(np.array(costs), axis=0)[:count]
        return list(np.take_along_axis(np.array(steps), order, axis=0))

    def near(self, d: Floats, dmin: Floats, free: Free, scales: int, minima: int) -> Found:
        """The best codes within so many of the group's own scale, and of the minimum that suits each scale."""
        b = self.b
        step, min_step = b.per_group(d), b.per_group(dmin)
        found = self.nothing(d, dmin)
        centre = self.code(free.scale, step)
        for offset in range(-scales, scales + 1):
            code = np.clip(centre + offset, 1, self.code_top)
            minimum = self.code(self.minimum_at(free, code * step), min_step)
            self.try_minima(found, code, minimum, step, min_step, minima)
        return found

    def nothing(self, d: Floats, dmin: Floats) -> Found:
        """All scale codes zero: a group is its minimum alone."""
        b = self.b
        minimum = self.code(-self.sum / self.weight, b.per_group(dmin))
        np.add(b.x, minimum * b.per_group(dmin), out=self._r)
        return Found(d, dmin, np.zeros_like(minimum), minimum, b.dot(self._r, self._r))

    def try_minima(self, found: Found, code: Floats, minimum: Floats, step: Floats, min_step: Floats, n: int) -> None:
        scale = code * step
        np.multiply(self.b.x, 1 / scale, out=self._scaled)
        for offset in range(-n, n + 1):
            here = np.clip(minimum + offset, 0, self.code_top)
            np.add(self._scaled, here * min_step / scale, out=self._r)
            np.rint(self._r, out=self._q)
            np.clip(self._q, 0, self.top, out=self._q)
            np.subtract(self._q, self._r, out=self._r)
            error = self.b.dot(self._r, self._r) * (scale * scale)
            better = error < found.error
            np.copyto(found.error, error, where=better)
            np.copyto(found.scale, code, where=better)
            np.copyto(found.minimum, here, where=better)

    def refit(self, best: Found) -> Found:
        """`d` and `dmin` by least squares given all codes, then the codes around them."""
        b, q = self.b, self._q
        s, m = best.scale, best.minimum
        scale, minimum = s * b.per_group(best.d), m * b.per_group(best.dmin)
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
        np.add(b.x, minimum, out=q)
        np.multiply(q, inverse, out=q)
        np.rint(q, out=q)
        np.clip(q, 0, self.top, out=q)

        def over(per_group: Floats) -> Floats:
            found: Floats = b.per_super(per_group).sum(0)
            return found

        ss, sm, mm = over(s * s * b.dot(q, q)), over(s * m * b.total(q)), over(m * m * self.weight)
        sx, mx = over(s * b.dot(q, b.x)), over(m * self.sum)
        determinant = ss * mm - sm * sm
        sound = determinant > 1e-6 * ss * mm
        safe = np.where(sound, determinant, 1)
        d = np.where(sound, (sx * mm - sm * mx) / safe, best.d)
        dmin = np.where(sound, (sm * sx - ss * mx) / safe, best.dmin)
        d, dmin = b.stored(d), b.stored(dmin)
        found = self.nothing(d, dmin)
        step, min_step = b.per_group(d), b.per_group(dmin)
        for offset in (-1, 0, 1):
            code = np.clip(s + offset, 1, self.code_top)
            self.try_minima(found, code, m, step, min_step, 1)
        return found

    def adopt(self, best: Found, other: Found) -> None:
        """Take `other` for the super-blocks where it is better."""
        b = self.b
        better = b.per_super(other.error).sum(0) < b.per_super(best.error).sum(0)
        groups = np.tile(better, b.groups)
        for name in ("d", "dmin"):
            np.copyto(getattr(best, name), getattr(other, name), where=better)
        for name in ("scale", "minimum", "error"):
            np.copyto(getattr(best, name), getattr(other, name), where=groups)
