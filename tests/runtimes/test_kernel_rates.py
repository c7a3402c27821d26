"""The probe gives usable rates, and its hand-encoded models are what `onnx` would have written."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeq.runtimes.onnxruntime.tiny_model import MICROSOFT, TinyModel

ort = pytest.importorskip("onnxruntime")


def _product() -> TinyModel:
    model = TinyModel()
    x = model.input("x", [1, "tokens", 3])
    y = model.node("MatMul", [x, model.constant("w", np.arange(6, dtype=np.float32).reshape(3, 2))], ["y"])
    model.output(y, [1, "tokens", 2])
    return model


def test_the_encoded_model_computes() -> None:
    session = ort.InferenceSession(_product().encode(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.ones((1, 2, 3), np.float32)})
    assert np.array_equal(y, [[[6, 9], [6, 9]]])


def test_supplied_arrays_are_used_as_constants() -> None:
    model = TinyModel()
    x = model.input("x", [1, "tokens", 32])
    codes = np.full((4, 1, 16), 0x99, np.uint8)  # 9 - 8 = 1 everywhere
    inputs = [x, model.supplied("codes", codes), model.supplied("scales", np.full((4, 1), 0.5, np.float32))]
    model.output(
        model.node("MatMulNBits", inputs, ["y"], MICROSOFT, K=32, N=4, bits=4, block_size=32), [1, "tokens", 4]
    )
    options = ort.SessionOptions()
    values = [ort.OrtValue.ortvalue_from_numpy(a) for a in model.external.values()]
    options.add_external_initializers(list(model.external), values)
    session = ort.InferenceSession(model.encode(), options, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.ones((1, 1, 32), np.float32)})
    assert np.allclose(y, 16)


def test_the_encoding_is_what_onnx_reads() -> None:
    onnx = pytest.importorskip("onnx")
    read = onnx.ModelProto.FromString(_product().encode())
    onnx.checker.check_model(read)
    assert [d.dim_value or d.dim_param for d in read.graph.input[0].type.tensor_type.shape.dim] == [1, "tokens", 3]
    assert np.array_equal(onnx.numpy_helper.to_array(read.graph.initializer[0]), [[0, 1], [2, 3], [4, 5]])


def test_attributes_keep_their_types() -> None:
    onnx = pytest.importorskip("onnx")
    model = TinyModel()
    model.node("QuickGelu", ["x"], ["y"], MICROSOFT, alpha=1.5, K=300)
    node = onnx.ModelProto.FromString(model.encode()).graph.node[0]
    assert {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute} == {"alpha": 1.5, "K": 300}
    assert (node.op_type, node.domain) == ("QuickGelu", MICROSOFT)


def test_every_rate_is_positive_and_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeq.runtimes.onnxruntime import probe

    monkeypatch.setattr(probe, "_MOST_WEIGHTS", 1 << 25)
    monkeypatch.setattr(probe, "_LEAST_WEIGHTS", 1 << 25)
    monkeypatch.setattr(probe, "_SECONDS", 0.001)
    rates = {k.kernel: k.figure for k in probe.probe()}
    assert all(math.isfinite(f.value) and f.value > 0 and f.basis == "measured" for f in rates.values())
    expected = {"MatMulNBits-4-g32", "MatMulNBits-4-g128", "MatMulNBits-8-g32", "MatMul-f32"}
    assert expected | {"GroupQueryAttention", "glue", "layer", "step"} <= set(rates)
    assert rates["MatMulNBits-4-g32"].unit == "weights/s" and rates["step"].unit == "s"
