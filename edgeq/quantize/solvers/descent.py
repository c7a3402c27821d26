"""Cyclic coordinate descent on the codes (QuantEase, arXiv 2309.01885): each column's best code given all the others.

Along one coordinate the objective (w - q) H (w - q)^T is a parabola, so its best level is the one nearest to the
parabola's lowest point: no step ever increases the objective.
"""

from __future__ import annotations

import torch

from edgeq.quantize.levels import Levels

Tensor = torch.Tensor

BLOCK = 128  # columns: the gradient is one matrix product a block, and kept up to date inside it


def descend(
    weight: Tensor, codes: Tensor, levels: Levels, gram: Tensor, sweeps: int = 1, free: Tensor | None = None
) -> Tensor:
    """uint8 codes (rows, columns) after `sweeps` passes over all columns, or fewer when nothing changes any more.

    Args:
        weight: float32 (rows, columns).
        codes: uint8 (rows, columns), where the descent starts.
        gram: float32 (columns, columns) with a positive diagonal.
        free: bool (rows, columns): the codes that may change; None: all.
    """
    columns, size = levels.columns, levels.group_size
    scale, offset = levels.scale.T.contiguous(), levels.offset.T.contiguous()
    diagonal = gram.diagonal().tolist()
    may = None if free is None else free.T.contiguous()
    chosen = codes.T.contiguous()
    group = torch.arange(columns) // size
    off = weight.T - levels.values(chosen, scale[group], offset[group])  # weight - quantized, (columns, rows)
    for _ in range(sweeps):
        before = chosen.clone()
        for a in range(0, columns, BLOCK):
            b = min(a + BLOCK, columns)
            gradient = gram[a:b] @ off
            moved = torch.zeros_like(gradient)  # what this pass has taken off the block's errors
            for j in range(a, b):
                i, g = j - a, j // size
                slope = gradient[i] if i == 0 else torch.addmv(gradient[i], moved[:i].T, gram[a:j, j], alpha=-1)
                here = levels.values(chosen[j], scale[g], offset[g])
                code = levels.nearest(torch.add(here, slope, alpha=1 / diagonal[j]), scale[g], offset[g])
                if may is not None:
                    code = torch.where(may[j], code, chosen[j].to(code.dtype))
                torch.sub(levels.values(code, scale[g], offset[g]), here, out=moved[i])
                chosen[j] = code
            off[a:b] -= moved
        if torch.equal(before, chosen):
            break
    return chosen.T


def descend_integers(
    off: Tensor, direction: Tensor, integers: Tensor, size: int, gram: Tensor, low: int, high: int
) -> Tensor:
    """One pass over integers that each move a whole segment of columns: zero points, or the codes of sub-scales.

    Args:
        off: float32 (columns, rows), weight - quantized; updated in place.
        direction: float32 (columns, rows): how one step of its integer moves a quantized value.
        integers: float32 (segments, rows), whole numbers; the result has the same form.
        size: columns of a segment.
        low, high: the least and the greatest value of an integer.
    """
    out = integers.clone()
    for s, a in enumerate(range(0, off.shape[0], size)):
        part = slice(a, min(a + size, off.shape[0]))
        along = direction[part]
        slope = (along * (gram[part] @ off)).sum(0)
        curvature = (along * (gram[part, part] @ along)).sum(0)
        step = torch.where(curvature > 0, slope / curvature, torch.zeros_like(slope))
        out[s] = (integers[s] + step).round().clamp(low, high)
        off[part] -= along * (out[s] - integers[s])
    return out
