"""What a `quantization_config` says: how each module of a quantized folder is laid out. One class a layout."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.errors import EdgeqError
from edgeq.formats import awq, compressed, gptq
from edgeq.formats.uniform import Array
from edgeq.model.safetensors_file import TensorInfo

READABLE = "GPTQ, AWQ (gemm), AutoRound, compressed-tensors' integers, and GGUF"
HINT = f"It reads {READABLE}"
Find = Callable[[str], TensorInfo | None]  # a tensor of the files
Read = Callable[[str], Array]


class Stored(ABC):
    """How the modules of a folder are stored.

    Attributes:
        method: what the configuration calls it.
        kind: name of the layout, for a scheme's name.
    """

    method: str
    kind: str

    @abstractmethod
    def holds(self, module: str, find: Find) -> bool:
        """This module's weight is quantized. Raises an EdgeqError where it is, in a way that can't be read."""

    @abstractmethod
    def rows(self, module: str, columns: int, find: Find) -> int:
        """Output channels of a quantized module with so many input channels."""

    @abstractmethod
    def load(self, module: str, columns: int, find: Find, read: Read) -> QuantizedTensor: ...

    def activation(self, module: str, find: Find, read: Read) -> ActivationGrid | None:
        """What the input of a quantized module is rounded to."""
        return None


@dataclass
class GptqStored(Stored):
    method: str
    group_size: int | None
    zeros: gptq.Zeros
    groups: Mapping[str, int] = field(default_factory=dict)  # pattern -> group size of modules that differ
    kind: str = "gptq"

    def holds(self, module: str, find: Find) -> bool:
        return find(f"{module}.qweight") is not None

    def rows(self, module: str, columns: int, find: Find) -> int:
        shape = _needed(find, f"{module}.qweight").shape
        gptq.gptq_bits(shape, columns, module)
        return shape[1]

    def load(self, module: str, columns: int, find: Find, read: Read) -> QuantizedTensor:
        parts = _parts(module, gptq.PARTS, find, read, optional=("g_idx",))
        stated = next((g for p, g in self.groups.items() if re.match(p, module)), self.group_size)
        return gptq.from_gptq(parts, columns, stated, self.zeros, module)


@dataclass
class AwqStored(Stored):
    method: str
    group_size: int | None
    kind: str = "awq"

    def holds(self, module: str, find: Find) -> bool:
        return find(f"{module}.qweight") is not None

    def rows(self, module: str, columns: int, find: Find) -> int:
        return awq.awq_rows(_needed(find, f"{module}.qweight").shape, columns, module)

    def load(self, module: str, columns: int, find: Find, read: Read) -> QuantizedTensor:
        return awq.from_awq(_parts(module, awq.PARTS, find, read), columns, self.group_size, module)


@dataclass
class CompressedStored(Stored):
    groups: list[dict[str, Any]]
    method: str = "compressed-tensors"
    kind: str = "compressed-tensors"

    def holds(self, module: str, find: Find) -> bool:
        if find(f"{module}.weight_packed") is not None:
            return True
        plain = find(f"{module}.weight")
        if plain is None or find(f"{module}.weight_scale") is None:
            return False
        if plain.dtype != "I8":
            raise EdgeqError(f"weights stored as {plain.dtype} can't be converted", where=module, hint=HINT)
        return True

    def rows(self, module: str, columns: int, find: Find) -> int:
        packed = find(f"{module}.weight_packed")
        if packed is not None:
            return compressed.packed_rows(packed.shape, columns, self._weights(module)[0], module)
        return _needed(find, f"{module}.weight").shape[0]

    def load(self, module: str, columns: int, find: Find, read: Read) -> QuantizedTensor:
        bits, stated = self._weights(module)
        if find(f"{module}.weight_packed") is None:
            parts = _parts(module, compressed.PLAIN, find, read, optional=("weight_zero_point",))
            return compressed.from_plain(parts, stated, module)
        optional = ("weight_zero_point", "weight_g_idx")
        return compressed.from_packed(
            _parts(module, compressed.PACKED, find, read, optional=optional), columns, stated, bits, module
        )

    def activation(self, module: str, find: Find, read: Read) -> ActivationGrid | None:
        args = self._group(module).get("input_activations")
        if args is None:
            return None
        names = ("input_scale", "input_zero_point")
        return compressed.from_input(args, _parts(module, names, find, read, optional=names), module)

    def _weights(self, module: str) -> tuple[int, int | None]:
        """Bits of a code, and the stated group size."""
        args = self._group(module).get("weights") or {}
        bits, group = args.get("num_bits"), args.get("group_size")
        if args.get("type", "int") != "int" or not isinstance(bits, int) or not 1 <= bits <= 8:
            what = f"weights of {bits}-bit {args.get('type', 'int')} values can't be converted"
            raise EdgeqError(what, where=module, hint=HINT)
        if args.get("strategy") in ("channel", "tensor"):
            group = -1
        return bits, group if isinstance(group, int) else None

    def _group(self, module: str) -> dict[str, Any]:
        """The group of the configuration that speaks of a module: by its name before by its class."""
        for exact in (True, False):
            for group in self.groups:
                if any(_speaks_of(str(t), module, exact) for t in group.get("targets") or ()):
                    return group
        raise EdgeqError("no group of the quantization_config speaks of this module", where=module)


def _speaks_of(target: str, module: str, exact: bool) -> bool:
    if not exact:
        return target == "Linear"
    if target.startswith("re:"):
        return _matches(target[3:], module)
    return target == module


def _matches(pattern: str, module: str) -> bool:
    try:
        return re.match(pattern, module) is not None
    except re.error as error:
        raise EdgeqError(f"a target of the quantization_config is no pattern: {pattern[:80]!r}") from error


def stored_as(config: Mapping[str, Any], where: object) -> Stored:
    """The layout that a model's `quantization_config` names.

    Raises:
        EdgeqError: one that can't be read, or a damaged configuration.
    """
    method = str(config.get("quant_method", "")).lower()
    if method == "compressed-tensors":
        return _compressed(config, where)
    if method in ("auto-round", "autoround", "intel/auto-round"):
        return _auto_round(config, where)
    if method == "gptq":
        return _gptq(config, where)
    if method == "awq":
        return _awq(config, where)
    named = f"the quantization method {method!r}" if method else "a quantization_config without a quant_method"
    raise EdgeqError(f"{named} can't be converted", where=where, hint=HINT)


def _gptq(config: Mapping[str, Any], where: object) -> Stored:
    layout = str(config.get("checkpoint_format") or config.get("format") or "gptq").lower()
    if layout not in ("gptq", "gptq_v2"):
        raise EdgeqError(f"the GPTQ layout {layout!r} can't be converted", where=where, hint=HINT)
    groups = {
        pattern: int(told["group_size"])
        for pattern, told in _dynamic(config)
        if isinstance(told.get("group_size"), int) and _compiles(pattern, where)
    }
    zeros: gptq.Zeros = "gptq_v2" if layout == "gptq_v2" else "gptq"
    return GptqStored("gptq", _group_size(config, where), zeros, groups)


def _dynamic(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """GPTQModel's exceptions: a pattern after `+:` and what is different there."""
    told = config.get("dynamic")
    for pattern, entry in (told if isinstance(told, dict) else {}).items():
        if isinstance(entry, dict) and not pattern.startswith("-:"):
            yield pattern.removeprefix("+:"), entry


def _compiles(pattern: str, where: object) -> bool:
    try:
        re.compile(pattern)
    except re.error as error:
        raise EdgeqError(f"a pattern of the quantization_config is none: {pattern[:80]!r}", where=where) from error
    return True


def _awq(config: Mapping[str, Any], where: object) -> Stored:
    version, bits = str(config.get("version") or config.get("format") or "gemm").lower(), config.get("bits", 4)
    if version != "gemm" or bits != 4:
        raise EdgeqError(f"AWQ of {bits} bits in the layout {version!r} can't be converted", where=where, hint=HINT)
    return AwqStored("awq", _group_size(config, where))


def _auto_round(config: Mapping[str, Any], where: object) -> Stored:
    packing = str(config.get("packing_format") or "auto_round:auto_gptq").lower()
    kind = packing.rpartition(":")[2]
    group = _group_size(config, where)
    acts = config.get("act_bits") or 16
    if str(config.get("data_type", "int")) != "int" or not isinstance(acts, int) or acts < 16:
        what = f"AutoRound's {config.get('data_type', 'int')} weights with {acts}-bit activations"
        raise EdgeqError(f"{what} can't be converted", where=where, hint=HINT)
    if kind in ("auto_awq", "awq"):
        return AwqStored("auto-round", group)
    zeros: dict[str, gptq.Zeros] = {"auto_gptq": "fields", "gptq": "fields", "gptqmodel": "gptq_v2"}
    zeros["auto_round"] = "gptq_v2"
    if kind not in zeros:
        raise EdgeqError(f"AutoRound's packing {packing!r} can't be converted", where=where, hint=HINT)
    return GptqStored("auto-round", group, zeros[kind])


def _compressed(config: Mapping[str, Any], where: object) -> Stored:
    groups = config.get("config_groups")
    known = ("pack-quantized", "int-quantized", "naive-quantized", "mixed-precision")
    layout = str(config.get("format", "pack-quantized"))
    if layout not in known:
        raise EdgeqError(f"the compressed-tensors layout {layout!r} can't be converted", where=where, hint=HINT)
    listed = list(groups.values()) if isinstance(groups, dict) else []
    if not listed:
        raise EdgeqError("the quantization_config names no groups", where=where)
    for group in listed:
        _check_group(group, where)
        layout = str(group.get("format") or known[0])
        if layout not in known or group.get("output_activations") is not None:
            what = f"layout {layout!r}" if layout not in known else "quantized outputs"
            raise EdgeqError(f"compressed-tensors' {what} can't be converted", where=where, hint=HINT)
    transforms = config.get("transform_config")
    if isinstance(transforms, dict) and transforms.get("config_groups"):
        raise EdgeqError("compressed-tensors' transforms at run time can't be converted", where=where, hint=HINT)
    return CompressedStored(listed)


def _check_group(group: Any, where: object) -> None:
    """A group is a table whose parts have the types that are relied on."""
    good = isinstance(group, dict) and isinstance(group.get("targets", []), list)
    for part in ("weights", "input_activations") if good else ():
        args = group.get(part)
        good = good and (args is None or isinstance(args, dict))
        bits = args.get("num_bits", 8) if isinstance(args, dict) else 8
        good = good and isinstance(bits, int) and not isinstance(bits, bool)
    if not good:
        raise EdgeqError("a group of the quantization_config is damaged", where=where)


def _group_size(config: Mapping[str, Any], where: object) -> int | None:
    value = config.get("group_size", config.get("q_group_size"))
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or (value < 1 and value != -1):
        raise EdgeqError(f"the quantization_config's group_size is {value!r}", where=where)
    return value


def _needed(find: Find, name: str) -> TensorInfo:
    info = find(name)
    if info is None:
        raise EdgeqError(f"the model lacks the tensor {name}", hint="Fetch it again")
    return info


def _parts(
    module: str, names: tuple[str, ...], find: Find, read: Read, *, optional: tuple[str, ...] = ()
) -> dict[str, Array]:
    """The module's parts by their last name.

    Raises:
        EdgeqError: one that is needed is missing.
    """
    found = {}
    for name in names:
        if find(f"{module}.{name}") is None:
            if name in optional:
                continue
            _needed(find, f"{module}.{name}")
        found[name] = read(f"{module}.{name}")
    return found
