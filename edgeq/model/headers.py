"""What safetensors headers say about a model: a check of the config, or, of an unknown architecture, an estimate."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from edgeq.errors import EdgeqError
from edgeq.model.config import FAMILIES, text_fields
from edgeq.model.fields import Fields
from edgeq.model.spec import MLP, PLAN_ONLY, Attention, Layer, ModelSpec, Rope
from edgeq.model.stored import stored_shapes


class Header(NamedTuple):
    """One tensor as its file states it: safetensors dtype (`BF16`) and shape."""

    dtype: str
    shape: tuple[int, ...]


def of_folder(folder: Path) -> dict[str, Header]:
    """The headers of a folder's safetensors files; empty when there are none (a config alone, or a pickle)."""
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.safetensors.index.json")):
        return {}
    from edgeq.model.safetensors_file import open_shards

    found = ((name, file.tensors[name]) for name, file in open_shards(folder).items())
    return {name: Header(info.dtype, info.shape) for name, info in found}


def dtype(found: Mapping[str, Header]) -> str:
    """The dtype that holds most elements: `bf16`, `f16`, `f32`, ..."""
    sizes: Counter[str] = Counter()
    for header in found.values():
        sizes[header.dtype] += math.prod(header.shape)
    return sizes.most_common(1)[0][0].lower() if sizes else "bf16"


def check(spec: ModelSpec, found: Mapping[str, Header], where: object) -> None:
    """Every tensor the config promises is in the files, with the shape the config implies.

    Raises:
        EdgeqError: naming the tensor, the expected and the found shape.
    """
    for name, shape in stored_shapes(spec, found).items():
        if name not in found:
            raise EdgeqError(f"tensor {name} is missing; the config needs it with shape {list(shape)}", where=where)
        if found[name].shape != shape:
            raise EdgeqError(
                f"tensor {name}: the config needs shape {list(shape)}, the file has {list(found[name].shape)}",
                where=where,
                hint="The config.json belongs to another model, or is damaged",
            )


def estimate(config: Any, found: Mapping[str, Header], *, name: str, where: object) -> ModelSpec:
    """A Llama-shaped guess of an unknown architecture from its tensors' names and shapes, marked as estimated.

    Raises:
        EdgeqError: there are no headers, or they do not show what is needed; the message names it.
    """
    fields = text_fields(config, where)
    family = fields.text("model_type", "unknown")
    if not found:
        raise EdgeqError(
            f"unknown architecture {family!r}, and no safetensors headers to estimate from",
            where=where,
            hint=f"Known: {', '.join(FAMILIES)}",
        )
    table = _Table(found, family, where)
    vocab, hidden = table.shape("the embedding", r"(embed_tokens|wte|tok_embeddings|word_embeddings|embed_in)\.weight$")
    layers = [table.layer(i, hidden, fields) for i in range(table.n_layers)]
    tied = not any(re.search(r"(lm_head|embed_out|^output)\.weight$", n) for n in found)
    spec = ModelSpec(
        name=name,
        family=family,
        hidden_size=hidden,
        vocab_size=vocab,
        layers=tuple(layers),
        tied=tied,
        max_positions=fields.integer("max_position_embeddings", 4096),
        source_dtype=dtype(found),
    )
    return _marked(spec, found, own_code(Fields(config, where)))


def own_code(fields: Fields) -> str | None:
    """The Python file that comes with the model and computes it (transformers' `auto_map`), None where there is none.

    It is only named, never fetched, imported or run.
    """
    named = fields.data.get("auto_map")
    classes = named.values() if isinstance(named, dict) else ()
    files = [c.rpartition("--")[2].partition(".")[0] for c in classes if isinstance(c, str)]
    files = [f for f in files if re.fullmatch(r"[\w-]{1,80}", f)]
    models = [f for f in files if not f.startswith(("configuration", "tokenization"))]
    return f"{(models or files)[0]}.py" if files else None


def _marked(spec: ModelSpec, found: Mapping[str, Header], code: str | None) -> ModelSpec:
    from dataclasses import replace

    from edgeq.model.tensors import parameters

    total = sum(math.prod(h.shape) for h in found.values())
    what = f"{spec.family} is not an architecture edgeq knows"
    if code is not None:
        what = f"{spec.family} is computed by Python code of its own ({code}), which edgeq never runs"
    reasons = [f"{what}: read as attention and MLP from the tensor shapes", PLAN_ONLY]
    counted = parameters(spec)
    if counted != total:
        reasons.append(f"the files hold {total:,} parameters, {counted:,} of them are accounted for")
    return replace(spec, estimated=tuple(reasons))


class _Table:
    """Headers grouped by layer number."""

    def __init__(self, found: Mapping[str, Header], family: str, where: object) -> None:
        self.found, self.family, self.where = found, family, where
        self.by_layer: dict[int, dict[str, tuple[int, ...]]] = {}
        for name, header in found.items():
            match = re.search(r"(?:layers|h|blocks|block)\.(\d{1,4})\.(.+)$", name)
            if match:
                self.by_layer.setdefault(int(match[1]), {})[match[2]] = header.shape
        self.n_layers = len(self.by_layer)
        if not self.n_layers or sorted(self.by_layer) != list(range(self.n_layers)):
            raise self.lacks("numbered layers")

    def lacks(self, what: str) -> EdgeqError:
        return EdgeqError(f"unknown architecture {self.family!r}: its headers do not show {what}", where=self.where)

    def shape(self, what: str, pattern: str) -> tuple[int, int]:
        for name, header in self.found.items():
            if re.search(pattern, name) and len(header.shape) == 2:
                return header.shape[0], header.shape[1]
        raise self.lacks(what)

    def rows(self, i: int, what: str, pattern: str) -> int:
        for name, shape in self.by_layer[i].items():
            if re.search(pattern, name) and len(shape) == 2:
                return shape[0]
        raise self.lacks(f"{what} in layer {i}")

    def layer(self, i: int, hidden: int, fields: Fields) -> Layer:
        q, k = (
            self.rows(i, "a query projection", r"\.(q_proj|wq)\.weight$"),
            self.rows(i, "keys", r"\.(k_proj|wk)\.weight$"),
        )
        heads = fields.integer("num_attention_heads")
        head_dim = fields.integer("head_dim", max(1, q // heads))
        heads, kv_heads = q // head_dim, k // head_dim
        if not heads or not kv_heads or heads % kv_heads:
            raise self.lacks(f"whole heads of {head_dim} in layer {i}")
        rope = Rope(fields.number("rope_theta", 10_000.0), head_dim)
        up = self.rows(i, "an MLP", r"\.(up_proj|w3|fc1|c_fc|fc_in|dense_h_to_4h)\.weight$")
        gated = any(re.search(r"\.(gate_proj|w1)\.weight$", n) for n in self.by_layer[i])
        mixer = Attention(heads, kv_heads, head_dim, 1.0 / math.sqrt(head_dim), rope)
        return Layer(mixer, MLP(up, gated=gated))
