"""One block, all of it in memory: its transforms, its groups in the order they run, its refinement, each guarded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from edgeq.checkpoint.manifest import LayerReport
from edgeq.quantize.block import Block
from edgeq.quantize.experts import with_tokens
from edgeq.quantize.gather import Gatherer
from edgeq.quantize.guard import guarded
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.passes import Passes
from edgeq.quantize.stream import relative_error

Tensor = torch.Tensor
Told = Callable[[str], None]  # the name of the matrix that comes next


@dataclass(slots=True)
class BlockResult:
    """Attributes:
    errors: matrix -> ||W - Q|| / ||W||, W as transforms left it.
    seconds: matrix -> what it took, its group's statistics shared out.
    block: mean squared error of the output, `before` and `after` the refinement.
    sizes: matrix -> ||W||^2.
    """

    reports: dict[str, LayerReport] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    block: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)


def quantize_block(block: Block, method: Method, quantized: Passes, floats: Passes | None, told: Told) -> BlockResult:
    """Fill `block.quantized`, group by group: each sees inputs made by what was quantized before it.

    Args:
        quantized: passes of the quantized stream.
        floats: of the float stream through `block.current`, for a method that needs `cross`.
        told: called before each matrix.
    """
    result = BlockResult()
    gatherer = Gatherer(block, quantized, floats, method.weigh)
    block.statistics_of = gatherer.statistics_of
    block.method = method
    for transform in method.transforms:
        transform(block)
    # Whatever still asks for float weights keeps them: a refinement, and the float side of `cross`.
    release = method.refine is None and floats is None
    for group in block.groups:
        _round_halves(block, group)
        names = tuple(n for n in group if n in block.grids)
        if names:
            _quantize_group(block, gatherer, method, group, names, result, told)
        if release:
            for name in names:
                block.release(name)
    gatherer.forget()
    return result


@torch.no_grad()
def output_error(block: Block, passes: Passes) -> float:
    """Mean squared error of the block's output, as it runs now, against its targets."""
    assert block.targets is not None
    total, count = 0.0, 0
    for output, target in zip(passes.outputs(), block.targets(), strict=True):
        total += squared_error(output, target)
        count += target.numel()
    return total / count


def squared_error(output: Tensor, target: Tensor) -> float:
    return float((output - target).square_().sum(dtype=torch.float64))


def _quantize_group(
    block: Block,
    gatherer: Gatherer,
    method: Method,
    group: tuple[str, ...],
    names: tuple[str, ...],
    result: BlockResult,
    told: Told,
) -> None:
    told(names[0])
    started = time.perf_counter()
    found = gatherer.gathered(group)
    shared = (time.perf_counter() - started) / len(names)
    for name in names:
        told(name)
        started = time.perf_counter()
        weight = block.current[name].numpy()
        quantized, report = guarded(method, weight, block.grids[name], found.statistics, found.energy.get(name))
        block.quantized[name] = quantized
        result.reports[name], result.errors[name] = report.report(), relative_error(weight, quantized)
        result.sizes[name] = float(np.square(weight).sum(dtype=np.float64))
        if found.reached is not None:
            result.reports[name] = with_tokens(result.reports[name], found.reached, found.pooled)
        result.seconds[name] = shared + time.perf_counter() - started


def _round_halves(block: Block, group: tuple[str, ...]) -> None:
    """Matrices that are stored in half precision run in it from here on."""
    for name in group:
        if name in block.halves:
            block.current[name] = block.current[name].half().float()
