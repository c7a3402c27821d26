"""An onnxruntime-genai export back to a folder of floats: `python quality_genai.py EXPORT MODEL OUT`.

MatMulNBits (https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md) holds codes as (N, blocks,
block_size * bits / 8) bytes, the lower nibble first, and means `(code - zero_point) * scale`, where the zero point is
2**(bits-1) if none is stored. So edgeq's harness runs the peer's weights with the arithmetic all others get.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def unpack(packed: Array, bits: int, columns: int) -> Array:
    """uint8 (..., bytes) to codes (..., columns), the lowest bits first."""
    per_byte = 8 // bits
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    codes = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return codes.reshape(*packed.shape[:-1], -1)[..., :columns]


def dequantize(node: Any, tensors: dict[str, Array]) -> Array:
    """float32 (N, K) of a MatMulNBits node of 2, 4 or 8 bits."""
    sizes = {a.name: a.i for a in node.attribute}
    rows, columns, block = sizes["N"], sizes["K"], sizes["block_size"]
    bits, blocks = sizes.get("bits", 4), -(-columns // block)
    codes = unpack(tensors[node.input[1]].reshape(rows, -1), bits, blocks * block).reshape(rows, blocks, block)
    scales = tensors[node.input[2]].reshape(rows, blocks, 1).astype(np.float32)
    zeros: Array = np.full((rows, blocks, 1), 1 << (bits - 1), np.float32)
    if len(node.input) > 3 and node.input[3]:
        zeros = unpack(tensors[node.input[3]].reshape(rows, -1), bits, blocks)[..., None].astype(np.float32)
    values: Array = ((codes.astype(np.float32) - zeros) * scales).reshape(rows, -1)[:, :columns]
    return values


def float_tensors(export: Path, config: dict[str, Any]) -> dict[str, Array]:
    """The export's weights under Hugging Face's names."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(export / "model.onnx")
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    widths = [config["num_attention_heads"], config["num_key_value_heads"], config["num_key_value_heads"]]
    cuts = np.cumsum([n * head_dim for n in widths])[:-1]
    out = {n: t.astype(np.float32) for n, t in tensors.items() if n.startswith("model.") and n.endswith("norm.weight")}
    out |= {n: t.astype(np.float32) for n, t in tensors.items() if n.endswith("layernorm.weight")}
    final = next(n for n in out if n.split(".")[2] == str(config["num_hidden_layers"]))
    out["model.norm.weight"] = out.pop(final)
    for node in (n for n in model.graph.node if n.op_type == "MatMulNBits"):
        name, values = node.input[1].split(".MatMul.")[0], dequantize(node, tensors)
        if name == "lm_head":
            out["model.embed_tokens.weight"] = values  # tied
            continue
        name = name.replace(".attn.", ".self_attn.")
        if not name.endswith("qkv_proj"):
            out[f"{name}.weight"] = values
            continue
        for part, rows in zip("qkv", np.split(values, cuts), strict=True):
            out[f"{name.removesuffix('qkv_proj')}{part}_proj.weight"] = np.ascontiguousarray(rows)
    return out


def main() -> None:
    import json

    from safetensors.numpy import save_file

    export, model, out = map(Path, sys.argv[1:4])
    config = json.loads((model / "config.json").read_text("utf-8"))
    out.mkdir(parents=True, exist_ok=True)
    save_file(float_tensors(export, config), out / "model.safetensors")
    shutil.copy(model / "config.json", out)


if __name__ == "__main__":
    main()
