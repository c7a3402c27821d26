"""RoPE settings from a Hugging Face config, in the transformers-4 spelling (`rope_theta`, `rope_scaling`) and the
transformers-5 one (`rope_parameters`, possibly one object per layer type).

Formulas of the attention factors: YaRN (https://arxiv.org/abs/2309.00071, eq. 22) and LongRoPE
(https://arxiv.org/abs/2402.13753), with the defaults that transformers uses.
"""

from __future__ import annotations

import math
from typing import get_args

from edgeq.model.fields import Fields
from edgeq.model.spec import Rope, RopeKind

_KINDS = set(get_args(RopeKind))
_ALIASES = {"su": "longrope", "mrope": "default", "proportional": "default"}
_NUMBERS = (
    "factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "attention_factor",
    "low_freq_factor",
    "high_freq_factor",
)


def read_rope(
    config: Fields,
    head_dim: int,
    max_positions: int,
    *,
    theta: float = 10_000.0,
    partial: float = 1.0,
    layer_type: str = "full_attention",
    default: dict[str, object] | None = None,
) -> Rope:
    """The rotary embedding of one layer type.

    Args:
        theta, partial, default: the family's own defaults for absent fields.

    Returns:
        A Rope whose `params` of a yarn or longrope kind hold the resolved `factor` and `attention_factor`.

    Raises:
        EdgeqError: a field has a wrong type or the kind is unknown.
    """
    scaling = _settings(config, layer_type) or Fields(default or {}, config.where, "rope_parameters")
    theta = scaling.number("rope_theta", config.number("rope_theta", theta))
    partial = scaling.number("partial_rotary_factor", config.number("partial_rotary_factor", partial))
    dim = int(head_dim * partial)
    if partial > 1 or dim < 2 or dim % 2:
        raise config.wrong("partial_rotary_factor", f"a share of the head ({head_dim}) that leaves an even width")
    return scaled_rope(config, scaling, theta, dim, max_positions)


def _settings(config: Fields, layer_type: str) -> Fields | None:
    for name in ("rope_scaling", "rope_parameters"):
        found = config.child(name)
        if found is not None and any(isinstance(v, dict) for v in found.data.values()):
            found = found.child(layer_type)
        if found is not None and found.data:
            return found
    return None


def scaled_rope(config: Fields, scaling: Fields, theta: float, dim: int, max_positions: int) -> Rope:
    """A Rope from its scaling object (`rope_type` or `type` and the numbers of that kind)."""
    kind = _kind(config, scaling)
    if kind == "default":
        return Rope(theta, dim)
    original = _original(config, scaling, kind, max_positions)
    params: dict[str, float | tuple[float, ...]] = {
        n: scaling.number(n, positive=False) for n in _NUMBERS if scaling.has(n)
    }
    if kind == "longrope":
        params |= _longrope(config, scaling, params, dim, original, max_positions)
    else:
        params["factor"] = scaling.number("factor", max_positions / original if kind == "yarn" else None)
    if kind == "llama3":
        params.update({n: scaling.number(n) for n in ("low_freq_factor", "high_freq_factor")})
    if kind == "yarn":
        params["attention_factor"] = _yarn_attention_factor(scaling, scaling.number("factor", max_positions / original))
        params["truncate"] = float(scaling.flag("truncate", True))
    return Rope(theta, dim, kind, tuple(sorted(params.items())), original)


def mscale(factor: float, scale: float = 1.0) -> float:
    """YaRN's temperature: `0.1 * scale * ln(factor) + 1`."""
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def _kind(config: Fields, scaling: Fields) -> RopeKind:
    name = scaling.first("rope_type", "type")
    kind = scaling.text(name, "default")
    kind = _ALIASES.get(kind, kind)
    if config.data.get("model_type") == "phi3" and kind == "yarn":  # Phi-3's early files call longrope so
        kind = "longrope"
    if kind not in _KINDS:
        raise scaling.wrong(name, f"one of {', '.join(sorted(_KINDS))}")
    return kind  # type: ignore[return-value]


def _original(config: Fields, scaling: Fields, kind: str, max_positions: int) -> int:
    name = "original_max_position_embeddings"
    if config.has(name):  # Phi-3 states it beside the object, and that one counts
        return config.integer(name)
    return scaling.integer(name, 4096 if kind == "longrope" else max_positions)


def _yarn_attention_factor(scaling: Fields, factor: float) -> float:
    if scaling.has("attention_factor"):
        return scaling.number("attention_factor")
    one, all_dims = (scaling.number(n, 0.0, positive=False) for n in ("mscale", "mscale_all_dim"))
    if one and all_dims:
        return mscale(factor, one) / mscale(factor, all_dims)
    return mscale(factor)


def _longrope(
    config: Fields, scaling: Fields, given: dict[str, float | tuple[float, ...]], dim: int, original: int, longest: int
) -> dict[str, float | tuple[float, ...]]:
    factor = scaling.number("factor", longest / original)
    attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0
    out: dict[str, float | tuple[float, ...]] = {
        "factor": factor,
        "attention_factor": scaling.number("attention_factor", attention),
    }
    for name in ("short_factor", "long_factor"):
        values = scaling.numbers(name)
        if values is None or len(values) != dim // 2 or min(values) <= 0:
            raise scaling.wrong(name, f"a list of {dim // 2} numbers above zero")
        out[name] = values
    return given | out
