"""Grids of activations: what the inputs of a block's linear layers are rounded to in a W8A8 model.

A dynamic grid has nothing to find. A static one has one range for all tokens, found among those that common
calibrations give (the whole range, percentiles, the entropy method of TensorRT) and shrunk versions of the whole
range, by the error they leave in the layers' output.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812

from edgeq.checkpoint.activation import ActivationGrid
from edgeq.decoder.fake_quant import fake_quantized
from edgeq.quantize.block import Block
from edgeq.quantize.sample import InputSample, sample_inputs

Tensor = torch.Tensor
Range = tuple[float, float]  # of values, zero inside

BITS = 8
WIDE_BITS = 16  # of a static input that 8 bits would ruin: one scale can't hold values a thousand times the usual
TOO_MUCH = 0.01  # of a layer's output lost to 8 bits, token by token
PERCENTILES = (0.999, 0.9999, 0.99999)
SHRINKS = tuple(0.86**k for k in range(28))  # down to a seventieth of the whole range
FINALISTS = 4  # ranges that are judged by the output itself
BINS, LEVELS = 2048, 128  # of the entropy method's histogram of magnitudes, and of the codes for them

DYNAMIC = ActivationGrid("dynamic", BITS, symmetric=False)


def activation_grids(
    block: Block, kind: Literal["dynamic", "static"], *, bits: int = BITS
) -> dict[str, ActivationGrid]:
    """The grid of every quantized matrix's input; matrices that share an input share it.

    Call it after the block's last matrix: the ranges are those of the inputs as the quantized block makes them.

    Raises:
        ValueError: a static grid is wanted of a block without calibration text.
    """
    found: dict[str, ActivationGrid] = {}
    running = block.running() if kind == "static" else {}
    for group in block.groups:
        names = [n for n in group if n in block.grids]
        if not names:
            continue
        if kind == "dynamic":
            grid = ActivationGrid("dynamic", bits, symmetric=False)
        else:
            grid = static_grid(sample_inputs(block, group), torch.cat([running[n] for n in names]), bits=bits)
        found |= dict.fromkeys(names, grid)
    return found


def static_grid(sample: InputSample, weight: Tensor, *, bits: int = BITS) -> ActivationGrid:
    """The range that leaves the least mean square error in the output.

    Where even that costs more than `TOO_MUCH` the grid has 16 bits over the whole range.
    Errors of different channels are taken as independent to choose the finalists, who are judged by the output.

    Args:
        weight: float32 (rows, K), all matrices that read the input, one below the other.
    """
    power = weight.square().sum(0)  # what an error of one in a channel adds to the output
    grids = list({asymmetric(low, high, bits): None for low, high in ranges(sample)})
    ranked = sorted(grids, key=lambda g: sample.mean((fake_quantized(sample.x, g) - sample.x).square() @ power))
    best = min(ranked[:FINALISTS], key=lambda g: output_error(sample, weight, g))
    if bits < WIDE_BITS and lost_share(sample, weight, best) > TOO_MUCH:
        return asymmetric(float(sample.low.min()), float(sample.high.max()), WIDE_BITS)
    return best


def output_error(sample: InputSample, weight: Tensor, grid: ActivationGrid) -> float:
    """Mean of |W (x_quantized - x)|^2 over the text."""
    return sample.mean(F.linear(fake_quantized(sample.x, grid) - sample.x, weight).square().sum(1))


def lost_share(sample: InputSample, weight: Tensor, grid: ActivationGrid) -> float:
    """The share of the output that rounding the input loses, of tokens weighed alike whatever they put out."""
    off = F.linear(fake_quantized(sample.x, grid) - sample.x, weight).square().sum(1)
    output = F.linear(sample.x, weight).square().sum(1)
    return sample.mean(off, shared=True) / max(sample.mean(output, shared=True), 1e-30)


def asymmetric(low: float, high: float, bits: int = BITS) -> ActivationGrid:
    """The static grid of unsigned codes that spans low..high, zero included and exact."""
    low, high, top = min(low, 0.0), max(high, 0.0), (1 << bits) - 1
    scale = float(torch.tensor((high - low) / top, dtype=torch.float32)) or 1.0
    return ActivationGrid("static", bits, False, scale, min(top, max(0, round(-low / scale))))


def ranges(sample: InputSample) -> Iterator[Range]:
    """Ranges worth trying."""
    low, high = float(sample.low.min()), float(sample.high.max())
    magnitude = sample.x.abs()
    limit = max(-low, high)
    thresholds = [quantile(magnitude, sample.weight, p) for p in PERCENTILES]
    thresholds += [entropy_threshold(magnitude, sample.weight), *(limit * f for f in SHRINKS)]
    for threshold in thresholds:
        if threshold > 0 or limit == 0:
            yield max(low, -threshold), min(high, threshold)


def quantile(magnitude: Tensor, weight: Tensor, share: float) -> float:
    """The magnitude that `share` of the text's values don't exceed. (tokens, K), (tokens,)."""
    flat, order = magnitude.flatten().sort()
    weights = weight[:, None].expand_as(magnitude).flatten()[order].cumsum(0)
    at = int(torch.searchsorted(weights, share * float(weights[-1])))
    return float(flat[min(at, len(flat) - 1)])


def entropy_threshold(magnitude: Tensor, weight: Tensor, bins: int = BINS, levels: int = LEVELS) -> float:
    """The magnitude to clip at so that the histogram of codes differs least from that of the values.

    Kullback-Leibler divergence of histograms, as in S. Migacz, "8-bit Inference with TensorRT" (GTC 2017): what is
    clipped is added to the last bin of the reference; the candidate spreads each code over its non-empty bins.
    """
    limit = float(magnitude.max())
    if limit == 0:
        return 0.0
    index = (magnitude.flatten() * (bins / limit)).long().clamp_(max=bins - 1)
    counts = torch.zeros(bins, dtype=torch.float64)
    counts.index_add_(0, index, weight[:, None].expand_as(magnitude).flatten())
    counts[0] = 0  # values that are near zero at any range would outweigh the rest
    best, best_at = float("inf"), bins
    for end in range(levels, bins + 1, max(1, bins // 64)):
        divergence = _divergence(counts, end, levels)
        if divergence < best:
            best, best_at = divergence, end
    return limit * best_at / bins


def _divergence(counts: Tensor, end: int, levels: int) -> float:
    """KL of the first `end` bins, clipped there, from their version in `levels` codes."""
    reference = counts[:end].clone()
    inside = reference.clone()
    reference[-1] += counts[end:].sum()
    code = torch.arange(end) * levels // end
    filled = (inside > 0).double()
    totals = torch.zeros(levels, dtype=torch.float64).index_add_(0, code, inside)
    cells = torch.zeros(levels, dtype=torch.float64).index_add_(0, code, filled)
    candidate = filled * (totals / cells.clamp_min(1))[code]
    if not float(candidate.sum()):
        return float("inf")
    p, q = reference / reference.sum(), candidate / candidate.sum()
    seen = p > 0
    return float((p[seen] * (p[seen] / q[seen].clamp_min(1e-12)).log()).sum())
