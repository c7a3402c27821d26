"""Rotary position embedding: cosine and sine tables of every scaling kind, in numpy.

Formulas as in transformers' `modeling_rope_utils.py`, computed in float32 like there; the papers are named at each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError
from edgeq.model.spec import Rope

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Frequencies:
    """Inverse frequencies float32 (dim / 2,) and the factor that multiplies cosine and sine."""

    inverse: F32
    attention_factor: float = 1.0


def frequencies(rope: Rope, max_positions: int, length: int | None = None) -> Frequencies:
    """Frequencies for a sequence of `length` tokens (None: short enough to need no extension).

    Only `dynamic` and `longrope` depend on `length`.

    Raises:
        EdgeqError: a parameter that the kind needs is missing or has the wrong size.
    """
    try:
        return _KINDS[rope.kind](rope, max_positions, length)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise EdgeqError(f"the rope parameters of kind {rope.kind!r} are not usable: {error}") from error


def switch_length(rope: Rope, max_positions: int) -> int | None:
    """Sequences longer than this use other frequencies than shorter ones; None when there is no such length."""
    if rope.kind == "longrope":
        return rope.original_max_positions or max_positions
    return max_positions if rope.kind == "dynamic" else None


def tables(freqs: Frequencies, positions: npt.NDArray[np.int64]) -> tuple[F32, F32]:
    """Cosine and sine, float32 (len(positions), dim / 2), already multiplied by the attention factor."""
    angle = positions[:, None].astype(np.float32) * freqs.inverse[None, :]
    factor = np.float32(freqs.attention_factor)
    return np.cos(angle) * factor, np.sin(angle) * factor


def _plain(theta: float, dim: int) -> F32:
    exponent = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    inverse: F32 = (np.float32(1.0) / np.float32(theta) ** exponent).astype(np.float32)
    return inverse


def _default(rope: Rope, max_positions: int, length: int | None) -> Frequencies:
    return Frequencies(_plain(rope.theta, rope.dim))


def _linear(rope: Rope, max_positions: int, length: int | None) -> Frequencies:
    """Position interpolation (Chen et al. 2023, arXiv:2306.15595)."""
    return Frequencies(_plain(rope.theta, rope.dim) / np.float32(_needed(rope, "factor")))


def _dynamic(rope: Rope, max_positions: int, length: int | None) -> Frequencies:
    """NTK-aware scaling whose base grows with the sequence beyond the trained length."""
    factor, dim = _needed(rope, "factor"), rope.dim
    longest = max(length or 0, max_positions)
    base = rope.theta * ((factor * longest / max_positions) - (factor - 1)) ** (dim / (dim - 2))
    return Frequencies(_plain(base, dim))


def _llama3(rope: Rope, max_positions: int, length: int | None) -> Frequencies:
    """Llama 3.1: long wavelengths are divided by `factor`, short ones kept, those between interpolated."""
    inverse = _plain(rope.theta, rope.dim)
    factor, low, high = (_needed(rope, n) for n in ("factor", "low_freq_factor", "high_freq_factor"))
    trained = rope.original_max_positions or max_positions
    wavelength = 2 * math.pi / inverse
    smooth = (trained / wavelength - low) / (high - low)
    between = (1 - smooth) * inverse / factor + smooth * inverse
    long, short = wavelength > trained / low, wavelength < trained / high
    return Frequencies(np.where(long, inverse / factor, np.where(short, inverse, between)).astype(np.float32))


def _yarn(rope: Rope, max_positions: int, length: int | None) -> Frequencies:
    """YaRN (Peng et al. 2023, arXiv:2309.00071): interpolate low frequencies, keep high ones, ramp between."""
    trained, dim = rope.original_max_positions or max_positions, rope.dim
    factor = rope.param("factor", 0.0) or max_positions / trained
    keep = 1 - _yarn_ramp(rope, trained)
    frequency = np.float32(rope.theta) ** (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim))
    inverse = (1.0 / (factor * frequency)) * (1 - keep) + (1.0 / frequency) * keep
    return Frequencies(inverse.astype(np.float32), _yarn_attention(rope, factor))


def _yarn_ramp(rope: Rope, trained: int) -> F32:
    """0 where a frequency turns often enough in the trained length to be kept, 1 where it is interpolated."""
    dim = rope.dim

    def turns_to_dim(turns: float) -> float:
        return dim * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low = turns_to_dim(rope.param("beta_fast", 0.0) or 32.0)
    high = turns_to_dim(rope.param("beta_slow", 0.0) or 1.0)
    if rope.param("truncate", 1.0):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = high - low or 0.001
    ramp: F32 = np.clip((np.arange(dim // 2, dtype=np.float32) - low) / width, 0, 1).astype(np.float32)
    return ramp


def _yarn_attention(rope: Rope, factor: float) -> float:
    given = rope.param("attention_factor", 0.0)
    if given:
        return given
    scale, all_dim = rope.param("mscale", 0.0), rope.param("mscale_all_dim", 0.0)

    def mscale(m: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * m * math.log(factor) + 1.0

    return mscale(scale) / mscale(all_dim) if scale and all_dim else mscale(1.0)


def _longrope(rope: Rope, max_positions: int, length: int | None) -> Frequencies:
    """LongRoPE (Ding et al. 2024, arXiv:2402.13753): one factor a frequency, in a short and a long set."""
    trained = rope.original_max_positions or max_positions
    extended = length is not None and length > trained
    factors = np.array(rope.factors("long_factor" if extended else "short_factor"), np.float32)
    if factors.shape != (rope.dim // 2,):
        raise ValueError(f"{factors.size} factors for {rope.dim // 2} frequencies")
    growth = rope.param("factor", 0.0) or max_positions / trained
    attention = rope.param("attention_factor", 0.0)
    if not attention:
        attention = 1.0 if growth <= 1 else math.sqrt(1 + math.log(growth) / math.log(trained))
    return Frequencies(_plain(rope.theta, rope.dim) / factors, attention)


def _needed(rope: Rope, name: str) -> float:
    if name not in dict(rope.params):
        raise KeyError(name)
    return rope.param(name, 0.0)


_KINDS = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "yarn": _yarn,
    "longrope": _longrope,
    "llama3": _llama3,
}
