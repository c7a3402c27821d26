"""Every grid in both dialects: the runtime's logits, and every weight bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeq.artifact import Artifact
from edgeq.checkpoint.integer_grids import integer_bits
from edgeq.checkpoint.integers import as_integers, as_integers_and_offsets
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.decoder.torch_model import TorchModel
from edgeq.errors import EdgeqError
from edgeq.estimate.onnx_grids import kernel_grid
from edgeq.exporters.onnx import OnnxExporter
from edgeq.exporters.onnx.graph import Graph
from edgeq.exporters.onnx.standard_matrices import StandardMatrices
from edgeq.model.spec import Rope
from edgeq.scheme import GGML_GRIDS, Grid, affine_grid, codebook_grid, int_grid

IDS = np.random.default_rng(5).integers(0, 160, 20).tolist()
GRIDS: dict[str, Grid] = {
    **{f"int{b}": int_grid(b, 32) for b in range(2, 9)},
    **{f"int{b}-sym": int_grid(b, 32, symmetric=True) for b in (2, 3, 4, 8)},
    "int4-row": int_grid(4, -1),
    "int7-row-sym": int_grid(7, -1, symmetric=True),
    "int2-g16": int_grid(2, 16),
    "int5-g40": int_grid(5, 40),  # in no kernel's block
    "affine3": affine_grid(3, 32),
    "affine4-g40": affine_grid(4, 40),
    **{n: codebook_grid(n, 32) for n in ("nf4", "fp4", "iq4_nl", "ternary")},
    "nf4-double": codebook_grid("nf4", 32, double=True),
    **{k: GGML_GRIDS[k] for k in ("Q4_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q6_K", "IQ4_XS")},
}
UNPACKED = {"int5-g40", "affine4-g40", "nf4", "nf4-double"}  # where there is no kernel at all


def logits(artifact: Artifact, optimized: Path | None = None) -> np.ndarray:
    """Of `IDS` in one pass, activations in float32; `optimized`: where to write onnxruntime's graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    if optimized is not None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(optimized)
    session = onnxruntime.InferenceSession(str(artifact.path / "model.onnx"), options)
    model = artifact.model
    empty = np.zeros((1, model["kv_heads"], 0, model["head_dim"]), np.float32)
    feeds = {i.name: empty for i in session.get_inputs() if "past" in i.name}
    feeds |= {"input_ids": np.array([IDS]), "attention_mask": np.ones((1, len(IDS)), np.int64)}
    if "position_ids" in {i.name for i in session.get_inputs()}:
        feeds["position_ids"] = np.arange(len(IDS))[None]
    return session.run(["logits"], feeds)[0][0]


@pytest.mark.parametrize("dialect", ["contrib", "standard"])
@pytest.mark.parametrize("pack", ["fast", "small"])
@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_is_stored_bit_for_bit_and_runs(weights, tmp_path, name, pack, dialect):
    """80 channels wide: what is not a multiple of a group, a super-block or a byte is padded."""
    source = weights(GRIDS[name], hidden=80, bias=True, layers=1, tied=(pack == "fast") == (dialect == "standard"))
    options = {"dialect": dialect, "pack": pack, "accuracy_level": 0}
    artifact = OnnxExporter().export(source, tmp_path / "out", **options)
    assert OnnxExporter().read_back(artifact, source) == []
    expected = TorchModel(source).logits(IDS)
    np.testing.assert_allclose(logits(artifact), expected, atol=2e-5 * np.ptp(expected), rtol=0)
    model = onnx.load(artifact.path / "model.onnx", load_external_data=False)
    if pack == "fast":
        assert bool(model.functions) == (name in UNPACKED)
    if dialect == "standard":
        assert {n.domain for n in model.graph.node} <= {"", "edgeq"}
        onnx.checker.check_model(str(artifact.path / "model.onnx"), full_check=True)
    for function in model.functions:
        assert {n.domain for n in function.node} == {""}
        assert all(onnx.defs.has(n.op_type) for n in function.node)


@pytest.mark.parametrize("name", ["int2", "int3-sym", "int4", "int4-row", "int8-sym", "ternary", "Q6_K"])
@pytest.mark.parametrize("tied", [True, False])
def test_onnxruntime_fuses_every_standard_product(weights, tmp_path, name, tied):
    """Four products a layer and the head: no weight is dequantized but for the rows looked up."""
    source = weights(GRIDS[name], layers=1, tied=tied)
    artifact = OnnxExporter().export(source, tmp_path / "out", dialect="standard")
    logits(artifact, tmp_path / "optimized.onnx")
    made = [n.op_type for n in onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph.node]
    assert (made.count("MatMulNBits"), made.count("MatMul"), made.count("DequantizeLinear")) == (5, 0, 0)


@pytest.mark.parametrize("name", ["int4", "int3-sym", "int8", "fp4", "Q6_K", "affine3"])
def test_openvino_runs_the_standard_dialect(weights, tmp_path, name):
    """A runtime that the exporter was not made for. It has no types of 2 bits, no functions, and no ragged blocks."""
    ov = pytest.importorskip("openvino")
    source = weights(GRIDS[name], layers=1)
    artifact = OnnxExporter().export(source, tmp_path / "out", dialect="standard")
    exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    compiled = ov.Core().compile_model(str(artifact.path / "model.onnx"), "CPU", exact)
    empty = np.zeros((1, artifact.model["kv_heads"], 0, artifact.model["head_dim"]), np.float32)
    feeds = {i.any_name: empty for i in compiled.inputs if "past" in i.any_name}
    feeds |= {"input_ids": np.array([IDS]), "attention_mask": np.ones((1, len(IDS)), np.int64)}
    expected = TorchModel(source).logits(IDS)
    found = compiled({**feeds, "position_ids": np.arange(len(IDS))[None]})["logits"][0]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.ptp(expected), rtol=0)


@pytest.mark.parametrize("name", ["int4", "nf4", "Q3_K"])
def test_a_tied_embedding_lies_in_the_data_file_once(weights, tmp_path, name):
    sizes = {}
    for tied in (True, False):
        source = weights(GRIDS[name], layers=1, tied=tied)
        artifact = OnnxExporter().export(source, tmp_path / str(tied), dialect="standard", pack="small")
        sizes[tied] = (artifact.path / "model.onnx.data").stat().st_size
    codes = 160 * 64 * GRIDS[name].bits // 8
    assert sizes[False] - sizes[True] >= codes


def test_heads_that_onnxruntime_s_own_operator_refuses(weights, tmp_path):
    """20 wide, 12 of them rotated."""
    source = weights(GRIDS["int4"], layers=1)
    layer = source.spec.layers[0]
    mixer = replace(layer.mixer, head_dim=20, rope=Rope(10000.0, 12))
    source.spec = replace(source.spec, layers=(replace(layer, mixer=mixer),))
    with pytest.raises(EdgeqError, match="multiple of 16"):
        OnnxExporter().export(source, tmp_path / "contrib")
    artifact = OnnxExporter().export(source, tmp_path / "out", dialect="standard", accuracy_level=0)
    expected = TorchModel(source).logits(IDS)
    np.testing.assert_allclose(logits(artifact), expected, atol=2e-5 * np.ptp(expected), rtol=0)


def test_two_bit_codes_take_the_versions_that_have_the_type(weights, tmp_path):
    model = OnnxExporter().export(weights(int_grid(2, 32), layers=1), tmp_path / "out", dialect="standard")
    written = onnx.load(model.path / "model.onnx", load_external_data=False)
    assert (written.ir_version, written.opset_import[0].version) == (13, 25)


def test_a_changed_byte_is_found(weights, tmp_path):
    """In the codes of the first matrix behind the embedding: one of its tensors is told, and no other."""
    for dialect in ("contrib", "standard"):
        source = weights(int_grid(4, 32), layers=1)
        artifact = OnnxExporter().export(source, tmp_path / dialect, dialect=dialect)
        file = artifact.path / "model.onnx"
        stored = {t.name: t for t in onnx.load(file, load_external_data=False).graph.initializer}
        at = next(int(e.value) for e in stored["layers.0.down.codes"].external_data if e.key == "offset")
        data = bytearray((artifact.path / "model.onnx.data").read_bytes())
        data[at] ^= 1
        (artifact.path / "model.onnx.data").write_bytes(data)
        assert OnnxExporter().read_back(artifact, source) == ["layers.0.down was read back with other values"]


def test_unpacking_is_neither_folded_at_load_nor_done_ahead(weights, tmp_path):
    """Both would hold all weights in float32: constants of the optimized graph stay codes."""
    source = weights(GRIDS["nf4"], layers=2)
    artifact = OnnxExporter().export(source, tmp_path / "out", dialect="standard")
    logits(artifact, tmp_path / "optimized.onnx")
    made = onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph
    matrices = [t for t in made.initializer if np.prod(t.dims) >= 96 * 64]
    assert not [t.name for t in matrices if t.data_type == onnx.TensorProto.FLOAT]
    order = [n.op_type for n in made.node]
    assert order.index("Attention") < max(i for i, op in enumerate(order) if op == "BitShift")
    late = {n.output[0]: n for n in made.node}["layers.1.down.codes.late"]
    assert late.op_type == "Reshape" and late.input[1] in {o for n in made.node for o in n.output}


def test_offsets_beyond_two_to_the_31(quantized, tmp_path):
    """A sparse file stands for the gigabytes before; the weight behind them is read by onnx and by onnxruntime."""
    import onnxruntime

    weight = quantized(int_grid(4, 32), 48, 64)
    with Graph(tmp_path, "far", ir=11, opset=23, domains=()) as graph:
        graph._data.seek(5 << 30)
        graph.input("x", onnx.TensorProto.FLOAT, [1, 64])
        y = StandardMatrices(graph, 0).product("x", "far", [weight], None)
        graph.output(y, onnx.TensorProto.FLOAT, [1, 48])
        graph.save()
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    x = np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32)
    expected = x @ weight.dequantize().T
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, atol=0.02 * np.ptp(expected), rtol=0)


@pytest.mark.parametrize("name", [n for n in GRIDS if integer_bits(GRIDS[n]) is not None and GRIDS[n].zero != "float"])
def test_integers_are_the_same_numbers(quantized: Callable[..., QuantizedTensor], name):
    weight = quantized(GRIDS[name], 7, 200)
    needed = integer_bits(weight.grid)
    for bits in range(needed or 8, 9):
        same = as_integers(weight, bits)
        assert (same.grid.kind, same.grid.bits, same.grid.super_size) == ("int", bits, None)
        np.testing.assert_array_equal(same.dequantize().view(np.uint32), weight.dequantize().view(np.uint32))
        kept = weight.super_scales is None and weight.grid.codebook != "fp4"
        assert same.scales.dtype == (np.float16 if kept else np.float32)
    with pytest.raises(EdgeqError, match="no integers"):
        as_integers(weight, (needed or 8) - 1)


@pytest.mark.parametrize("name", [n for n in GRIDS if GRIDS[n].zero == "float"])
def test_integers_and_offsets_add_up_to_the_same_numbers(quantized: Callable[..., QuantizedTensor], name):
    weight = quantized(GRIDS[name], 64, 200)
    shifted = as_integers_and_offsets(weight, 8)
    integers = shifted.integers
    assert integers.grid.scale_dtype == ("f16" if weight.super_scales is None else "f32")
    spread = np.repeat(shifted.offsets, weight.group_size, axis=1)[:, :200]
    np.testing.assert_array_equal((integers.dequantize() + spread).view(np.uint32), weight.dequantize().view(np.uint32))
    centred = integers.zero_points == weight.grid.levels >> 1
    assert centred.mean() > 0.3 and set(np.unique(integers.zero_points)) <= {0, weight.grid.levels >> 1}


@pytest.mark.parametrize(
    ("name", "fast", "small"),
    [
        ("int3", 4, None),
        ("int4", 4, 4),
        ("int6", 8, None),
        ("int2-g16", 4, None),
        ("int5-g40", None, None),
        ("ternary", 2, 2),
        ("iq4_nl", 8, None),
        ("fp4", 8, None),
        ("nf4", None, None),
        ("Q4_0", 4, 4),
        ("Q4_K", 4, None),
        ("affine3", 4, None),
        ("Q6_K", 8, None),
    ],
)
def test_the_kernel_of_a_grid(name, fast, small):
    for pack, bits in (("fast", fast), ("small", small)):
        grid = kernel_grid(GRIDS[name], pack)
        assert (None if grid is None else grid.bits) == bits
