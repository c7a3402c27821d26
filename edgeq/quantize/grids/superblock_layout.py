"""Super-blocks laid out for numpy: groups across, so that every operation runs over thousands of groups at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
LARGEST_HALF, SMALLEST_HALF = np.float32(65504), np.float32(2.0**-24)
# Inputs that calibration never saw still count a little, so that their weights aren't left to chance.
LEAST_IMPORTANCE = np.float32(1e-6)


@dataclass(frozen=True, slots=True)
class Laid:
    """Some super-blocks. Below, S are super-blocks and M = G * S their groups, group-major.

    Attributes:
        x: float32 (n, M): weights in units of `unit`, the largest of a super-block between 1 and 2 (or all zero): sums
            of squares stay in range whatever the weights are.
        h: float32 (n, M): importance, or None for all alike.
        unit: float32 (S,): powers of two.
        groups: G, of one super-block.
    """

    x: Floats
    h: Floats | None
    unit: Floats
    groups: int

    def dot(self, a: Floats, b: Floats) -> Floats:
        """sum(h * a * b) over each group: float32 (M,)."""
        if self.h is None:
            found: Floats = np.einsum("ij,ij->j", a, b)
        else:
            found = np.einsum("ij,ij,ij->j", a, b, self.h)
        return found

    def total(self, a: Floats) -> Floats:
        """sum(h * a) over each group."""
        found: Floats = a.sum(0) if self.h is None else np.einsum("ij,ij->j", a, self.h)
        return found

    def weight(self) -> Floats:
        """sum(h) over each group."""
        if self.h is None:
            return np.full(self.x.shape[1], self.x.shape[0], np.float32)
        found: Floats = self.h.sum(0)
        return found

    def per_super(self, per_group: Floats) -> Floats:
        """(M,) as (G, S)."""
        return per_group.reshape(self.groups, -1)

    def per_group(self, per_super: Floats) -> Floats:
        """(S,) spread to (M,)."""
        return np.tile(per_super, self.groups)

    def stored(self, value: Floats) -> Floats:
        """(..., S), not negative: as an f16 number can hold it, never zero and never infinite; in units again."""
        half = np.clip(value * self.unit, SMALLEST_HALF, LARGEST_HALF).astype(np.float16)
        found: Floats = half.astype(np.float32) / self.unit
        return found

    def halves(self, value: Floats) -> npt.NDArray[np.float16]:
        """(S,) of values that `stored` gave (signs allowed): the f16 numbers themselves."""
        found: npt.NDArray[np.float16] = (value * self.unit).astype(np.float16)
        return found


def laid(block: Floats, importance: Floats | None, size: int, super_size: int) -> Laid:
    """float32 (rows, columns), whole super-blocks -> S = rows * supers of a row, in the order of the rows."""
    rows, columns = block.shape
    supers, groups = columns // super_size, super_size // size
    shape = (rows, supers, groups, size)
    largest = np.abs(block).reshape(rows * supers, super_size).max(1)
    exponent = np.clip(np.frexp(largest)[1] - 1, -126, 126)
    unit: Floats = np.ldexp(np.float32(1), np.where(largest > 0, exponent, 0)).astype(np.float32)
    scaled = block.reshape(rows * supers, super_size) / unit[:, None]
    return Laid(_across(scaled.reshape(shape)), _spread(importance, shape), unit, groups)


def _across(parts: npt.NDArray[Any]) -> Floats:
    """(rows, supers, groups, n) -> (n, groups * rows * supers)."""
    return np.ascontiguousarray(parts.transpose(3, 2, 0, 1), np.float32).reshape(parts.shape[3], -1)


def _spread(importance: Floats | None, shape: tuple[int, int, int, int]) -> Floats | None:
    if importance is None:
        return None
    floored = np.maximum(importance, LEAST_IMPORTANCE)
    return _across(np.broadcast_to(floored.reshape(1, *shape[1:]), shape))
