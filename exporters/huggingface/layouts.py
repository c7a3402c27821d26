"""The three layouts of a quantized Hugging Face folder: which grids each holds, a module's parts, the configuration."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgeq import __version__
from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.formats import awq, compressed, gptq
from edgeq.formats.uniform import Array, as_uniform
from edgeq.scheme import Grid

HEAD = "lm_head"
_EXPERT = re.compile(r"\.experts\.\d+\.")
Parts = dict[str, Array]


@dataclass(frozen=True, slots=True)
class Kept:
    """How a quantized module is kept: its grid, and what its input is rounded to."""

    grid: Grid
    activation: ActivationGrid | None = None

    @property
    def uniform(self) -> Grid:
        found = as_uniform(self.grid)
        assert found is not None
        return found


Modules = Mapping[str, Kept]


class Layout(ABC):
    """Attributes:
    name: as the exporter is called.
    others: what stores what this one refuses.
    """

    name: ClassVar[str]
    others: ClassVar[str]

    @abstractmethod
    def refuses(self, grid: Grid) -> str | None: ...

    @abstractmethod
    def refuses_module(self, rows: int, columns: int, kept: Kept) -> str | None:
        """Why a module whose grid is not refused can't be stored, or None."""

    def refuses_model(self, quantized: Modules) -> str | None:
        """Why these modules can't be stored together, or None."""
        return None

    def notes(self, quantized: Modules) -> list[str]:
        """What a user of these modules should know of the layout's readers."""
        return []

    @abstractmethod
    def parts(self, q: QuantizedTensor, kept: Kept, quantized: Modules) -> Parts: ...

    @abstractmethod
    def config(self, quantized: Modules, floats: Iterable[str]) -> dict[str, Any]:
        """The `quantization_config`; `floats` are the linear modules that stay float."""


class CompressedLayout(Layout):
    name = "compressed-tensors"
    others = "Export to onnx, openvino or gguf"

    def refuses(self, grid: Grid) -> str | None:
        return compressed.refuses(grid)

    def refuses_module(self, rows: int, columns: int, kept: Kept) -> str | None:
        return compressed.refuses_shape(rows, columns, kept.uniform)

    def parts(self, q: QuantizedTensor, kept: Kept, quantized: Modules) -> Parts:
        plain = self._format(kept) == "int-quantized"
        found = compressed.to_plain(q) if plain else compressed.to_packed(q)
        return found | ({} if kept.activation is None else compressed.to_input(kept.activation))

    def config(self, quantized: Modules, floats: Iterable[str]) -> dict[str, Any]:
        """One group for each way to keep a module; where there is but one, it targets all linear modules."""
        by_scheme: dict[str, list[str]] = {}
        schemes: dict[str, dict[str, Any]] = {}
        for module, kept in quantized.items():
            scheme = self._scheme(kept)
            # transformers looks for the scheme of experts in a group that names no others, and for that of others
            # in the first that names no experts.
            key = f"{_EXPERT.search(module) is not None} {scheme!r}"
            schemes[key] = scheme
            by_scheme.setdefault(key, []).append(module)
        groups = {}
        alike = len({repr(s) for s in schemes.values()}) == 1
        if alike:  # one group for all
            by_scheme = {next(iter(by_scheme)): list(quantized)}
        for i, (key, modules) in enumerate(by_scheme.items()):
            targets = ["Linear", *({HEAD} & set(modules))] if alike else list(_patterns(modules))
            groups[f"group_{i}"] = {"targets": targets, **schemes[key]}
        formats = {s["format"] for s in schemes.values()}
        return {
            "quant_method": "compressed-tensors",
            "format": formats.pop() if len(formats) == 1 else "mixed-precision",
            "quantization_status": "compressed",
            "config_groups": groups,
            "ignore": sorted(floats),
            "kv_cache_scheme": None,
        }

    def notes(self, quantized: Modules) -> list[str]:
        found = []
        if any(self._format(k) == "pack-quantized" and not k.grid.symmetric for k in quantized.values()):
            found.append(
                "transformers 5.23 opens no packed zero points (5.17 does, and vLLM reads them); "
                "quantize with --symmetric where it has to"
            )
        if any(_EXPERT.search(m) for m in quantized):
            found.append("transformers 5.23 unpacks experts to half precision while it loads; vLLM keeps them packed")
        if any(k.activation is not None and k.activation.bits > 8 for k in quantized.values()):
            found.append("16-bit inputs of some layers are computed by transformers; vLLM has no kernel for them")
        return found

    def _format(self, kept: Kept) -> str:
        return "int-quantized" if kept.grid.bits == 8 and kept.activation is not None else "pack-quantized"

    def _scheme(self, kept: Kept) -> dict[str, Any]:
        grid = kept.uniform
        row = grid.group_size == -1
        weights = {
            "num_bits": grid.bits,
            "type": "int",
            "symmetric": grid.symmetric,
            "strategy": "channel" if row else "group",
            "group_size": None if row else grid.group_size,
            "dynamic": False,
        }
        found: dict[str, Any] = {"weights": weights, "format": self._format(kept)}
        if kept.activation is not None:
            dynamic = kept.activation.kind == "dynamic"
            found["input_activations"] = {
                "num_bits": kept.activation.bits,
                "type": "int",
                "symmetric": kept.activation.symmetric,
                "strategy": "token" if dynamic else "tensor",
                "group_size": None,
                "dynamic": dynamic,
            }
        return found


class GptqLayout(Layout):
    name = "gptq"
    others = "Export to compressed-tensors, onnx, openvino or gguf"

    def refuses(self, grid: Grid) -> str | None:
        return gptq.refuses(grid)

    def refuses_module(self, rows: int, columns: int, kept: Kept) -> str | None:
        if kept.activation is not None:
            return "GPTQ stores no quantized activations"
        return gptq.refuses_shape(rows, columns, kept.uniform)

    def parts(self, q: QuantizedTensor, kept: Kept, quantized: Modules) -> Parts:
        return gptq.to_gptq(q, v2=self._v2(quantized))

    def config(self, quantized: Modules, floats: Iterable[str]) -> dict[str, Any]:
        """The most frequent grid for all, and the exceptions by name, as GPTQModel and vLLM read them."""
        usual = _usual(quantized)
        dynamic: dict[str, dict[str, Any]] = {}
        for module, kept in quantized.items():
            if _told(kept.uniform) != _told(usual):
                dynamic[f"+:^{_any_expert(module)}$"] = _told(kept.uniform)
        for module in floats:
            if module != HEAD:
                dynamic[f"-:^{_any_expert(module)}$"] = {}
        return {
            "quant_method": "gptq",
            **_told(usual),
            "desc_act": False,
            "lm_head": HEAD in quantized,
            "checkpoint_format": "gptq_v2" if self._v2(quantized) else "gptq",
            "damp_percent": 0.01,
            "true_sequential": True,
            # AutoRound's loader takes whatever has a `meta` for the second format, which it can't read.
            **({"meta": {"quantizer": [f"edgeq:{__version__}"]}} if self._v2(quantized) else {}),
            **({"dynamic": dynamic} if dynamic else {}),
        }

    def notes(self, quantized: Modules) -> list[str]:
        if not self._v2(quantized):
            return []
        return ["its checkpoint_format is gptq_v2, which GPTQModel, transformers with it, and vLLM read"]

    def _v2(self, quantized: Modules) -> bool:
        """The first format where it is sure to be understood: not every reader knows a zero point of 0 there."""
        return not all(gptq.plain_zeros(k.uniform) for k in quantized.values())


class AwqLayout(Layout):
    name = "awq"
    others = "Export to compressed-tensors, gptq, onnx, openvino or gguf"

    def refuses(self, grid: Grid) -> str | None:
        return awq.refuses(grid)

    def refuses_module(self, rows: int, columns: int, kept: Kept) -> str | None:
        if kept.activation is not None:
            return "AWQ stores no quantized activations"
        return awq.refuses_shape(rows, columns, kept.uniform)

    def refuses_model(self, quantized: Modules) -> str | None:
        sizes = sorted({k.uniform.group_size for k in quantized.values()})
        if len(sizes) > 1:
            return f"AWQ has one group size for all matrices, these have {', '.join(map(str, sizes))}"
        return None

    def parts(self, q: QuantizedTensor, kept: Kept, quantized: Modules) -> Parts:
        return awq.to_awq(q)

    def config(self, quantized: Modules, floats: Iterable[str]) -> dict[str, Any]:
        return {
            "quant_method": "awq",
            "version": "gemm",
            "bits": awq.BITS,
            "group_size": _usual(quantized).group_size,
            "zero_point": True,
            "modules_to_not_convert": sorted(floats) or None,
        }


def _usual(quantized: Modules) -> Grid:
    """The grid that most modules are on."""
    return Counter(k.uniform for k in quantized.values()).most_common(1)[0][0]


def _told(grid: Grid) -> dict[str, Any]:
    return {"bits": grid.bits, "group_size": grid.group_size, "sym": grid.symmetric}


def _any_expert(module: str) -> str:
    """A regular expression for the module, and for its likes of the layer's other experts, which are kept alike."""
    return re.escape(_EXPERT.sub(".experts.@.", module)).replace("@", r"\d+")


def _patterns(modules: Iterable[str]) -> Iterator[str]:
    """Regular expressions that match these modules and no other: one for each place in a layer."""
    places: dict[str, list[str]] = {}
    for module in modules:
        found = re.fullmatch(r"(.*\.layers\.)(\d+)(\..+)", module)
        if found is None:
            yield module
        else:
            layers = places.setdefault(f"{re.escape(found[1])}#{_any_expert(found[3])}", [])
            if found[2] not in layers[-1:]:
                layers.append(found[2])
    for place, layers in places.items():
        some = layers[0] if len(layers) == 1 else f"({'|'.join(layers)})"
        yield f"re:^{place.replace('#', some)}$"
