"""Measure what onnxruntime's kernels do on this machine: the basis of expected speeds. Under two seconds.

Each probe is a graph of a few nodes with constant weights, timed at one token (decode) or 64 (prefill). Weights are
read beyond the last cache where a model's are, so `large` sets are bigger than it. What a rate means:

- `MatMulNBits-B-gG`: weights/s of B-bit matrices with G weights a scale, one token, beyond the last cache;
  `...-cached`: the same with a matrix that stays in the cache; `...-prefill`: FLOP/s at 64 tokens.
- `MatMul-f32`: weights/s of a float matrix, one token.
- `GroupQueryAttention`: multiply-adds/s over the cache (2 * heads * head_dim for each cached token).
- `layer`: seconds that a decoder block of `tiny_block.BLOCK`'s size takes beyond its weights at the first rate: starts
  of its nodes, synchronisation of threads, norms, activations, attention over an empty cache. Measured in a whole
  stack, since the weights that stream by empty the caches between two nodes.
- `glue`: elements/s that norms and activations add with width.
- `step`: seconds of an almost empty run, bindings included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edgeq.device.cpu import probe_cpu
from edgeq.device.spec import Cpu, Figure, KernelRate
from edgeq.runtimes.onnxruntime.tiny_block import BLOCK, POSITIONS, attend, attention_inputs, stack
from edgeq.runtimes.onnxruntime.tiny_model import MICROSOFT, TinyModel

TARGET = "onnxruntime/cpu"
_LARGE = (2048, 8192)  # K, N
_CACHED = (2048, 4096)
_MOST_WEIGHTS, _LEAST_WEIGHTS = 128 << 20, 48 << 20
_SECONDS = 0.05  # of timing, for each graph
_PREFILL = 64
_NARROW, _WIDE = 512, 4096


def probe() -> list[KernelRate]:
    """Rates of the kernels that edgeq's exported graphs spend their time in, all physical cores working."""
    cpu = probe_cpu()
    today = date.today().isoformat()
    found: dict[str, tuple[str, float]] = {}
    for measure in (_matrices, _attention, _glue):
        found |= dict(measure(cpu))
    found |= dict(_layers(cpu, found["MatMulNBits-4-g32"][1]))
    return [
        KernelRate(TARGET, k, Figure(v, unit, "measured", "edgeq probe", None, today)) for k, (unit, v) in found.items()
    ]


_Rates = Iterator[tuple[str, tuple[str, float]]]


def _matrices(cpu: Cpu) -> _Rates:
    large = _beyond_cache(cpu)
    rates: dict[str, float] = {}
    for bits, block in ((4, 32), (4, 128), (8, 32)):
        count = max(2, round(large * 4 / bits / _size(_LARGE)))
        run = _Runner(_chain(bits, block, *_LARGE, count), cpu.cores)
        name = f"MatMulNBits-{bits}-g{block}"
        rates[name] = count * _size(_LARGE) / run.seconds(1)
        yield name, ("weights/s", rates[name])
    base = "MatMulNBits-4-g32"
    run = _Runner(_chain(4, 32, *_CACHED, 1), cpu.cores)
    yield f"{base}-cached", ("weights/s", max(_size(_CACHED) / run.seconds(1), rates[base]))
    yield f"{base}-prefill", ("FLOP/s", 2 * _PREFILL * _size(_CACHED) / run.seconds(_PREFILL))
    run = _Runner(_float_chain(*_LARGE, 1), cpu.cores)
    yield "MatMul-f32", ("weights/s", _size(_LARGE) / run.seconds(1))


def _attention(cpu: Cpu) -> _Rates:
    heads, kv_heads, width, nodes = 16, 4, 64, 4
    run = _Runner(_attention_model(heads, kv_heads, width, nodes), cpu.cores)
    few, many = run.attention_seconds(8) / nodes, run.attention_seconds(1024) / nodes
    yield "GroupQueryAttention", ("MAC/s", 2 * heads * width * (1024 - 8) / max(many - few, 1e-7))


def _glue(cpu: Cpu) -> _Rates:
    nodes = 64
    narrow, wide = (_Runner(_glue_model(w, nodes), cpu.cores).seconds(1) / nodes for w in (_NARROW, _WIDE))
    yield "glue", ("elements/s", (_WIDE - _NARROW) / max(wide - narrow, 1e-9))
    yield "step", ("s", _Runner(_glue_model(_NARROW, 1), cpu.cores).seconds(1))


def _layers(cpu: Cpu, rate: float) -> _Rates:
    """Small blocks one after the other, their weights beyond the cache: as cold as in a model."""
    count = max(4, _beyond_cache(cpu) // BLOCK.weights)
    seconds = _Runner(stack(BLOCK, count), cpu.cores).attention_seconds(8)
    yield "layer", ("s", max(seconds / count - BLOCK.weights / rate, 1e-6))


def _size(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]


def _beyond_cache(cpu: Cpu) -> int:
    """Weights of 4 bits that no cache holds: three times the last level, within what a small machine has to spare."""
    last = max((c.size_bytes for c in cpu.caches), default=8 << 20)
    return min(max(3 * last, _LEAST_WEIGHTS), _MOST_WEIGHTS)


class _Runner:
    """A session over one tiny model, its inputs bound once."""

    def __init__(self, model: TinyModel, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._supplied = [ort.OrtValue.ortvalue_from_numpy(a) for a in model.external.values()]
        options.add_external_initializers(list(model.external), self._supplied)
        self._session = ort.InferenceSession(model.encode(), options, providers=["CPUExecutionProvider"])
        self._binding = self._session.io_binding()
        self._keep: dict[str, ort.OrtValue] = {}

    def seconds(self, tokens: int) -> float:
        """Seconds of one run for `tokens` rows of every input; outputs go where the session likes."""
        for node in self._session.get_inputs():
            self.bind(node.name, np.full((1, tokens, node.shape[2]), 0.5, np.float32))
        for node in self._session.get_outputs():
            self._binding.bind_output(node.name, "cpu")
        return _time(partial(self._session.run_with_iobinding, self._binding))

    def attention_seconds(self, cached: int) -> float:
        for node in self._session.get_inputs():
            if node.name.startswith("past"):
                shape = [POSITIONS if isinstance(d, str) else d for d in node.shape]
                if node.name not in self._keep:
                    self.bind(node.name, np.full(shape, 0.5, np.float32))
                self._binding.bind_ortvalue_output(node.name.replace("past", "present"), self._keep[node.name])
        first = self._session.get_inputs()[0]
        self.bind(first.name, np.full(first.shape, 0.5, np.float32))
        self.bind("before", np.array([cached - 1], np.int32))
        self.bind("total", np.array(cached, np.int32))
        for node in self._session.get_outputs():
            if not node.name.startswith("present"):
                self._binding.bind_output(node.name, "cpu")
        return _time(partial(self._session.run_with_iobinding, self._binding))

    def bind(self, name: str, array: npt.NDArray[Any]) -> None:
        value = ort.OrtValue.ortvalue_from_numpy(array)
        self._keep[name] = value
        self._binding.bind_ortvalue_input(name, value)


def _time(run: Callable[[], object]) -> float:
    """Seconds of one call: the best of what fits into the time. Threads that wait for each other lose whole time
    slices to any other process, so on a busy machine every average measures that process."""
    run()
    samples: list[float] = []
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end or len(samples) < 2:
        start = time.perf_counter()
        run()
        samples.append(time.perf_counter() - start)
    return min(samples)


def _chain(bits: int, block: int, columns: int, rows: int, count: int) -> TinyModel:
    """`count` products of one input, each with a matrix of its own (prepacking copies it)."""
    model = TinyModel()
    x = model.input("x", [1, "tokens", columns])
    shape = (rows, columns // block, block * bits // 8)
    size, shift = rows * columns * bits // 8, 4096
    # Overlapping pieces of one random buffer: matrices with the same contents would share one prepacked copy.
    codes = np.random.default_rng(0).integers(0, 256, size + count * shift, np.uint8)
    scales = np.full(shape[:2], 0.01, np.float32)
    sizes = {"K": columns, "N": rows, "bits": bits, "block_size": block, "accuracy_level": 4}
    for i in range(count):
        piece = codes[i * shift : i * shift + size].reshape(shape)
        inputs = [x, model.supplied(f"codes{i}", piece), model.supplied(f"scales{i}", scales)]
        model.output(model.node("MatMulNBits", inputs, [f"y{i}"], MICROSOFT, **sizes), [1, "tokens", rows])
    return model


def _float_chain(columns: int, rows: int, count: int) -> TinyModel:
    model = TinyModel()
    x = model.input("x", [1, "tokens", columns])
    for i in range(count):
        weight = model.supplied(f"w{i}", np.full((columns, rows), 0.01 * (i + 1), np.float32))
        model.output(model.node("MatMul", [x, weight], [f"y{i}"]), [1, "tokens", rows])
    return model


def _glue_model(width: int, count: int) -> TinyModel:
    """Norms with residual, activations and products in turn, as between the matrices of a block."""
    model = TinyModel()
    x = model.input("x", [1, "tokens", width])
    weight = model.constant("weight", np.ones(width, np.float32))
    for i in range(count):
        kind = i % 3
        if kind == 0:
            ends = [f"y{i}", "", "", f"r{i}"]
            x = model.node("SkipSimplifiedLayerNormalization", [x, x, weight], ends, MICROSOFT, epsilon=1e-5)
        elif kind == 1:
            x = model.node("QuickGelu", [x], [f"y{i}"], MICROSOFT, alpha=1.0)
        else:
            x = model.node("Mul", [x, x], [f"y{i}"])
    model.output(x, [1, "tokens", width])
    return model


def _attention_model(heads: int, kv_heads: int, width: int, count: int) -> TinyModel:
    model = TinyModel()
    model.input("qkv", [1, 1, (heads + 2 * kv_heads) * width])
    attention_inputs(model, width)
    for i in range(count):
        model.output(attend(model, "qkv", i, heads, kv_heads, width), [1, 1, heads * width])
    return model
