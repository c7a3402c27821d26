"""Models to measure with: a Hugging Face folder with random weights, and a GGUF file of any llama folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Shape:
    layers: int
    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    head_dim: int
    positions: int = 8192


SHAPES = {
    "1b": Shape(layers=16, hidden=2048, mlp=5632, heads=32, kv_heads=8, head_dim=64),
    # Narrow and shallow, so that a prompt of 16,384 tokens takes seconds and the cache is most of what a token reads.
    "16k": Shape(layers=4, hidden=512, mlp=1408, heads=8, kv_heads=2, head_dim=64, positions=20480),
}


def random_llama(shape: Shape, tokenizer_from: Path, out: Path) -> Path:
    """A llama folder (float16 weights, tied embedding) with the tokenizer of another model."""
    from safetensors.numpy import save_file

    out.mkdir(parents=True)
    config = json.loads((tokenizer_from / "config.json").read_text("utf-8"))
    config |= {"hidden_size": shape.hidden, "num_hidden_layers": shape.layers, "intermediate_size": shape.mlp}
    config |= {"num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim}
    config |= {"max_position_embeddings": shape.positions}
    config |= {"dtype": "float16", "torch_dtype": "float16", "tie_word_embeddings": True}
    (out / "config.json").write_text(json.dumps(config))
    for file in tokenizer_from.glob("*token*"):
        shutil.copy(file, out)
    draw = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> npt.NDArray[np.float16]:
        return (draw.standard_normal((rows, columns), np.float32) * 0.02).astype(np.float16)

    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sizes = {"self_attn.q_proj": (q, shape.hidden), "self_attn.k_proj": (kv, shape.hidden)}
    sizes |= {"self_attn.v_proj": (kv, shape.hidden), "self_attn.o_proj": (shape.hidden, q)}
    sizes |= {"mlp.gate_proj": (shape.mlp, shape.hidden), "mlp.up_proj": (shape.mlp, shape.hidden)}
    sizes |= {"mlp.down_proj": (shape.hidden, shape.mlp)}
    ones = np.ones(shape.hidden, np.float16)
    tensors = {"model.embed_tokens.weight": matrix(config["vocab_size"], shape.hidden), "model.norm.weight": ones}
    for i in range(shape.layers):
        at = f"model.layers.{i}"
        tensors |= {f"{at}.{name}.weight": matrix(*size) for name, size in sizes.items()}
        tensors |= {f"{at}.{name}.weight": ones for name in ("input_layernorm", "post_attention_layernorm")}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


def write_gguf(folder: Path, out: Path, kind: str, embed: str = "Q8_0") -> Path:
    """A llama folder as GGUF, every matrix `kind` (F32, Q4_0, Q4_1 or Q8_0), the embedding `embed`.

    Names and the order of rows in q and k follow llama.cpp's converter for its rotary embedding:
    https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf.py
    """
    import gguf

    config = json.loads((folder / "config.json").read_text("utf-8"))
    writer = gguf.GGUFWriter(out, "llama")
    _write_facts(writer, config, folder)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    codes, embed_codes = gguf.GGMLQuantizationType[kind], gguf.GGMLQuantizationType[embed]
    for name, weight in _read(folder):
        ours = _gguf_name(name)
        if ours is None:
            continue
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            weight = _interleave(weight, heads if "q_proj" in name else kv_heads)
        if weight.ndim == 1:
            writer.add_tensor(ours, weight)
        else:
            wanted = embed_codes if ours == "token_embd.weight" else codes
            writer.add_tensor(ours, gguf.quants.quantize(weight, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def _write_facts(writer: Any, config: dict[str, Any], folder: Path) -> None:
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    rope = config.get("rope_parameters") or {}
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(float(config.get("rope_theta") or rope.get("rope_theta") or 10000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    model = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    tokens = [f"[unused{i}]" for i in range(config["vocab_size"])]
    for token, at in model["vocab"].items():
        tokens[at] = token
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _read(folder: Path) -> Any:
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="np") as source:
            for name in source.keys():  # noqa: SIM118 - not a mapping
                yield name, source.get_tensor(name).astype(np.float32)


_PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def _gguf_name(name: str) -> str | None:
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in whole:
        return whole[name]
    parts = name.split(".")
    if parts[:2] != ["model", "layers"]:
        return None
    return f"blk.{parts[2]}.{_PARTS['.'.join(parts[3:-1])]}.weight"


def _interleave(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows, columns)
