"""A llama checkpoint of random bfloat16 weights in the shape of a 7B model, written without ever holding a matrix.

One safetensors file a layer, one for the embedding and one for the rest, so that a model of fewer of the same blocks
is another folder with links to the same files.
"""

from __future__ import annotations

import json
import math
import os
import random
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HIDDEN, MLP, HEADS, VOCAB, LAYERS = 4096, 11008, 32, 32000, 32
SPREAD = 0.02  # standard deviation of a weight: `initializer_range` of the llama models
DRAWN = 1 << 22  # weights drawn at once
LETTERS = string.ascii_letters
INDEX = "model.safetensors.index.json"

Sizes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class BigModel:
    """A folder with a checkpoint of so many layers."""

    folder: Path
    layers: int

    @property
    def weights(self) -> int:
        return sum(math.prod(size) for part in _parts(self.layers).values() for size in part.values())

    @property
    def bytes(self) -> int:
        return 2 * self.weights


def write_model(folder: Path, layers: int, seed: int = 0) -> BigModel:
    """Config, tokenizer, index and shards."""
    folder.mkdir(parents=True)
    for at, (name, sizes) in enumerate(_parts(layers).items()):
        write_shard(folder / name, sizes, np.random.default_rng([seed, at]))
    _write_facts(folder, layers)
    return BigModel(folder, layers)


def first_blocks(model: BigModel, folder: Path, layers: int) -> BigModel:
    """The model of the first blocks alone: links to the same weights."""
    folder.mkdir(parents=True)
    for name in _parts(layers):
        os.link(model.folder / name, folder / name)
    _write_facts(folder, layers)
    return BigModel(folder, layers)


def write_text(path: Path, tokens: int, seed: int = 0) -> None:
    """Random words in which the tokenizer finds that many tokens or more, a good part of them distinct."""
    draw = random.Random(seed)
    words = ("".join(draw.choices(LETTERS, k=draw.randint(3, 11))) for _ in range(tokens))
    path.write_text(" ".join(words))


def _parts(layers: int) -> dict[str, Sizes]:
    """File name -> tensor name -> shape."""
    square = (HIDDEN, HIDDEN)
    block: Sizes = {f"self_attn.{p}_proj": square for p in "qkvo"}
    block |= {"mlp.gate_proj": (MLP, HIDDEN), "mlp.up_proj": (MLP, HIDDEN), "mlp.down_proj": (HIDDEN, MLP)}
    block |= {"input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,)}
    found: dict[str, Sizes] = {"embed.safetensors": {"model.embed_tokens.weight": (VOCAB, HIDDEN)}}
    for i in range(layers):
        sizes = {f"model.layers.{i}.{part}.weight": size for part, size in block.items()}
        found[f"layer-{i:02}.safetensors"] = sizes
    found["final.safetensors"] = {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}
    return found


def write_shard(path: Path, sizes: Sizes, draw: np.random.Generator) -> None:
    """Safetensors: length of the header, the header, the values (https://github.com/huggingface/safetensors#format)."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, size in sizes.items():
        end = at + 2 * math.prod(size)
        table[name], at = {"dtype": "BF16", "shape": list(size), "data_offsets": [at, end]}, end
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        for size in sizes.values():
            for values in _values(size, draw):
                stream.write(values.data)


def _values(size: tuple[int, ...], draw: np.random.Generator) -> Iterator[npt.NDArray[np.uint16]]:
    """Bits of bfloat16 values, a part at a time: picked from 2^16 draws of a normal distribution; a norm's are ones."""
    normal = _bfloat16(draw.standard_normal(1 << 16, np.float32) * np.float32(SPREAD))
    left = math.prod(size)
    while left:
        count = min(left, DRAWN)
        if len(size) == 1:
            yield _bfloat16(np.ones(count, np.float32))
        else:
            yield normal[np.frombuffer(draw.bytes(2 * count), np.uint16)]
        left -= count


def _bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The upper half of a float32, cut off."""
    return (values.view(np.uint32) >> 16).astype("<u2")


def _write_facts(folder: Path, layers: int) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "vocab_size": VOCAB,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    names = {tensor: file for file, sizes in _parts(layers).items() for tensor in sizes}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))


def tokenizer() -> dict[str, Any]:
    """Byte-level BPE that knows every byte and every pair of letters."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in plain]  # GPT-2's alphabet: these are shown as what follows U+0100
    alphabet = [chr(b) for b in plain] + [chr(256 + i) for i in range(len(others))]
    pairs = [(a, b) for a in LETTERS for b in LETTERS]
    vocabulary = {token: i for i, token in enumerate([*alphabet, *(a + b for a, b in pairs)])}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": level,
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [list(p) for p in pairs]},
    }
