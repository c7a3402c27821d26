"""Where the experts of a Hugging Face checkpoint lie, and reading them as one (experts, out, in) tensor a role.

Hub files have a matrix for each expert, or one tensor for all of them (transformers 5 may save so what the hub has
one by one), gate and up together; gpt-oss has (in, out) matrices with gate and up in turns, or MXFP4 blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError
from edgeq.model.safetensors_file import SafetensorsFile
from edgeq.model.spec import ModelSpec, MoE
from edgeq.model.tensors import TensorSpec, tensors

Floats = npt.NDArray[np.float32]
ROLES = ("gate", "up", "down")
_MIXTRAL = dict(zip(ROLES, ("w1", "w3", "w2"), strict=True))
# What four bits of MXFP4 stand for: a sign, two bits of exponent, one of mantissa (OCP Microscaling, 2023).
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
E8M0_BIAS = 127


@dataclass(frozen=True, slots=True)
class ExpertSlice:
    """The experts of one role, or their biases.

    Attributes:
        names: a tensor of the file for each expert, or one for all.
        start, step, count: which of an expert's rows are this role's; None: all of them.
        transposed: the file's matrices are (in, out).
        packed: MXFP4: `names` is the one of the blocks (experts, out, blocks, 16), two values a byte, the lower four
            bits first; the exponents (experts, out, blocks) lie under `scales`.
    """

    names: tuple[str, ...]
    start: int = 0
    step: int = 1
    count: int | None = None
    transposed: bool = False
    packed: bool = False

    @property
    def scales(self) -> str:
        return self.names[0].removesuffix("blocks") + "scales"


def expert_slices(spec: ModelSpec, stored: Collection[str], prefix: str) -> dict[str, ExpertSlice]:
    """Canonical name (`layers.3.experts_gate`, `layers.3.experts_gate_bias`) -> where it lies.

    Args:
        stored: the names in the files.
        prefix: what stands before `layers.`.
    """
    found = {}
    for t in tensors(spec):
        if not t.expert:
            continue
        assert t.layer is not None
        ffn = spec.layers[t.layer].ffn
        assert isinstance(ffn, MoE)
        found[t.name] = _slice(spec, ffn, t, f"{prefix}layers.{t.layer}.", stored)
    return found


def _slice(spec: ModelSpec, f: MoE, t: TensorSpec, at: str, stored: Collection[str]) -> ExpertSlice:
    part = t.name.rpartition("experts_")[2]
    role, bias = part.removesuffix("_bias"), part.endswith("_bias")
    width, up = f.intermediate, role == "up"
    if spec.family == "gpt_oss":
        name = f"{at}mlp.experts.{'down' if role == 'down' else 'gate_up'}_proj{'_bias' if bias else ''}"
        packed = not bias and f"{name}_blocks" in stored
        name = f"{name}_blocks" if packed else name
        turned = not bias and not packed
        if role == "down":
            return ExpertSlice((name,), transposed=turned, packed=packed)
        return ExpertSlice((name,), int(up), 2, width, turned, packed)
    if spec.family.startswith("granitemoe"):
        stem, end = f"{at}block_sparse_moe.", ".weight"
        fused, down = f"{stem}input_linear{end}", f"{stem}output_linear{end}"
    else:
        stem, end = f"{at}mlp.experts.", ""
        fused, down = f"{stem}gate_up_proj", f"{stem}down_proj"
        if fused not in stored:
            return ExpertSlice(_one_each(spec.family, at, role, f.experts))
    if role == "down":
        return ExpertSlice((down,))
    return ExpertSlice((fused,), width * up, 1, width)


def _one_each(family: str, at: str, role: str, experts: int) -> tuple[str, ...]:
    if family == "mixtral":
        return tuple(f"{at}block_sparse_moe.experts.{e}.{_MIXTRAL[role]}.weight" for e in range(experts))
    return tuple(f"{at}mlp.experts.{e}.{role}_proj.weight" for e in range(experts))


class ExpertFiles:
    """The experts of a folder's safetensors files.

    Args:
        files: tensor name -> the file that holds it.
        slices: from `expert_slices`.
    """

    def __init__(self, files: Mapping[str, SafetensorsFile], slices: dict[str, ExpertSlice]) -> None:
        self._files = files
        self.slices = slices

    def check(self, t: TensorSpec) -> str | None:
        """What is wrong with the file's tensors for `t`, in words; None: nothing.

        Raises:
            KeyError: a tensor that is not there, by its name.
        """
        at = self.slices[t.name]
        for name in (*at.names, *((at.scales,) if at.packed else ())):
            if name not in self._files:
                raise KeyError(name)
            shape, wanted = self._shape(name), self._wanted(t, at, name)
            if shape != wanted:
                return f"tensor {name} has shape {list(shape)}, the configuration needs {list(wanted)} for {t.name}"
        return None

    def read(self, t: TensorSpec, experts: slice) -> Floats:
        """float32 (experts asked for, ...): in the shape that `edgeq.model.tensors` gives."""
        out = np.empty((len(range(*experts.indices(t.shape[0]))), *t.shape[1:]), np.float32)
        for place, e in enumerate(range(*experts.indices(t.shape[0]))):  # an expert at a time: they are many
            out[place] = self._one(t, self.slices[t.name], e)
        return out

    def _one(self, t: TensorSpec, at: ExpertSlice, e: int) -> Floats:
        name = at.names[0] if len(at.names) == 1 else at.names[e]
        file, one = self._files[name], slice(e, e + 1)
        if at.packed:
            whole = mxfp4(self._bytes(name, e), self._bytes(at.scales, e))
        elif len(at.names) > 1:
            whole = file.read(name)
        else:
            whole = file.read(name, one)[0]
        if at.transposed:
            whole = whole.T
        return whole if at.count is None else whole[at.start :: at.step][: at.count]

    def _bytes(self, name: str, e: int) -> npt.NDArray[np.uint8]:
        file = self._files[name]
        info = file.tensors[name]
        if info.dtype != "U8":
            raise EdgeqError(f"tensor {name} is stored as {info.dtype}, MXFP4 is bytes", where=file.path)
        found: npt.NDArray[np.uint8] = file.raw(name).reshape(info.shape)[e]
        return found

    def _shape(self, name: str) -> tuple[int, ...]:
        return self._files[name].tensors[name].shape

    def _wanted(self, t: TensorSpec, at: ExpertSlice, name: str) -> tuple[int, ...]:
        experts, rows, *columns = t.shape
        if at.count is not None:  # gate and up are together
            rows *= 2
        if len(at.names) > 1:
            return (rows, *columns)
        if at.packed:
            blocks = columns[0] // 32
            return (experts, rows, blocks) if name == at.scales else (experts, rows, blocks, 16)
        return (experts, *columns, rows) if at.transposed else (experts, rows, *columns)


def mxfp4(blocks: npt.NDArray[np.uint8], scales: npt.NDArray[np.uint8]) -> Floats:
    """MXFP4 (rows, blocks, 16) with exponents (rows, blocks) -> float32 (rows, 32 * blocks), exact."""
    values = np.empty((*blocks.shape, 2), np.float32)
    values[..., 0] = E2M1[blocks & 15]
    values[..., 1] = E2M1[blocks >> 4]
    exponents = scales.astype(np.int32) - E8M0_BIAS
    with np.errstate(over="ignore"):  # the largest exponent with the largest value is infinite: a reader says so
        return np.ldexp(values.reshape(*scales.shape, 32), exponents[..., None]).reshape(len(blocks), -1)
