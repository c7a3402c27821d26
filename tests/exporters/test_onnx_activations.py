"""Checkpoints with 8-bit activations as ONNX: the reference's numbers, in operators that multiply integers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from edgeq.artifact import Artifact
from edgeq.checkpoint.activation import ActivationGrid
from edgeq.decoder.torch_model import TorchModel
from edgeq.device.cpu import probe_cpu
from edgeq.device.isa import int8_sums_overflow
from edgeq.errors import EdgeqError
from edgeq.estimate.onnx_file import onnx_data_bytes
from edgeq.exporters.onnx import OnnxExporter
from edgeq.exporters.onnx.activations import SCALES
from edgeq.measure.verify import activation_path
from edgeq.runtimes.onnxruntime.engine import open_engine
from edgeq.scheme import int_grid

IDS = np.random.default_rng(5).integers(0, 160, 20).tolist()
ROWS = int_grid(8, -1, symmetric=True)
_CPU = probe_cpu()
HERE = {"x64quantprecision": "1"} if int8_sums_overflow(_CPU.arch, _CPU.isa) else {}  # as edgeq's sessions have it


def session(artifact: Artifact, optimized: Path | None = None, **entries: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    for name, value in (HERE | entries).items():
        options.add_session_config_entry(f"session.{name}", value)
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(str(artifact.path / "model.onnx"), options)


def run(artifact: Artifact, ids: list[int], **entries: str) -> npt.NDArray[np.float32]:
    opened, model = session(artifact, **entries), artifact.model
    empty = np.zeros((1, model["kv_heads"], 0, model["head_dim"]), np.float32)
    feeds: dict[str, Any] = {
        f"past_key_values.{i}.{p}": empty for i in range(model["layers"]) for p in ("key", "value")
    }
    feeds |= {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}
    logits: npt.NDArray[np.float32] = opened.run(["logits"], feeds)[0][0]
    return logits


def divergence(p: npt.NDArray[np.float32], q: npt.NDArray[np.float32]) -> float:
    """Mean KL in nats."""
    a, b = (torch.from_numpy(x).double().log_softmax(-1) for x in (p, q))
    return float((a.exp() * (a - b)).sum(-1).mean())


def fused(artifact: Artifact, tmp_path: Path) -> Counter[str]:
    """Operators of the graph that onnxruntime runs."""
    session(artifact, tmp_path / "optimized.onnx")
    return Counter(n.op_type for n in onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph.node)


CASES = [
    ("dynamic", {"symmetric": True}),
    ("dynamic", {"symmetric": True, "grid": int_grid(4, 32)}),
    ("static", {}),
    ("static", {"symmetric": True}),
    ("static", {"grid": int_grid(8, -1), "bias": True, "tied": False}),
    ("static", {"bits": 16}),
    ("static", {"grid": int_grid(4, 32)}),
    ("static", {"grid": int_grid(4, 32), "bits": 16}),
]
# Integer sums are exact, but float rounding may decide otherwise where an input lies between two codes: one code of
# one channel, so what is bounded is the divergence of the logits, in nats.
TOLERANCE = 1e-5


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_the_logits_are_those_of_the_reference(make, tmp_path, kind, options):
    source = make(kind, **options)
    artifact = OnnxExporter().export(source, tmp_path / "out", accuracy_level=0)
    expected, found = TorchModel(source).logits(IDS), run(artifact, IDS)
    assert divergence(expected, found) < TOLERANCE
    unsigned = run(artifact, IDS, x64quantprecision="1")  # as on x86-64 without VNNI
    assert divergence(expected, unsigned) < TOLERANCE
    if options.get("bits") != 16:  # and the rounding is there
        assert divergence(expected, TorchModel(source.inner).logits(IDS)) > 10 * TOLERANCE


DYNAMIC_CASES = [{}, {"grid": int_grid(8, -1)}, {"bias": True, "tied": False}, {"grid": int_grid(4, 32)}]


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("options", DYNAMIC_CASES)
def test_token_by_token_a_dynamic_grid_is_the_checkpoints_own(make, tmp_path, options, scales):
    source = make("dynamic", **options)
    artifact = OnnxExporter().export(source, tmp_path / "out", accuracy_level=0, activation_scales=scales)
    model, engine = (
        TorchModel(source),
        open_engine(artifact.path / "model.onnx", context=64, threads=1, rounded_inputs=True),
    )
    cache = model.start()
    expected = np.concatenate([model.step([token], cache) for token in IDS])
    found = np.stack([engine.decode(token).copy() for token in IDS])
    assert divergence(expected, found) < TOLERANCE
    assert divergence(expected, TorchModel(source.inner).logits(IDS)) > 10 * TOLERANCE


@pytest.mark.parametrize("grid", [ROWS, int_grid(4, 32)])
def test_tokens_of_a_prompt_keep_a_scale_of_their_own(make, tmp_path, grid):
    """One token's inputs are a thousand times the others': with one scale for all, the others are lost."""
    source = make("dynamic", grid=grid)
    load = source.inner.load
    loud = {"embed": lambda w: w * np.where(np.arange(160) == IDS[3], 1000.0, 1.0)[:, None].astype(np.float32)}
    source.inner.load = lambda name: loud.get(name, lambda w: w)(load(name))
    source.inner.spec = replace(source.inner.spec, norm_layout="post")  # no norm between the stream and its readers
    expected = TorchModel(source).logits(IDS)
    rest = [i for i in range(20) if IDS[i] != IDS[3]]
    off = {}
    for scales in SCALES:
        out = tmp_path / scales
        artifact = OnnxExporter().export(source, out, accuracy_level=0, activation_scales=scales)
        off[scales] = divergence(expected[rest], run(artifact, IDS)[rest])
    assert off["token"] < off["tensor"] / 20


def test_a_token_of_zeros_stays_zero(make, tmp_path):
    source = make("dynamic")
    load = source.inner.load
    source.inner.load = lambda name: load(name) * 0 if name == "embed" else load(name)
    found = run(OnnxExporter().export(source, tmp_path / "out"), IDS)
    np.testing.assert_allclose(found, TorchModel(source).logits(IDS), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "options", "scales", "operator", "count"),
    [
        ("static", {}, "token", "MatMulIntegerToFloat", 8),
        ("static", {"bits": 16}, "token", "MatMulIntegerToFloat", 16),
        ("static", {"grid": int_grid(8, -1)}, "token", "MatMulIntegerToFloat", 8),
        ("dynamic", {"symmetric": True}, "token", "MatMulIntegerToFloat", 8),
        ("dynamic", {}, "token", "DynamicQuantizeMatMul", 8),
        ("dynamic", {}, "tensor", "DynamicQuantizeMatMul", 8),
        ("dynamic", {"grid": int_grid(8, -1), "bias": True}, "token", "DynamicQuantizeMatMul", 8),
        ("dynamic", {"grid": int_grid(4, 32)}, "token", "MatMulNBits", 8),
        ("static", {"grid": int_grid(4, 32)}, "token", "MatMulNBits", 8),
    ],
)
def test_onnxruntime_fuses_every_product(make, tmp_path, kind, options, scales, operator, count):
    """Of two layers with four products each; nothing is left that multiplies in float but the head."""
    artifact = OnnxExporter().export(make(kind, **options), tmp_path / "out", activation_scales=scales)
    found = fused(artifact, tmp_path)
    assert found[operator] == count
    assert found["MatMul"] + found["FusedMatMul"] == 1 and not found["MatMulInteger"]


def test_only_layers_with_a_grid_are_rounded(make, tmp_path):
    source = make("static")
    grids = source.grids
    source.grids = lambda name: grids(name) if name.startswith("layers.1.") else None
    artifact = OnnxExporter().export(source, tmp_path / "out", accuracy_level=0)
    assert divergence(TorchModel(source).logits(IDS), run(artifact, IDS)) < TOLERANCE
    found = fused(artifact, tmp_path)
    assert (found["MatMulIntegerToFloat"], found["MatMulNBits"]) == (4, 4)


def test_matrices_of_several_grids_read_the_same_rounded_input(make, weights, tmp_path):
    source = make("static")
    source.inner.overrides["v"] = int_grid(4, 32)
    artifact = OnnxExporter().export(source, tmp_path / "out", accuracy_level=0)
    assert divergence(TorchModel(source).logits(IDS), run(artifact, IDS)) < TOLERANCE


def test_the_manifest_says_how_inputs_are_rounded(make, tmp_path):
    artifact = OnnxExporter().export(make("dynamic"), tmp_path / "a", accuracy_level=0)
    assert artifact.options["activations"] == "dynamic" and artifact.options["activation_scales"] == "token"
    assert activation_path(artifact) == "int8"
    coarse = OnnxExporter().export(make("dynamic"), tmp_path / "b", activation_scales="tensor")
    assert activation_path(coarse) == "int8-tensor"
    plain = OnnxExporter().export(make("dynamic").inner, tmp_path / "c", accuracy_level=0)
    assert "activations" not in plain.options and activation_path(plain) == "float"


@pytest.mark.parametrize("grid", [ActivationGrid("dynamic", 4, False), ActivationGrid("static", 16, True, 0.1, 0)])
def test_other_grids_are_refused_before_a_file_is_written(make, tmp_path, grid):
    source = make("dynamic")
    source.grids = lambda name: grid
    with pytest.raises(EdgeqError, match=f"{grid.bits}-bit"):
        OnnxExporter().export(source, tmp_path / "out")
    with pytest.raises(EdgeqError, match="activation scales 'row'"):
        OnnxExporter().export(make("dynamic"), tmp_path / "out", activation_scales="row")
    with pytest.raises(EdgeqError, match="no dynamic activations"):
        OnnxExporter().export(make("static"), tmp_path / "out", activation_scales="tensor")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("grid", [ROWS, int_grid(8, -1), int_grid(4, 32, symmetric=True)])
@pytest.mark.parametrize("bias", [False, True])
def test_the_size_of_the_file_is_known_before(make, tmp_path, grid, bias):
    """To the byte, also of models whose embedding stays float."""
    source = make("dynamic", grid=grid, bias=bias, tied=False, hidden=320)
    OnnxExporter().export(source, tmp_path / "out")
    size = (tmp_path / "out" / "model.onnx.data").stat().st_size
    assert onnx_data_bytes(source.spec, source.scheme) == size


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_onnxruntime_genai_gives_the_greedy_tokens_of_edgeqs_session(make, tmp_path, kind):
    genai = pytest.importorskip("onnxruntime_genai")
    artifact = OnnxExporter().export(make(kind), tmp_path / "out")
    engine = open_engine(artifact.path / "model.onnx", context=64, threads=1, rounded_inputs=True)
    logits, ours = engine.prefill(IDS[:9]), []
    for _ in range(8):
        logits = logits.copy()
        logits[2] = -np.inf  # no end before the length asked for
        ours.append(int(logits.argmax()))
        logits = engine.decode(ours[-1])
    model = genai.Model(str(artifact.path))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(do_sample=False, max_length=64, min_length=17)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(np.array(IDS[:9], np.int32))
    for _ in range(8):
        generator.generate_next_token()
    assert list(generator.get_sequence(0))[9:] == ours


@pytest.mark.parametrize("buffer", ["growing", "shared"])
@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_a_table_of_signed_bytes_in_standard_operators_is_right_too(make, tmp_path, kind, buffer):
    """On x86-64 without VNNI as well, where onnxruntime stores every int8 constant unsigned."""
    source = make(kind, symmetric=True)
    source.inner.overrides = {"embed": int_grid(8, 32, symmetric=True)}
    options = {"dialect": "standard", "kv_buffer": buffer}
    artifact = OnnxExporter().export(source, tmp_path / "out", accuracy_level=0, **options)
    engine = open_engine(artifact.path / "model.onnx", context=64, threads=1, accuracy_level=0, rounded_inputs=True)
    assert divergence(TorchModel(source).logits(IDS), engine.logits(IDS)) < TOLERANCE
    assert OnnxExporter().read_back(artifact, source) == []
    scheme = replace(source.scheme, embed=int_grid(8, 32, symmetric=True))
    size = onnx_data_bytes(source.spec, scheme, dialect="standard")
    assert (artifact.path / "model.onnx.data").stat().st_size == size
