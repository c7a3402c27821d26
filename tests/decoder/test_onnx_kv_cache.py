"""Quantized KV caches: the graph attends to what the cache holds, rounded as the scales say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgeq.artifact import Artifact
from edgeq.decoder.kv_ranges import KvRange, kv_ranges
from edgeq.decoder.torch_model import TorchModel
from edgeq.decoder.torch_ops import KeyValueCache
from edgeq.errors import EdgeqError
from edgeq.exporters.onnx import OnnxExporter
from edgeq.exporters.onnx import kv_cache as kv_cache_module
from edgeq.runtimes.onnxruntime.engine import open_engine

IDS = np.random.default_rng(5).integers(3, 160, 40).tolist()
BITS = {"int8": 8, "int4": 4}


class RoundedCache(KeyValueCache):
    """Holds keys and values as an integer cache gives them back."""

    def __init__(self, scales: dict[str, npt.NDArray[np.float32]], bits: int) -> None:
        super().__init__()
        self._scales, self._top = scales, (1 << (bits - 1)) - 1

    def extend(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rounded = []
        for part, x in (("key", keys), ("value", values)):
            scale = torch.tensor(self._scales[f"layers.{layer}.{part}_scale"])
            rounded.append(torch.clamp(torch.round(x / scale), -self._top - 1, self._top) * scale)
        return super().extend(layer, *rounded)


class Letters:
    """A tokenizer of one token a character."""

    def encode(self, text: str) -> Sequence[int]:
        return [3 + ord(c) % 150 for c in text]


@pytest.fixture(autouse=True)
def tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache_module, "open_tokenizer", lambda files, where: Letters())


def stored_scales(artifact: Artifact) -> dict[str, npt.NDArray[np.float32]]:
    graph = onnx.load(artifact.path / "model.onnx").graph
    return {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name.endswith("_scale")}


def steps(artifact: Artifact, first: int, **options: Any) -> npt.NDArray[np.float32]:
    """Logits of IDS: `first` of them in one pass, the rest one by one."""
    engine = open_engine(artifact.path / "model.onnx", context=64, threads=1, **options)
    return np.concatenate([engine.logits(IDS[:first]), *(engine.logits([i]) for i in IDS[first:])])


@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3", "gemma2", "smollm3", "phi4-mini", "phi3-longrope"])
def test_the_logits_are_those_over_a_rounded_cache(tiny, tmp_path, name, dtype):
    """Windows, softcaps, norms of heads, layers without rotation, partial rotation: in one pass and step by step.
    Float rounding may decide otherwise where a key lies between two codes, so most logits agree closely and none is
    far."""
    weights = tiny(name).weights
    artifact = OnnxExporter().export(weights, tmp_path / "out", kv_dtype=dtype)
    ids = IDS[:12] if "longrope" in name or "phi4" in name else IDS  # there frequencies change with the length
    expected = TorchModel(weights).step(ids, RoundedCache(stored_scales(artifact), BITS[dtype]))
    plain = TorchModel(weights).logits(ids)
    for first in (len(ids), 5):
        off = np.abs(steps(artifact, first)[: len(ids)] - expected)
        assert np.median(off) < 1e-4 and off.max() < 0.5 * np.abs(plain - expected).max()
    assert np.median(np.abs(plain - expected)) > 5e-4  # the rounding is seen


@pytest.mark.parametrize("dtype", BITS)
def test_the_session_grows_rewinds_and_continues(tiny, tmp_path, dtype):
    artifact = OnnxExporter().export(tiny("llama").weights, tmp_path / "out", kv_dtype=dtype)
    whole = steps(artifact, len(IDS))
    engine = open_engine(artifact.path / "model.onnx", context=64, threads=1)
    assert engine.cache_bytes == 3 * 2 * 2 * 64 * 16 * BITS[dtype] // 8  # layers, keys and values, heads, tokens, width
    engine._grow(20)  # as small as a long sequence's first buffers are
    first = engine.logits(IDS[:18])
    engine.logits([7] * 2)
    engine.rewind(18)
    rest = engine.logits(IDS[18:])
    assert engine._capacity == 40
    np.testing.assert_allclose(np.concatenate((first, rest)), whole, atol=1e-4)


def test_half_precision_is_close_to_float(tiny, tmp_path):
    weights = tiny("llama").weights
    artifact = OnnxExporter().export(weights, tmp_path / "out", kv_dtype="f16")
    off = np.abs(steps(artifact, 5) - TorchModel(weights).logits(IDS))
    assert 0 < off.max() < 0.02
    assert artifact.options["kv_dtype"] == "f16"


@pytest.mark.parametrize("dtype", [*BITS, "f16"])
def test_onnxruntime_genai_runs_it(tiny, tmp_path, dtype):
    genai = pytest.importorskip("onnxruntime_genai")
    artifact = OnnxExporter().export(tiny("llama").weights, tmp_path / "out", kv_dtype=dtype)
    engine = open_engine(artifact.path / "model.onnx", context=64, threads=1)
    logits, ours = engine.prefill(IDS[:9]), []
    for _ in range(8):
        logits = logits.copy()
        logits[2] = -np.inf  # no end before the length asked for
        ours.append(int(logits.argmax()))
        logits = engine.decode(ours[-1])
    parameters = genai.GeneratorParams(model := genai.Model(str(artifact.path)))
    parameters.set_search_options(do_sample=False, max_length=64, min_length=17)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(np.array(IDS[:9], np.int32))
    for _ in range(8):
        generator.generate_next_token()
    assert list(generator.get_sequence(0))[9:] == ours


def test_ranges_of_keys_do_not_depend_on_their_positions(tiny):
    """The same tokens further on turn by other angles: values stay, keys too in the norms of their pairs."""
    weights = tiny("llama").weights

    near, far = kv_ranges(weights, [IDS[:1]]), kv_ranges(weights, [[IDS[0]] * 30])
    for a, b in zip(near, far, strict=True):
        np.testing.assert_allclose(a.keys, b.keys, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(a.values, b.values, rtol=1e-3, atol=1e-4)
    both = kv_ranges(weights, [IDS[:6], IDS[6:12]])
    apart = [kv_ranges(weights, [IDS[:6]]), kv_ranges(weights, [IDS[6:12]])]
    for found, one, two in zip(both, *apart, strict=True):
        assert isinstance(found, KvRange) and found.keys.shape == (2, 16)
        np.testing.assert_array_equal(found.keys, np.maximum(one.keys, two.keys))
        np.testing.assert_array_equal(found.values, np.maximum(one.values, two.values))
    cache = KeyValueCache()
    TorchModel(weights).step(IDS[:6], cache)
    keys, values = cache.layers[1]
    alone = apart[0][1]
    assert (keys.abs().amax((0, 2)).numpy() <= alone.keys * 1.0001).all()
    np.testing.assert_allclose(values.abs().amax((0, 2)).numpy(), alone.values)


def test_a_users_text_sets_the_ranges(tiny, tmp_path):
    weights, text = tiny("llama").weights, tmp_path / "text"
    text.write_text("a")
    one = OnnxExporter().export(weights, tmp_path / "one", kv_dtype="int8", kv_text=text)
    ranges = kv_ranges(weights, [Letters().encode("a")])
    found = stored_scales(one)["layers.1.value_scale"]
    np.testing.assert_allclose(found[0, :, 0], ranges[1].values * 1.25 / 127, rtol=1e-6)


def test_refused_before_a_file_is_written(tiny, tmp_path):
    weights = tiny("llama").weights
    for options, word in (
        ({"kv_dtype": "int3"}, "'int3'"),
        ({"kv_dtype": "f16", "kv_text": tmp_path / "text"}, "needs no text"),
        ({"kv_dtype": "int8", "kv_text": tmp_path / "none"}, "cannot read the text"),
    ):
        with pytest.raises(EdgeqError, match=word):
            OnnxExporter().export(weights, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())
