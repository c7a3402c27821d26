"""Grids that OpenVINO has no type for: integers that hold the same numbers, and minima as a product of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeq.artifact import Artifact
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.decoder.torch_model import TorchModel
from edgeq.errors import EdgeqError
from edgeq.estimate.openvino_grids import stored_grid
from edgeq.exporters.openvino import OpenVinoExporter
from edgeq.exporters.openvino.matrices import OFFSETS
from edgeq.exporters.openvino.storable import as_stored, layout, layout_of, refuses
from edgeq.measure.divergence import DivergenceMeter
from edgeq.measure.verify import FLOAT_LIMITS
from edgeq.scheme import GGML_GRIDS, Grid, Scheme, affine_grid, codebook_grid, int_grid

ov = pytest.importorskip("openvino")
IDS = np.random.default_rng(5).integers(0, 160, 20).tolist()
EXACT: dict[str, Any] = {"kv_dtype": "f32", "dynamic_quantization": 0}
# name -> grid, the type its codes are stored on (with minima: unless they need zero points), that of its scales
GRIDS: dict[str, tuple[Grid, str, str]] = {
    "int3": (int_grid(3, 32), "u4", "f16"),
    "int3-sym": (int_grid(3, 32, symmetric=True), "i4", "f16"),
    "int5": (int_grid(5, -1), "u8", "f16"),
    "int6-sym": (int_grid(6, 32, symmetric=True), "i8", "f16"),
    "int7": (int_grid(7, 16), "u8", "f16"),
    "iq4_nl": (codebook_grid("iq4_nl", 32), "i8", "f16"),
    "affine2": (affine_grid(2, 32), "u2", "f16"),
    "affine3-row": (affine_grid(3, -1), "i4", "f16"),
    "affine4": (affine_grid(4, 32), "i4", "f16"),
    "affine4-g48": (affine_grid(4, 48), "i4", "f16"),  # wider than what divides a row
    "affine8": (affine_grid(8, 32), "i8", "f16"),
    "Q4_0": (GGML_GRIDS["Q4_0"], "i4", "f16"),
    "Q4_1": (GGML_GRIDS["Q4_1"], "i4", "f16"),
    "Q5_0": (GGML_GRIDS["Q5_0"], "i8", "f16"),
    "Q5_1": (GGML_GRIDS["Q5_1"], "i8", "f16"),
    "Q8_0": (GGML_GRIDS["Q8_0"], "i8", "f16"),
    "IQ4_NL": (GGML_GRIDS["IQ4_NL"], "i8", "f16"),
    "IQ4_XS": (GGML_GRIDS["IQ4_XS"], "i8", "f32"),
    "Q2_K": (GGML_GRIDS["Q2_K"], "u2", "f32"),
    "Q3_K": (GGML_GRIDS["Q3_K"], "i4", "f32"),
    "Q4_K": (GGML_GRIDS["Q4_K"], "i4", "f32"),
    "Q5_K": (GGML_GRIDS["Q5_K"], "i8", "f32"),
    "Q6_K": (GGML_GRIDS["Q6_K"], "i8", "f32"),
}
MINIMA = [name for name, (grid, _, _) in GRIDS.items() if grid.zero == "float"]


def run(artifact: Artifact) -> tuple[npt.NDArray[np.float32], list[tuple[str, str]]]:
    """Logits of `IDS` in float32, and kind and weight type of every node that the plugin executes."""
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    model = ov.Core().compile_model(artifact.path / "openvino_model.xml", "CPU", exact)
    feeds = {
        "input_ids": np.array([IDS]),
        "attention_mask": np.ones((1, len(IDS)), np.int64),
        "position_ids": np.arange(len(IDS))[None],
        "beam_idx": np.zeros(1, np.int32),
    }
    infos = [n.get_rt_info() for n in model.get_runtime_model().get_ops()]
    nodes = [tuple(str(getattr(v := i[k], "value", v)) for k in ("layerType", "runtimePrecision")) for i in infos]
    return np.array(model.create_infer_request().infer(feeds)["logits"][0]), nodes  # type: ignore[return-value]


def same(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> bool:
    meter = DivergenceMeter()
    meter.add(expected, found)
    divergence = meter.result()
    close = bool(np.abs(found - expected).max() < 2e-6 * np.ptp(expected))
    return close and not divergence.broken and divergence.mean_kl < FLOAT_LIMITS.mean_kl


def awkward(weight: QuantizedTensor) -> QuantizedTensor:
    """With a minimum that can't be moved to the middle of the codes without rounding: 4 + 3 / 2**24 has 27 digits."""
    grid, minimum, scale = weight.grid, np.float16(3 * 2.0**-24), np.float16(4 / (weight.grid.levels >> 1))
    arrays = [a if a is None else a.copy() for a in weight.parameters.arrays()]
    if weight.super_scales is None:
        arrays[0][0, 0], arrays[1][0, 0] = scale, minimum  # type: ignore[index]
    else:
        arrays[0][0], arrays[1][0], arrays[2][0], arrays[3][0] = 1, 1, scale, minimum  # type: ignore[index]
    return QuantizedTensor(grid, weight.codes, *arrays)  # type: ignore[arg-type]


def each(load: Callable[[str], Any], change: Callable[[QuantizedTensor], QuantizedTensor]) -> Callable[[str], Any]:
    def loaded(name: str) -> Any:
        weight = load(name)
        return change(weight) if isinstance(weight, QuantizedTensor) else weight

    return loaded


@pytest.mark.parametrize("hidden", [64, 80])
@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_is_read_back_and_multiplied_compressed(weights, tmp_path: Path, name: str, hidden: int) -> None:
    """80 channels and a tied head: groups don't divide the row, and minima need zero points; 64 channels and an untied
    head: they need none."""
    grid, kind, scale = GRIDS[name]
    source = weights(grid, hidden=hidden, tied=hidden == 80, bias=True, layers=1)
    form = layout(grid, hidden)
    assert (form.type, form.zeros, form.scale, form.offsets) == (kind, grid.zero == "int", scale, name in MINIMA)
    if name in MINIMA and hidden == 80:
        kind = kind.replace("i", "u")
        source.load = each(source.load, awkward)
    artifact = OpenVinoExporter().export(source, tmp_path / "out", **EXACT)
    assert OpenVinoExporter().read_back(artifact, source) == []
    found, nodes = run(artifact)
    assert same(found, TorchModel(source).logits(IDS))
    products = [precision for layer, precision in nodes if layer == "FullyConnected"]
    assert products.count(kind) == 5
    assert products.count("f32") == len(products) - 5 == (5 if name in MINIMA else 0)
    if kind != "u2":
        assert ("Gather", kind) in nodes


@pytest.mark.parametrize("name", GRIDS)
def test_what_is_stored_are_the_same_numbers(quantized, name: str) -> None:
    weight: QuantizedTensor = quantized(GRIDS[name][0], 24, 192)
    held = as_stored(weight)
    same_numbers(weight, held, name)
    assert layout_of(held, weight.grid) == layout(weight.grid, 192)
    if name in MINIMA:
        held = as_stored(awkward(weight))
        same_numbers(awkward(weight), held, name)
        assert layout_of(held, weight.grid) != layout(weight.grid, 192)


def same_numbers(weight: QuantizedTensor, held: Any, name: str) -> None:
    integers = getattr(held, "integers", held)
    values = integers.dequantize()
    if name in MINIMA:
        values = values + np.repeat(held.offsets, integers.group_size, axis=1)[:, :192]
    np.testing.assert_array_equal(values.view(np.uint32), weight.dequantize().view(np.uint32))
    stored = stored_grid(weight.grid)
    assert stored is not None
    assert integers.grid == (
        replace(stored, zero="int") if name in MINIMA and integers.zero_points is not None else stored
    )
    assert str(integers.scales.dtype) == {"f16": "float16", "f32": "float32"}[GRIDS[name][2]]


def test_one_product_where_matrices_agree_and_others_where_not(weights, tmp_path: Path) -> None:
    """v has no minima: q, k and v are products of their own then; o, gate with up, down and the head."""
    source = weights(affine_grid(4, 32), overrides={"v": int_grid(3, 32)}, layers=1, bias=True)
    artifact = OpenVinoExporter().export(source, tmp_path / "out", **EXACT)
    assert OpenVinoExporter().read_back(artifact, source) == []
    found, nodes = run(artifact)
    assert same(found, TorchModel(source).logits(IDS))
    products = [precision for layer, precision in nodes if layer == "FullyConnected"]
    assert (products.count("i4"), products.count("u4"), products.count("f32")) == (6, 1, 6)


@pytest.mark.parametrize("tied", [True, False])
def test_a_wrong_minimum_is_seen_when_the_file_is_read_back(weights, tmp_path: Path, tied: bool) -> None:
    source = weights(affine_grid(4, 32), layers=1, tied=tied)
    artifact = OpenVinoExporter().export(source, tmp_path / "out")
    right = source.load

    def changed(name: str) -> Any:
        q = right(name)
        if name in ("layers.0.k", "embed"):
            q.zero_points[3, 1] *= 2
        return q

    source.load = changed
    wrong = OpenVinoExporter().read_back(artifact, source)
    # A tied embedding is read back twice: looked up, and as the head.
    assert sorted(set(wrong)) == [f"{n} was read back with other values" for n in ("embed", "layers.0.k")]
    assert len(wrong) == 2 + tied


def test_offsets_of_a_tied_matrix_are_stored_once(weights, tmp_path: Path) -> None:
    source = weights(GGML_GRIDS["Q4_1"], layers=1)
    artifact = OpenVinoExporter().export(source, tmp_path / "out")
    model = ov.Core().read_model(artifact.path / "openvino_model.xml")
    named = [n.get_friendly_name() for n in model.get_ops() if n.get_friendly_name().endswith(OFFSETS)]
    assert sorted(named) == sorted(
        f"{n}{OFFSETS}"
        for n in (
            "embed",
            "layers.0.q+layers.0.k+layers.0.v",
            "layers.0.o",
            "layers.0.gate+layers.0.up",
            "layers.0.down",
        )
    )


@pytest.mark.parametrize("name", ["Q2_K", "affine2"])
def test_two_bits_turn_dynamic_quantization_off(weights, tmp_path: Path, name: str) -> None:
    source = weights(GRIDS[name][0], layers=1)
    artifact = OpenVinoExporter().export(source, tmp_path / "out")
    assert artifact.options["dynamic_quantization"] == 0


def test_what_devices_take_goes_by_what_is_stored(weights, tmp_path: Path) -> None:
    three = int_grid(3, 128, symmetric=True)
    OpenVinoExporter().export(weights(three, layers=1), tmp_path / "npu", device="npu")
    OpenVinoExporter().export(weights(GGML_GRIDS["Q4_K"], layers=1), tmp_path / "gpu", device="gpu")
    for device, grid, word in (
        ("npu", affine_grid(4, 128), "symmetric int4"),
        ("npu", GGML_GRIDS["Q4_0"], "symmetric int4"),
        ("gpu", GGML_GRIDS["Q2_K"], "no u2 weights"),
    ):
        with pytest.raises(EdgeqError, match=word):
            OpenVinoExporter().export(weights(grid, layers=1), tmp_path / "no", device=device)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (Grid("gguf", 1, 256, "none", "f16", "IQ1_S"), "does not know the layout of IQ1_S"),
        (Grid("codebook", 4, 32, "none", "f16", None, "other"), "no codebook other"),
        (int_grid(9, 32), "codes of 9 bits"),
    ],
)
def test_what_edgeq_can_not_read_is_refused(weights, tmp_path: Path, grid: Grid, words: str) -> None:
    assert words in (refuses(grid) or "")
    source = weights()
    source.scheme = Scheme("bad", "rtn", grid, grid)
    with pytest.raises(EdgeqError, match=words):
        OpenVinoExporter().export(source, tmp_path / "out")
    assert not list(tmp_path.iterdir())
