"""Experts of a block: names of the single ones, statistics of the tokens each is given, and the stacked tensors again.

A block holds each expert's matrices by themselves, `layers.3.experts_up.17`; a checkpoint stores those of a role as
one tensor. Which tokens an expert reads is decided by the router, which stays as it is, on the quantized stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from edgeq.checkpoint.manifest import LayerReport
from edgeq.checkpoint.tensor import Parameters, QuantizedTensor
from edgeq.model.spec import ModelSpec, MoE
from edgeq.model.tensors import TensorSpec

if TYPE_CHECKING:
    from edgeq.quantize.one_block import BlockResult

Tensor = torch.Tensor
Group = tuple[str, ...]
FEW = 8  # an expert that fewer tokens reached than an eighth of its inputs' channels counts as hardly reached
LEAST = 16  # tokens


def member(name: str, e: int) -> str:
    """Expert `e` of a stacked tensor."""
    return f"{name}.{e}"


def pieces(t: TensorSpec) -> tuple[str, ...]:
    """The names under which a block holds a tensor: its own, or one for each expert."""
    return tuple(member(t.name, e) for e in range(t.shape[0])) if t.expert else (t.name,)


def stack_of(name: str) -> str:
    """The tensor that a block's matrix is stored in."""
    stem, _, last = name.rpartition(".")
    return stem if last.isdecimal() else name


def router(index: int) -> Group:
    """The group of what the router, and with it all experts, reads: every token of the layer."""
    return (f"layers.{index}.router",)


def expert_groups(index: int, ffn: MoE) -> tuple[Group, ...]:
    """(gate, up) of each expert, then down of each."""
    at = f"layers.{index}.experts_"
    both = ((member(f"{at}gate", e), member(f"{at}up", e)) for e in range(ffn.experts))
    return (*both, *((member(f"{at}down", e),) for e in range(ffn.experts)))


def expert_of(group: Group) -> tuple[str, int] | None:
    """(role, expert) of a group of one expert's matrices: (`gate`, 3), (`down`, 3)."""
    stem, _, last = group[0].rpartition(".")
    return (stem.rpartition("experts_")[2], int(last)) if last.isdecimal() else None


def mixture(spec: ModelSpec, index: int) -> MoE:
    ffn = spec.layers[index].ffn
    assert isinstance(ffn, MoE)
    return ffn


def hardly_reached(tokens: int, channels: int) -> bool:
    """Too few tokens to say anything about so many channels."""
    return tokens < max(LEAST, channels // FEW)


def rows_of(chosen: Tensor, e: int) -> Tensor:
    """Indices of the tokens that chose expert `e`, of (tokens, active) choices, in order."""
    return (chosen == e).any(-1).nonzero().flatten()


def counts_of(choices: list[Tensor], experts: int) -> list[int]:
    """Tokens that chose each expert."""
    found = torch.zeros(experts, dtype=torch.int64)
    for chosen in choices:
        found += torch.bincount(chosen.flatten().long(), minlength=experts)
    return [int(n) for n in found]


def stacked(parts: list[QuantizedTensor]) -> QuantizedTensor:
    """The experts' matrices one below the other."""
    arrays = zip(*(p.parameters.arrays() for p in parts), strict=True)
    joined = (None if a[0] is None else np.concatenate(a) for a in arrays)
    codes = np.concatenate([p.codes for p in parts])
    return QuantizedTensor.of(parts[0].grid, codes, Parameters(*joined))  # type: ignore[arg-type]


def stacked_floats(t: TensorSpec, tensors: Mapping[str, Tensor]) -> npt.NDArray[np.float32]:
    """A float tensor in its own shape, of a block's."""
    if not t.expert:
        return tensors[t.name].numpy()
    return np.stack([tensors[n].numpy() for n in pieces(t)])


def with_tokens(report: LayerReport, reached: int, pooled: bool) -> LayerReport:
    """A report that says how many tokens reached the expert, and where too few did."""
    why = f"only {reached} tokens reached it: judged on all of the layer's" if pooled else None
    both = "; ".join(w for w in (why, report.fallback) if w is not None)
    return replace(report, tokens=reached, fallback=both or None)


def summed_up(t: TensorSpec, result: BlockResult) -> None:
    """Add the stacked tensor's own error, time and report to those of its experts, weighed by their tokens."""
    names = pieces(t)
    size = sum(result.sizes[n] for n in names)
    off = sum(result.errors[n] ** 2 * result.sizes[n] for n in names)
    result.errors[t.name] = float(np.sqrt(off / size)) if size else 0.0
    result.seconds[t.name] = sum(result.seconds[n] for n in names)
    reports = [result.reports[n] for n in names]
    tokens = [r.tokens or 0 for r in reports]
    total = sum(tokens)
    weights = [n / total if total else 1 / len(tokens) for n in tokens]
    result.reports[t.name] = LayerReport(
        sum(w * r.error_before for w, r in zip(weights, reports, strict=True)),
        sum(w * r.error_after for w, r in zip(weights, reports, strict=True)),
        _fallen(reports),
        total,
    )


def _fallen(reports: list[LayerReport]) -> str | None:
    fallen = [e for e, r in enumerate(reports) if r.fallback is not None]
    return f"{len(fallen)} of {len(reports)} experts fell back, see the report" if fallen else None


def split(t: TensorSpec, values: npt.NDArray[np.float32]) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """The pieces of a tensor's values, by name."""
    if not t.expert:
        yield t.name, values
        return
    yield from zip(pieces(t), values.reshape(t.shape), strict=True)
