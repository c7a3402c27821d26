"""The tensors of a Hugging Face folder's files: which of the model's lie in each, and how it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.weights import Weights
from edgeq.errors import EdgeqError
from edgeq.exporters.folder import grid_of
from edgeq.exporters.huggingface.layouts import Kept, Layout
from edgeq.model.experts import ExpertSlice, expert_slices
from edgeq.model.names import hf_names
from edgeq.model.tensors import TensorSpec, tensors

PREFIX = "model."


@dataclass(frozen=True, slots=True)
class Module:
    """A tensor of the files, or the parts of one.

    Attributes:
        members: the model's tensors that lie in it, one below the other; of stacked experts see `edgeq.model.experts`.
        kept: how it is quantized; None: it stays float.
        expert: which of its member's stacked matrices it is; None: all of them, or no experts.
        transposed: stacked matrices are (in, out), and several are in turns.
    """

    name: str
    members: tuple[TensorSpec, ...]
    kept: Kept | None
    expert: int | None = None
    transposed: bool = False

    @property
    def stem(self) -> str:
        return self.name.removesuffix(".weight")

    @property
    def float_linear(self) -> bool:
        """A reader might take it for a quantized matrix, unless it is told."""
        first = self.members[0]
        fused = first.expert and self.expert is None
        return self.kept is None and not fused and (first.linear or (first.role == "router" and len(first.shape) == 2))


def modules(checkpoint: Weights, layout: Layout) -> Iterator[Module]:
    """All tensors of the files.

    Raises:
        EdgeqError: one that the layout can't hold.
    """
    slices, stacked = hf_names(checkpoint.spec), expert_slices(checkpoint.spec, (), PREFIX)
    parts: dict[str, list[TensorSpec]] = {}
    for t in tensors(checkpoint.spec):
        name = stacked[t.name].names[0] if t.expert else slices[t.name].name
        parts.setdefault(name, []).append(t)
    for name, members in parts.items():
        if members[0].expert:
            yield from _experts(checkpoint, members, stacked[members[0].name], layout)
        else:
            members.sort(key=lambda t: slices[t.name].row_start or 0)
            yield Module(name, tuple(members), _kept_together(checkpoint, members, layout))


def refused(layout: Layout, why: str, where: str) -> EdgeqError:
    return EdgeqError(f"this checkpoint can't be exported to {layout.name}: {why}", where=where, hint=layout.others)


def _experts(checkpoint: Weights, members: list[TensorSpec], at: ExpertSlice, layout: Layout) -> Iterator[Module]:
    first = members[0]
    if len(at.names) > 1:
        kept = _kept_together(checkpoint, members, layout)
        for e, name in enumerate(at.names):
            yield Module(name, (first,), kept, e)
        return
    if any(t.linear and grid_of(checkpoint, t).kind != "float" for t in members):
        family = checkpoint.spec.family
        why = f"the experts of {family} are one tensor for all, which its readers take as floats only"
        raise refused(layout, why, first.name)
    yield Module(at.names[0], tuple(members), None, transposed=at.step == 2 or at.transposed)


def _kept_together(checkpoint: Weights, members: list[TensorSpec], layout: Layout) -> Kept | None:
    """How matrices that lie in one tensor are kept; None: as floats."""
    ways = {_kept(checkpoint, t, layout) for t in members}
    if len(ways) > 1:
        what = "Hugging Face keeps these matrices as one, which needs one grid"
        raise refused(layout, what, " + ".join(t.name for t in members))
    kept, first = ways.pop(), members[0]
    if kept is None:
        return None
    why = layout.refuses_module(sum(t.shape[-2] for t in members), first.shape[-1], kept)
    if why is not None and first.role != "head":
        raise refused(layout, why, first.name)
    return kept if why is None else None


def _kept(checkpoint: Weights, t: TensorSpec, layout: Layout) -> Kept | None:
    """How the layout keeps a tensor quantized; None: as floats.

    Raises:
        EdgeqError: a linear layer on a grid that it refuses.
    """
    grid = grid_of(checkpoint, t)
    if grid.kind == "float" or not t.linear:
        return None
    why = layout.refuses(grid)
    if why is None:
        return Kept(grid, _activation(checkpoint, t.name))
    if t.role == "head":
        return None
    raise refused(layout, why, t.name)


def _activation(checkpoint: Weights, name: str) -> ActivationGrid | None:
    asked = getattr(checkpoint, "activation", None)
    found: ActivationGrid | None = None if asked is None else asked(name)
    return found
