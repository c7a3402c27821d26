"""What the quantization itself takes: memory, disk, arithmetic, hours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from edgeq.device.spec import Figure
from edgeq.estimate.formats import weight_bytes
from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import parameters, tensors
from edgeq.scheme import Scheme

SAMPLES, LENGTH = 64, 512  # calibration text of edgeq's recipes where they say nothing else
TOKENS = SAMPLES * LENGTH
_PROCESS = 400_000_000  # interpreter with torch loaded
_SEARCH_RATE = 5e6  # weights a second of a fine scale search; measured on two cores, int4 in groups of 32
_AWQ_SEARCHES = 2  # of all weights besides: candidates on some rows of each matrix
_EFFICIENCY = 0.5  # share of the measured matrix rate that a whole block reaches; an assumption


@dataclass(frozen=True, slots=True)
class Needs:
    """Attributes:
    ram: peak bytes with one block resident.
    disk: bytes of the source, the calibration states and the result together.
    flop: matrix arithmetic.
    hours: at the given rate; None when the rate is unknown.
    basis: what the hours rest on.
    """

    ram: int
    disk: int
    flop: float
    hours: float | None
    basis: str


def quantization_needs(spec: ModelSpec, scheme: Scheme, rate: Figure | None = None) -> Needs:
    """Estimate for a streaming engine: one block of weights in float32, hidden states on disk.

    Arithmetic, for P weights of linear layers, n = 64 * 512 calibration tokens and a (rows, columns) layer:
    calibrated methods run each block twice, 4 P n; GPTQ (arXiv 2210.17323) adds 2 n columns^2 for the Hessian,
    columns^3 for its factor and rows * columns^2 for the solve; AWQ (2306.00978) searches scales more often; AutoRound
    (2309.05516) takes 200 steps of 8 * 512 tokens, forward and backward, 6 P a token.
    """
    weights, widest = _linear(spec)
    flop = sum(_flop(part, spec, weights) for part in scheme.method.split("+"))
    calibrated = flop > 0
    block = largest_block(spec)
    copies = {"autoround": 5, "gptq": 2}.get(scheme.method.split("+")[-1], 2)  # weight, code, gradients and moments
    ram = _PROCESS + 4 * copies * block + (3 * 4 * widest**2 if calibrated else 0)
    states = 2 * 2 * TOKENS * spec.hidden_size if calibrated else 0  # in and out, two bytes a value
    source = 2 * parameters(spec)
    disk = source + states + weight_bytes(spec, scheme)
    searches = 1 + _AWQ_SEARCHES * ("awq" in scheme.method.split("+"))
    hours, basis = _hours(searches * weights, flop, rate)
    return Needs(ram, disk, float(flop), hours, basis)


@cache
def _linear(spec: ModelSpec) -> tuple[int, int]:
    """Weights of all linear layers but the head, and the most columns one has."""
    linear = [t for t in tensors(spec) if t.linear and t.role != "head"]
    return sum(t.numel for t in linear), max((t.shape[-1] for t in linear), default=0)


@cache
def _gptq_flop(spec: ModelSpec) -> float:
    """Hessian, its factor and the solve, of every linear layer."""
    total = 0.0
    for t in tensors(spec):
        if t.linear and t.role != "head":
            columns = t.shape[-1]
            total += 2.0 * TOKENS * columns**2 + columns**3 + t.numel * columns
    return total


def _flop(method: str, spec: ModelSpec, weights: int) -> float:
    if method == "gptq":
        return 4.0 * weights * TOKENS + _gptq_flop(spec)
    if method == "awq":
        return 4.0 * weights * TOKENS
    if method == "smoothquant":
        return 2.0 * weights * TOKENS
    return 200 * 8 * LENGTH * 6.0 * weights if method == "autoround" else 0.0


@cache
def largest_block(spec: ModelSpec) -> int:
    """Weights of the largest layer."""
    sizes = dict.fromkeys(range(spec.n_layers), 0)
    for t in tensors(spec):
        if t.layer is not None:
            sizes[t.layer] += t.numel
    return max(sizes.values(), default=0)


def _hours(weights: int, flop: float, rate: Figure | None) -> tuple[float | None, str]:
    search = weights / _SEARCH_RATE
    if flop == 0:
        return search / 3600, f"{_SEARCH_RATE / 1e6:.0f} M weights/s of scale search (measured on two cores)"
    if rate is None or rate.value <= 0:
        return None, "no matrix rate of this device is known"
    seconds = search + flop / (rate.value * _EFFICIENCY)
    return seconds / 3600, f"{flop:.1e} FLOP at half of {rate.value / 1e9:,.0f} GFLOP/s ({rate.basis})"
