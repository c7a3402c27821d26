"""SignRound (arXiv 2309.05516, the method of AutoRound): signed gradient descent on how weights are rounded.

Every weight has an offset V that is added before rounding, every group a factor on its scale (and minimum); both learn
from the error of the whole block's output, with a straight-through gradient, in steps of equal size whose length falls
linearly to zero. The best state seen on one fixed part of the text is kept, the start among them.

What is ours: it starts from any uniform grid and any codes (round to nearest, or GPTQ's: V then starts so that the
weight rounds to its code, as near to the edge as it was), and from scales that the grid's search found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from edgeq.checkpoint.tensor import Parameters, QuantizedTensor
from edgeq.model.spec import MoE
from edgeq.quantize.block import Block
from edgeq.quantize.levels import Levels
from edgeq.quantize.run_block import BlockRunner
from edgeq.scheme import Grid

Tensor = torch.Tensor
INSIDE = 0.499  # how near to the next code an offset may start
SCALE_RANGE = 0.15  # a scale may move by so much of itself
PROBES = 4  # looks at the same batches over the second half of the descent, when the steps are short
HALF = {"f16": torch.float16, "f32": torch.float32}


@dataclass(frozen=True, slots=True)
class Effort:
    """Attributes:
    iterations: steps a block.
    batch: sequences a step.
    rate: length of the first step; None: 1 / iterations.
    """

    iterations: int
    batch: int = 8
    rate: float | None = None


def signround(block: Block, effort: Effort, seed: int = 0) -> None:
    """Tune `block.quantized` in place: every uniform grid's matrices; others stay as they are but take part.

    Raises:
        AssertionError: the block has no batches or targets.
    """
    assert block.batches is not None and block.targets is not None
    tuned = [Tuned(name, block.current[name], q) for name, q in block.quantized.items() if q.grid.codebook is None]
    if not tuned:
        return
    fixed = dict(block.current)
    for name, q in block.quantized.items():
        fixed[name] = torch.from_numpy(q.dequantize())
    samples = _Samples(block, effort.batch, seed + block.index)
    run = BlockRunner(block.spec, block.index)
    # Half the time; only the gradient's sign counts. Experts read another number of tokens at every step, and torch
    # would make (and keep) a kernel of its own for each.
    dtype = torch.float32 if isinstance(block.spec.layers[block.index].ffn, MoE) else torch.bfloat16
    half = {n: t.to(dtype) for n, t in fixed.items()}

    def loss_on(x: Tensor, target: Tensor) -> Tensor:
        y = run({**half, **{t.name: t.weight().to(dtype) for t in tuned}}, x.to(dtype))
        return (y.float() - target).square().mean() * samples.scale

    def probe() -> float:
        with torch.no_grad():
            return sum(float(loss_on(*pair)) for pair in samples.probe())

    best, kept = probe(), [t.quantized() for t in tuned]
    rate = effort.rate or 1 / effort.iterations
    looks = {round(effort.iterations * (0.5 + 0.5 * k / PROBES)) for k in range(1, PROBES + 1)}
    for step in range(1, effort.iterations + 1):
        loss_on(*samples.draw()).backward()  # type: ignore[no-untyped-call]
        for t in tuned:
            t.step(rate * (1 - (step - 1) / effort.iterations))
        if step in looks and (found := probe()) < best:
            best, kept = found, [t.quantized() for t in tuned]
    for t, found_best in zip(tuned, kept, strict=True):
        block.quantized[t.name] = found_best


class Tuned:
    """One matrix while it is tuned."""

    def __init__(self, name: str, weight: Tensor, start: QuantizedTensor) -> None:
        self.name, self._start = name, start
        self._levels = levels = Levels.of(start.grid, start.parameters, weight.shape[1])
        scale = levels.spread(levels.scale)
        self._live = scale != 0
        self._steps = (weight - levels.spread(levels.offset)) / torch.where(self._live, scale, 1.0)
        codes = torch.from_numpy(start.codes.astype(np.float32))
        nearest = codes - self._steps
        self.offset = (nearest - nearest.clamp(-INSIDE, INSIDE)).requires_grad_()
        self.top = float(len(levels.table) - 1)
        tunable = start.grid.super_size is None
        self.factor = torch.ones_like(levels.scale).requires_grad_(tunable)
        self.lift = torch.zeros_like(levels.scale).requires_grad_(tunable and start.grid.zero == "float")

    def weight(self) -> Tensor:
        """The dequantized weight, differentiable in offset, factor and lift."""
        levels = self._levels
        scale, offset = self._parameters(self.factor, self.lift)
        wanted = self._shifted() + self.offset
        rounded = wanted + (wanted.round() - wanted).detach()
        codes = rounded.clamp(0, self.top)
        return codes * levels.spread(scale) + levels.spread(offset)

    def _shifted(self) -> Tensor:
        """The weight in steps of its tuned scale: with another factor it lies at another step."""
        if not self.factor.requires_grad:
            return self._steps
        return self._steps + (1 / self._levels.spread(self.factor) - 1) * self._about(self._steps)

    def _about(self, steps: Tensor) -> Tensor:
        """Steps counted from the zero point, which is where a scale's change leaves a weight in place."""
        grid, levels = self._start.grid, self._levels
        if grid.zero == "float":
            return steps
        safe = torch.where(levels.scale == 0, torch.ones_like(levels.scale), levels.scale)
        return steps - levels.spread(-levels.offset / safe)

    def _parameters(self, factor: Tensor, lift: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and offset a group, rounded to what is stored (straight through)."""
        grid, levels = self._start.grid, self._levels
        if grid.super_size is not None:
            return levels.scale, levels.offset
        scale = _stored(levels.scale * factor, grid)
        if grid.zero == "float":
            return scale, _stored(levels.offset + lift * levels.scale, grid)
        safe = torch.where(levels.scale == 0, torch.ones_like(levels.scale), levels.scale)
        return scale, levels.offset / safe * scale

    def step(self, rate: float) -> None:
        """Against the gradient's sign. A tenth of the step for scales: they move a whole group."""
        with torch.no_grad():
            if self.offset.grad is None:  # an expert that no token of the step chose
                return
            self.offset -= rate * self.offset.grad.sign()
            self.offset.grad = None
            if self.factor.grad is not None:
                self.factor -= 0.1 * rate * self.factor.grad.sign()
                self.factor.clamp_(1 - SCALE_RANGE, 1 + SCALE_RANGE)
                self.factor.grad = None
            if self.lift.grad is not None:
                self.lift -= 0.1 * rate * self.lift.grad.sign()
                self.lift.grad = None

    def quantized(self) -> QuantizedTensor:
        """What it has come to."""
        start, grid = self._start, self._start.grid
        with torch.no_grad():
            codes = (self._shifted() + self.offset).round_().clamp_(0, self.top).to(torch.uint8).numpy()
            scale, low = self._parameters(self.factor, self.lift)
        if grid.super_size is not None:
            return QuantizedTensor.of(grid, codes, start.parameters)
        dtype = start.scales.dtype
        zeros = low.numpy().astype(dtype) if grid.zero == "float" else start.zero_points
        return QuantizedTensor.of(grid, codes, Parameters(scale.numpy().astype(dtype), zeros))


def _stored(value: Tensor, grid: Grid) -> Tensor:
    """Rounded to the stored dtype, with the gradient of what it was."""
    return value + (value.to(HALF[grid.scale_dtype]).float() - value).detach()


class _Samples:
    """Batches of the block's input and wanted output, in a seeded order, each sequence once before any again."""

    def __init__(self, block: Block, batch: int, seed: int) -> None:
        assert block.batches is not None and block.targets is not None
        self._inputs = torch.cat([x.bfloat16() for x in block.batches()])
        self._targets = torch.cat([y.float() for y in block.targets()])
        self._batch = min(batch, len(self._inputs))
        self._generator = torch.Generator().manual_seed(seed)
        self._queue: Iterator[Tensor] = iter(())
        self.scale = 1 / self._targets.square().mean().clamp_min(1e-12)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Input and target of the next step."""
        picked = next(self._queue, None)
        if picked is None:
            order = torch.randperm(len(self._inputs), generator=self._generator)
            whole = len(order) // self._batch * self._batch
            self._queue = iter(order[:whole].reshape(-1, self._batch))
            picked = next(self._queue)
        return self._inputs[picked], self._targets[picked]

    def probe(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The same two batches every time."""
        for a in range(0, min(2 * self._batch, len(self._inputs)), self._batch):
            yield self._inputs[a : a + self._batch], self._targets[a : a + self._batch]
