"""The size of a GGUF file before it exists, to the byte where the header is known.

Which block type a tensor takes follows llama.cpp's `llama_tensor_get_type` (src/llama-quant.cpp, 2026); the functions
below restate its rules over tensor roles. A file is its header (metadata, vocabulary, one entry a tensor) and its
tensors, each padded to 32 bytes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from edgeq.estimate.ggml import stored_type, type_bytes
from edgeq.model.spec import Attention, GatedDelta, LatentAttention, ModelSpec, MoE
from edgeq.model.tensors import TensorSpec, tensors
from edgeq.scheme import GGUF_BASE

ALIGNMENT = 32
_DOWN = {"down", "experts_down", "shared_down"}
_FLOAT = {"F16", "BF16"}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor as the file holds it."""

    spec: TensorSpec
    ggml_type: str

    @property
    def n_bytes(self) -> int:
        return type_bytes(self.ggml_type, self.spec.numel)


@lru_cache(maxsize=256)
def gguf_tensors(spec: ModelSpec, file_type: str, imatrix: bool = False) -> tuple[GgufTensor, ...]:
    """Every tensor with its block type. `imatrix`: made with an importance matrix, which changes a few choices."""
    rules = _Rules(spec, file_type, imatrix)
    return tuple(GgufTensor(t, rules.type_of(t)) for t in as_converted(spec))


def tensor_bytes(spec: ModelSpec, file_type: str, imatrix: bool = False) -> int:
    """Bytes of the tensors, each padded to 32 bytes, without the header."""
    kinds = Counter((t.spec.role, t.spec.shape, t.ggml_type) for t in gguf_tensors(spec, file_type, imatrix))
    return sum(n * _align(type_bytes(kind, math.prod(shape))) for (_, shape, kind), n in kinds.items())


def _align(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


@cache
def as_converted(spec: ModelSpec) -> tuple[TensorSpec, ...]:
    """The tensors as llama.cpp's converter writes them: latent attention's `kv_b` in two. Phi-3's matrices
    are fused there, which changes only their type (see `_Rules`)."""
    return tuple(_converted(spec))


def _converted(spec: ModelSpec) -> Iterator[TensorSpec]:
    for t in tensors(spec):
        mixer = spec.layers[t.layer].mixer if t.layer is not None else None
        if t.role == "kv_b" and isinstance(mixer, LatentAttention):
            heads, rank, nope = mixer.heads, mixer.kv_lora_rank, mixer.qk_nope_dim
            yield replace(t, name=t.name.replace("kv_b", "k_b"), role="k_b", shape=(heads, rank, nope))
            yield replace(t, name=t.name.replace("kv_b", "v_b"), role="v_b", shape=(heads, mixer.v_dim, rank))
        else:
            yield t


def rope_table_bytes(spec: ModelSpec) -> int:
    """Bytes of the tables of scaled RoPE frequencies that the converter adds (F32): Llama 3 one, Phi-3 long two."""
    rope = next((m.rope for m in (x.mixer for x in spec.layers) if isinstance(m, Attention) and m.rope), None)
    tables = {"llama3": 1, "longrope": 2}.get(rope.kind, 0) if rope else 0
    return tables * _align(4 * (rope.dim // 2)) if rope else 0


class _Rules:
    """llama.cpp's choice of a block type per tensor, for one model and file type."""

    def __init__(self, spec: ModelSpec, file_type: str, imatrix: bool) -> None:
        self.spec, self.file_type, self.imatrix = spec, file_type, imatrix
        self.base = GGUF_BASE[file_type]
        moes = [x.ffn for x in spec.layers if isinstance(x.ffn, MoE)]
        self.experts = max((m.experts for m in moes), default=0)
        attention = [x.mixer for x in spec.layers if isinstance(x.mixer, Attention)]
        self.gqa = attention[0].heads // attention[0].kv_heads if attention else 1
        # the counter of "attention v" tensors runs over the layers that have one, fused ones included
        with_v = [i for i, x in enumerate(spec.layers) if isinstance(x.mixer, (Attention, GatedDelta))]
        self.v_index = {layer: k for k, layer in enumerate(with_v)}
        self.is_70b = spec.n_layers == 80 and self.gqa > 1 and spec.family in {"llama", "qwen2"}
        self.fused_qkv = spec.family.startswith("phi3")

    def type_of(self, t: TensorSpec) -> str:
        if not self._quantizable(t):
            return "F32"
        if self.base in _FLOAT:
            return self.base
        return stored_type(self._wanted(t), t.shape[-1])

    def _quantizable(self, t: TensorSpec) -> bool:
        """Vectors, norms, routers, convolutions and state matrices stay F32 (`tensor_allows_quantization`)."""
        return t.role == "embed" or t.linear or t.role in {"k_b", "v_b"}

    def _wanted(self, t: TensorSpec) -> str:
        i = t.layer or 0
        if t.role == "head" or (t.role == "embed" and self.spec.tied):
            return self._output(t)
        mixer = self.spec.layers[i].mixer
        if t.role in {"v", "in_qkv"} or (self.fused_qkv and t.role in {"q", "k"}):
            return self._value(self.v_index.get(i, 0))
        if t.role == "k" and self.experts == 8:
            return "Q8_0"
        if t.role in _DOWN:
            return self._down(i)
        if t.role == "o" and isinstance(mixer, (Attention, LatentAttention)):
            return self._attention_output()
        return self.base

    def _output(self, t: TensorSpec) -> str:
        if stored_type(self.base, t.shape[-1]) != self.base:
            return "Q8_0"
        return "Q8_0" if self.base == "Q8_0" else "Q6_K"

    def _value(self, index: int) -> str:
        ft, kind = self.file_type, self.base
        if ft == "Q2_K":
            kind = "Q4_K" if self.gqa >= 4 else "Q3_K"
        elif ft == "Q3_K_M":
            kind = "Q5_K" if index < 2 else "Q4_K"
        elif ft == "Q3_K_L" or (ft in {"IQ4_NL", "IQ4_XS"} and self.gqa >= 4) or (ft == "Q4_K_S" and index < 4):
            kind = "Q5_K"
        elif ft in {"Q4_K_M", "Q5_K_M"} and _more_bits(index, len(self.v_index)):
            kind = "Q6_K"
        if self.is_70b and kind in {"Q3_K", "Q4_K"}:
            kind = "Q5_K"
        return "Q8_0" if self.experts == 8 else kind

    def _down(self, i: int) -> str:
        ft, n = self.file_type, self.spec.n_layers
        first_eighth = i < n // 8
        if ft == "Q2_K":
            return "Q3_K"
        if ft == "Q3_K_M":
            return "Q5_K" if i < n // 16 else "Q4_K"
        if ft == "Q3_K_L":
            return "Q5_K"
        if ft in {"Q4_K_M", "Q5_K_M"} and _more_bits(i, n):
            return "Q6_K"
        if (ft == "Q4_K_S" and first_eighth) or (ft in {"IQ4_NL", "IQ4_XS"} and first_eighth and not self.imatrix):
            return "Q5_K"
        if ft in {"Q4_0", "Q5_0"} and first_eighth and self.imatrix:
            return {"Q4_0": "Q4_1", "Q5_0": "Q5_1"}[ft]
        return self.base

    def _attention_output(self) -> str:
        ft = self.file_type
        if self.experts == 8:
            raised = {"Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ4_NL", "IQ4_XS"}
            return "Q5_K" if ft in raised else self.base
        return {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}.get(ft, self.base)


def _more_bits(i: int, n: int) -> bool:
    """The layers that the `_M` mixtures raise: the first and last eighth, and every third between."""
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2
