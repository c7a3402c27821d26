"""What the quantization itself takes: memory, disk, arithmetic, hours. The plan's and `edgeq quantize`'s one estimate.

Costs are in floating-point operations at the rate of a matrix product in single precision: each part of the work was
timed once on one core of a server (95 GFLOP/s). An estimate to within a factor of two, not a promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from edgeq.device.spec import Figure
from edgeq.estimate.effort import Effort, effort
from edgeq.estimate.formats import grid_bytes, scheme_grid, weight_bytes
from edgeq.model.spec import MLP, Attention, ModelSpec, MoE
from edgeq.model.tensors import TensorSpec, parameters, tensors
from edgeq.scheme import F32, Grid, Scheme

SAMPLES, LENGTH = 64, 512  # calibration text of edgeq's recipes where they say nothing else
TOKENS = SAMPLES * LENGTH
THREADS = 2  # where nobody says how many
BASE_RAM = 90_000_000  # interpreter, numpy and this package; measured
SEARCH_RAM = 8_000_000  # buffers of the grid search, a thread
TORCH_RAM = 330_000_000  # resident after torch is imported and has computed; measured
PART = 1 << 24  # weights quantized at once without text: 64 MB of float32
ROW_ROLES = {"embed", "head"}  # of dense models, read in parts too
TOKENS_AT_ONCE = 2048  # of a batch: bounds the memory of activations; results depend on it, so it is no setting
GRAM_COPIES = 5, 3  # of a group's gram matrix while it is factored, up to 4096 channels (in double) and beyond
EXPERT_GRAMS = 1 << 28  # bytes of gram matrices of experts that are gathered at once
MATRIX_COPIES = 4  # float32 matrices of a solver beside the weight; measured
SEARCH_FLOP = {"int": 19_000, "affine": 33_000, "codebook": 43_000, "super": 52_000}  # of a weight; measured
SOLVE_FLOP = 60  # of a weight and input channel, for error-compensating solvers; measured
GUARD_FLOP = 6  # of a weight and input channel: three quadratic forms
FORWARD_FLOP = 2 / 0.5  # of a weight and token: a block reaches half of a matrix product's rate; measured
PASSES = 1.3  # through a block for its groups' inputs and its output
REFINED_AT_ONCE = 8  # sequences of a refinement's step, forward and (twice as much) backward
OF_PEAK = 0.5  # of a data sheet's peak that a matrix product reaches; assumed
USUAL_RATE = THREADS * 95e9  # of a searching processor whose rate is not known: the one that all this was timed on


@dataclass(frozen=True, slots=True)
class Needs:
    """Attributes:
    ram: peak bytes with one block resident.
    disk: bytes of the source, the calibration states and the result together.
    flop: arithmetic.
    hours: at the given rate; None when the rate is unknown.
    basis: what the hours rest on.
    """

    ram: int
    disk: int
    flop: float
    hours: float | None
    basis: str


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor as quantizing sees it.

    Attributes:
        stored: bytes in the checkpoint.
        share: of the tokens that reach it: of an expert, those that are routed to it.
        matrices: experts that are stacked in it.
    """

    tensor: TensorSpec
    grid: Grid
    stored: int
    share: float = 1.0
    matrices: int = 1

    @classmethod
    def of(cls, spec: ModelSpec, t: TensorSpec, grid: Grid, stored: int) -> Part:
        ffn = spec.layers[t.layer].ffn if t.layer is not None else None
        if t.expert and isinstance(ffn, MoE) and len(t.shape) == 3:
            return cls(t, grid, stored, ffn.active / ffn.experts, ffn.experts)
        return cls(t, grid, stored)

    @property
    def columns(self) -> int:
        return self.tensor.shape[-1]

    @property
    def matrix(self) -> bool:
        return len(self.tensor.shape) > 1


def quantization_needs(spec: ModelSpec, scheme: Scheme, rate: Figure | None = None) -> Needs:
    """Of the streaming engine, with calibration text as edgeq's recipes have it where they say nothing else.

    Args:
        rate: of the processor's matrix products.
    """
    ram, flop, work = _of_scheme(spec, scheme)
    disk = 2 * parameters(spec) + work + weight_bytes(spec, scheme)
    hours, basis = _hours(flop, rate, textless=not effort(scheme.method).text)
    return Needs(ram, disk, flop, hours, basis)


@lru_cache(maxsize=512)
def _of_scheme(spec: ModelSpec, scheme: Scheme) -> tuple[int, float, int]:
    """Memory, arithmetic and disk for hidden states."""
    parts, cost = _parts(spec, scheme), effort(scheme.method)
    tokens = TOKENS if cost.text else 0
    ram = peak_ram(spec, parts, cost, THREADS)
    return ram, arithmetic(parts, cost, tokens, LENGTH), state_bytes(spec, cost, tokens)


def _parts(spec: ModelSpec, scheme: Scheme) -> tuple[Part, ...]:
    found = []
    for t in tensors(spec):
        grid, columns = scheme_grid(t, scheme) or F32, t.shape[-1]
        found.append(Part.of(spec, t, grid, grid_bytes(t.numel // columns, columns, grid)))
    return tuple(found)


def peak_ram(spec: ModelSpec, parts: Sequence[Part], cost: Effort, threads: int) -> int:
    """Bytes of memory at the most: of a shard where no text is needed, else of a block."""
    if cost.text:
        return TORCH_RAM + max((_block_ram(spec, i, layer, cost) for i, layer in _layers(parts)), default=0)
    return BASE_RAM + SEARCH_RAM * threads + max((_shard_ram(shard) for shard in _shards(parts)), default=0)


def state_bytes(spec: ModelSpec, cost: Effort, tokens: int) -> int:
    """Bytes of hidden states at their most: what a block reads and gives, and what its passes put down."""
    if not cost.text:
        return 0
    streams, taps = 1 + (cost.float_stream or cost.cross), 1 + cost.cross
    widest = max((_widths(spec, i) for i in range(spec.n_layers)), default=0)
    return 4 * tokens * (2 * streams * spec.hidden_size + taps * widest)


def arithmetic(parts: Sequence[Part], cost: Effort, tokens: int, length: int) -> float:
    """Floating-point operations, allocation and the writing of calibration text left out.

    The search of scales; and with text, for a (rows, columns) matrix: passes of the tokens, 2 columns^2 a token for
    the second moments, and solve and guard per weight and column (GPTQ, arXiv 2210.17323: rows * columns^2 in all).
    A refinement (AutoRound, arXiv 2309.05516) runs its steps' sequences forward and backward.

    Args:
        tokens: of calibration text, in sequences of `length`.
    """
    quantized = [p for p in parts if p.grid.kind != "float" and p.grid.bits < 16]
    total = float(sum(p.tensor.numel * SEARCH_FLOP[_kind(p.grid)] for p in quantized))
    if not cost.text:
        return total
    sides = 1 + cost.cross
    passes = PASSES * sides + cost.float_stream + cost.transforms
    passes += cost.steps * REFINED_AT_ONCE * 3 * length / tokens
    per_column = GUARD_FLOP + (SOLVE_FLOP if cost.solves else 0)
    for _, layer in _layers(parts):
        matrices = [p for p in layer if p.matrix]
        total += passes * FORWARD_FLOP * tokens * sum(p.tensor.numel * p.share for p in matrices)
        inputs = {(p.columns, p.matrices): p.share * p.matrices for p in matrices}
        total += sides * 2 * tokens * sum(share * k**2 for (k, _), share in inputs.items())
        total += per_column * sum(p.tensor.numel * p.columns for p in matrices if p in quantized)
    return total


def _block_ram(spec: ModelSpec, i: int, layer: Sequence[Part], cost: Effort) -> int:
    """At the peak: a block as floats, once or more; a group's gram matrices; activations; codes."""
    kept = 1 + bool(cost.transforms) + (cost.steps > 0 or cost.cross)
    matrices = [p for p in layer if p.matrix]
    weights = sum(p.tensor.numel for p in matrices)
    columns = max(p.columns for p in matrices)
    largest = max(p.tensor.numel // p.matrices for p in matrices)
    gram = 4 * columns**2 * (GRAM_COPIES[columns > 4096] + cost.cross)
    gram += min(EXPERT_GRAMS, sum(4 * p.matrices * p.columns**2 for p in matrices if p.tensor.expert))
    activations = 4 * TOKENS_AT_ONCE * 3 * _widths(spec, i)
    return 4 * weights * kept + 2 * weights + gram + 4 * MATRIX_COPIES * largest + activations


def _shard_ram(shard: Sequence[Part]) -> int:
    """A tensor as float32 (large tables in parts) and a part's codes, beside its layer's packed ones."""

    def floats(p: Part) -> int:
        part = min(p.tensor.numel, PART)
        return 4 * (part if p.tensor.role in ROW_ROLES else p.tensor.numel) + 2 * part

    return sum(p.stored for p in shard) + max(floats(p) for p in shard)


def _shards(parts: Sequence[Part]) -> list[list[Part]]:
    """The embedding, one a layer, and the rest."""
    found: dict[tuple[int | None, bool], list[Part]] = {}
    for p in parts:
        found.setdefault((p.tensor.layer, p.tensor.role == "embed"), []).append(p)
    return list(found.values())


def _layers(parts: Sequence[Part]) -> list[tuple[int, list[Part]]]:
    found: dict[int, list[Part]] = {}
    for p in parts:
        if p.tensor.layer is not None:
            found.setdefault(p.tensor.layer, []).append(p)
    return list(found.items())


def _kind(grid: Grid) -> str:
    if grid.super_size is not None:
        return "super"
    if grid.codebook is not None:
        return "codebook"
    return "affine" if grid.zero == "float" else "int"


def _widths(spec: ModelSpec, i: int) -> int:
    """Values a token has in the inputs of `o` and of `down`."""
    layer = spec.layers[i]
    attention = layer.mixer.heads * layer.mixer.head_dim if isinstance(layer.mixer, Attention) else spec.hidden_size
    ffn = layer.ffn
    if isinstance(ffn, MoE):
        return attention + ffn.active * ffn.intermediate + ffn.shared_intermediate
    return attention + (ffn.intermediate if isinstance(ffn, MLP) else spec.hidden_size)


def _hours(flop: float, rate: Figure | None, *, textless: bool) -> tuple[float | None, str]:
    if rate is not None and rate.value > 0:
        share = 1.0 if rate.basis == "measured" else OF_PEAK
        said = f"{flop:.1e} FLOP at {'' if share == 1 else 'half of '}{rate.value / 1e9:,.0f} GFLOP/s ({rate.basis})"
        return flop / (rate.value * share) / 3600, said
    if textless:
        return flop / USUAL_RATE / 3600, f"{USUAL_RATE / 1e9:,.0f} GFLOP/s (assumed)"
    return None, "no matrix rate of this device is known"
