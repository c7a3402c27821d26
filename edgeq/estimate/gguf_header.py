"""The header of a GGUF file: fixed part, metadata with the vocabulary, one entry a tensor.

The entries follow from the tensor names; the metadata is nearly all vocabulary, a constant of the tokenizer. Known
constants come from published files; for other vocabularies an average per token stands in and the size is an estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

from edgeq.estimate.gguf import ALIGNMENT, gguf_tensors, rope_table_bytes, tensor_bytes
from edgeq.model.spec import ModelSpec

# (family, vocabulary, layers, hidden) -> bytes of the whole header of the published file.
# llama-2-7b: 741,056; Qwen3-0.6B: 639,446,688 file bytes less 633,495,552 of tensors;
# SmolLM2-135M-Instruct: data offset of the published Q4_1 file.
KNOWN_HEADERS = {
    ("llama", 32000, 32, 4096): 741_056,
    ("qwen3", 151936, 28, 1024): 5_951_136,
    ("llama", 49152, 30, 576): 1_785_664,
}
# Metadata bytes per token, tensor entries left out: SentencePiece (string, score, type: Llama 2) and byte-level BPE
# (string, type, merge: SmolLM2 and Qwen3 give 36 and 39).
_SPM_BYTES, _BPE_BYTES = 22.6, 38.0
_LLAMA3_VOCABULARY, _LLAMA3_BYTES = range(128_000, 128_300), 61.0  # 280,147 merges, two a token
_OTHER_METADATA = 2_000  # architecture, names, chat template
_NAMES = {
    "embed": "token_embd.weight",
    "final_norm": "output_norm.weight",
    "head": "output.weight",
    "o": "attn_output.weight",
}


@dataclass(frozen=True, slots=True)
class Header:
    """`exact` when the size was read from a published file of this very shape."""

    n_bytes: int
    exact: bool
    source: str


def header(spec: ModelSpec) -> Header:
    """Size of the header; the same for every file type of a model."""
    known = KNOWN_HEADERS.get((spec.family, spec.vocab_size, spec.n_layers, spec.hidden_size))
    if known is not None:
        return Header(known, True, "the published file of this model")
    per_token = _bytes_per_token(spec)
    size = 24 + _entries(spec) + _OTHER_METADATA + int(per_token * spec.vocab_size)
    padded = -(-size // ALIGNMENT) * ALIGNMENT
    return Header(padded, False, f"{per_token:g} bytes a token, the average of published vocabularies")


def _bytes_per_token(spec: ModelSpec) -> float:
    if spec.vocab_size in _LLAMA3_VOCABULARY:
        return _LLAMA3_BYTES
    return _SPM_BYTES if spec.vocab_size <= 32_100 or spec.family.startswith("gemma") else _BPE_BYTES


@lru_cache(maxsize=256)
def file_bytes(spec: ModelSpec, file_type: str, imatrix: bool = False) -> int:
    """Bytes of the whole file; exact when `header(spec).exact`."""
    return header(spec).n_bytes + tensor_bytes(spec, file_type, imatrix) + rope_table_bytes(spec)


@cache
def _entries(spec: ModelSpec) -> int:
    """An entry is a string (8 + length), the rank (4), the dimensions (8 each), the type (4) and the offset (8)."""
    total = 0
    for t in gguf_tensors(spec, "F16"):
        short = t.spec.name.rsplit(".", 1)[-1]
        name = _NAMES.get(short, f"attn_{short}.weight")
        prefix = len(f"blk.{t.spec.layer}.") if t.spec.layer is not None else 0
        total += 8 + prefix + len(name) + 4 + 8 * len(t.spec.shape) + 12
    return total
