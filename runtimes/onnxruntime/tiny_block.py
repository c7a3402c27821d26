"""A stack of small decoder blocks, as edgeq exports them, to see what its nodes cost beside their weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeq.runtimes.onnxruntime.tiny_model import INT32, MICROSOFT, TinyModel

POSITIONS = 2048  # most tokens of the caches and of the rotary tables


@dataclass(frozen=True, slots=True)
class Block:
    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    width: int

    @property
    def qkv(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.width

    @property
    def attended(self) -> int:
        return self.heads * self.width

    @property
    def weights(self) -> int:
        return self.hidden * (self.qkv + self.attended + 3 * self.mlp)


# `edgeq.estimate.speed` scales what was measured on this one to other sizes.
BLOCK = Block(hidden=512, mlp=1536, heads=8, kv_heads=2, width=64)


def stack(block: Block, count: int) -> TinyModel:
    """`count` blocks, random 4-bit weights with 32 a scale; inputs `x`, `before`, `total` and the caches."""
    model = TinyModel()
    stream = x = model.input("x", [1, 1, block.hidden])
    attention_inputs(model, block.width)
    model.constant("ones", np.ones(block.hidden, np.float32))
    model.constant("halves", np.array([block.mlp, block.mlp], np.int64))
    for i in range(count):
        at = f"b{i}."
        qkv = _matrix(model, x, f"{at}qkv", block.qkv, block.hidden)
        mixed = attend(model, qkv, i, block.heads, block.kv_heads, block.width)
        delta = _matrix(model, mixed, f"{at}o", block.hidden, block.attended)
        x, stream = _norm(model, stream, delta, f"{at}norm1")
        gate_up = _matrix(model, x, f"{at}gate_up", 2 * block.mlp, block.hidden)
        model.node("Split", [gate_up, "halves"], [f"{at}gate", f"{at}up"], axis=-1)
        gate = model.node("QuickGelu", [f"{at}gate"], [f"{at}act"], MICROSOFT, alpha=1.0)
        inner = model.node("Mul", [gate, f"{at}up"], [f"{at}inner"])
        x, stream = _norm(model, stream, _matrix(model, inner, f"{at}down", block.hidden, block.mlp), f"{at}norm2")
    model.output(x, [1, 1, block.hidden])
    return model


def _matrix(model: TinyModel, x: str, name: str, rows: int, columns: int) -> str:
    shape = (rows, columns // 32, 16)
    # Each its own numbers: matrices with the same contents would share one prepacked copy.
    codes = np.random.default_rng(len(model.nodes)).integers(0, 256, shape, np.uint8)
    scales = np.full(shape[:2], 0.01, np.float32)
    inputs = [x, model.supplied(f"{name}.codes", codes), model.supplied(f"{name}.scales", scales)]
    sizes = {"K": columns, "N": rows, "bits": 4, "block_size": 32, "accuracy_level": 4}
    return model.node("MatMulNBits", inputs, [f"{name}.y"], MICROSOFT, **sizes)


def _norm(model: TinyModel, stream: str, delta: str, name: str) -> tuple[str, str]:
    ends = [f"{name}.y", "", "", f"{name}.stream"]
    op = "SkipSimplifiedLayerNormalization"
    return model.node(op, [stream, delta, "ones"], ends, MICROSOFT, epsilon=1e-5), ends[3]


def attention_inputs(model: TinyModel, width: int) -> None:
    """What all attention nodes of a graph share: the lengths and the rotary tables."""
    model.input("before", [1], INT32)
    model.input("total", [], INT32)
    for name in ("cos", "sin"):
        model.constant(name, np.ones((POSITIONS, width // 2), np.float32))


def attend(model: TinyModel, qkv: str, i: int, heads: int, kv_heads: int, width: int) -> str:
    """One attention node with caches of its own, `past{i}k` and so on."""
    past = [model.input(f"past{i}{part}", [1, kv_heads, "past", width]) for part in "kv"]
    present = [model.output(f"present{i}{part}", [1, kv_heads, "present", width]) for part in "kv"]
    inputs = [qkv, "", "", *past, "before", "total", "cos", "sin"]
    settings = {"num_heads": heads, "kv_num_heads": kv_heads, "do_rotary": 1, "scale": width**-0.5}
    return model.node("GroupQueryAttention", inputs, [f"attended{i}", *present], MICROSOFT, **settings)
