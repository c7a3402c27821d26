"""What the OpenVINO exporter writes: weights bit for bit, compressed in the plugin, activation grids, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeq.artifact import Artifact, read_artifact
from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.decoder.torch_model import TorchModel
from edgeq.device.cpu import probe_cpu
from edgeq.device.isa import int8_sums_overflow
from edgeq.device.spec import Cpu
from edgeq.errors import EdgeqError
from edgeq.exporters.openvino import OpenVinoExporter
from edgeq.exporters.openvino.packing import codes
from edgeq.exporters.openvino.storable import layout
from edgeq.measure.verify import activation_path
from edgeq.scheme import Grid, Scheme, codebook_grid, int_grid

ov = pytest.importorskip("openvino")
from edgeq.exporters.openvino.export import FILE  # noqa: E402
from edgeq.runtimes.openvino.engine import exact_products, open_engine  # noqa: E402

IDS = np.random.default_rng(5).integers(0, 160, 20).tolist()
EXACT: dict[str, Any] = {"kv_dtype": "f32", "dynamic_quantization": 0}
OVERFLOWS = int8_sums_overflow(probe_cpu().arch, probe_cpu().isa)


def compiled(artifact: Artifact, **config: Any) -> Any:
    """The model as the CPU plugin runs it, float32 between the matrices, on any processor the same numbers."""
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, **exact_products(probe_cpu())}
    return ov.Core().compile_model(artifact.path / "openvino_model.xml", "CPU", exact | config)


def logits(model: Any) -> npt.NDArray[np.float32]:
    feeds = {
        "input_ids": np.array([IDS]),
        "attention_mask": np.ones((1, len(IDS)), np.int64),
        "position_ids": np.arange(len(IDS))[None],
        "beam_idx": np.zeros(1, np.int32),
    }
    return np.array(model.create_infer_request().infer(feeds)["logits"][0])


def layers(model: Any) -> list[tuple[str, str]]:
    """Kind and weight type of every node that is executed."""

    def text(value: Any) -> str:
        return str(getattr(value, "value", value))

    infos = [n.get_rt_info() for n in model.get_runtime_model().get_ops()]
    return [(text(i["layerType"]), text(i["runtimePrecision"])) for i in infos]


def off(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    """Largest difference, as a share of the range."""
    return float(np.abs(found - expected).max() / np.ptp(expected))


GRIDS = [
    *((int_grid(b, g, symmetric=s), t) for b, s, t in ((4, True, "i4"), (4, False, "u4")) for g in (16, 32, 48, -1)),
    *((int_grid(b, g, symmetric=s), t) for b, s, t in ((8, True, "i8"), (8, False, "u8")) for g in (32, -1)),
    *((int_grid(2, 32, symmetric=s), "u2") for s in (True, False)),
    (codebook_grid("nf4", 32), "nf4"),
    (codebook_grid("fp4", -1), "f4e2m1"),
    (codebook_grid("ternary", 32), "u2"),
    (int_grid(4, 256), "u4"),  # wider than a row
]


@pytest.mark.parametrize(("grid", "kind"), GRIDS, ids=lambda v: v if isinstance(v, str) else str(v.group_size))
def test_every_storable_grid_is_read_back_and_multiplied_compressed(weights, tmp_path, grid: Grid, kind: str) -> None:
    source = weights(grid)
    limit = {"ternary": 3, "fp4": 15}.get(grid.codebook or "", 0)  # codes that stand for something
    if limit:
        source.load = _below(limit, source.load)
    artifact = OpenVinoExporter().export(source, tmp_path / "out", **EXACT)
    assert OpenVinoExporter().read_back(artifact, source) == []
    model = compiled(artifact)
    products = [precision for layer, precision in layers(model) if layer == "FullyConnected"]
    assert products == [kind] * (4 * 2 + 1)
    assert off(logits(model), TorchModel(source).logits(IDS)) < 2e-6


def _below(limit: int, load: Callable[[str], Any]) -> Callable[[str], Any]:
    def loaded(name: str) -> Any:
        q = load(name)
        return QuantizedTensor(q.grid, q.codes % limit, q.scales) if isinstance(q, QuantizedTensor) else q

    return loaded


@pytest.mark.parametrize("embed", [int_grid(8, 32), int_grid(4, 32), int_grid(4, -1, symmetric=True)])
def test_a_tied_embedding_is_stored_once_and_looked_up_compressed(weights, tmp_path, embed: Grid) -> None:
    source = weights(int_grid(8, -1, symmetric=True), overrides={"embed": embed})
    artifact = OpenVinoExporter().export(source, tmp_path / "out", **EXACT)
    shape = list(source.load("embed").codes.reshape(160, -1, 64 if embed.group_size == -1 else 32).squeeze().shape)
    model = ov.Core().read_model(artifact.path / "openvino_model.xml")
    tables = [n for n in model.get_ops() if n.get_type_name() == "Constant" and list(n.shape) == shape]
    assert len(tables) == 1
    kind = layout(embed, 64).type
    assert ("Gather", kind) in layers(compiled(artifact))


@pytest.mark.parametrize("spec", [{"tied": False}, {"bias": True}, {"hidden": 80}, {"hidden": 80, "tied": False}])
def test_untied_biased_and_ragged_models(weights, tmp_path, spec: dict[str, Any]) -> None:
    """80 channels in groups of 32 leave 16: the file has groups of 16, with the scales repeated."""
    source = weights(int_grid(4, 32), **spec)
    artifact = OpenVinoExporter().export(source, tmp_path / "out", **EXACT)
    assert OpenVinoExporter().read_back(artifact, source) == []
    assert off(logits(compiled(artifact)), TorchModel(source).logits(IDS)) < 2e-6


def test_mixed_grids_in_one_group_of_matrices(weights, tmp_path) -> None:
    source = weights(int_grid(4, 32), overrides={"v": int_grid(8, 32), "up": codebook_grid("nf4", 32)})
    artifact = OpenVinoExporter().export(source, tmp_path / "out", **EXACT)
    assert OpenVinoExporter().read_back(artifact, source) == []
    assert off(logits(compiled(artifact)), TorchModel(source).logits(IDS)) < 2e-6


def test_a_wrong_scale_is_seen_when_the_file_is_read_back(weights, tmp_path) -> None:
    source = weights(int_grid(4, 32))
    artifact = OpenVinoExporter().export(source, tmp_path / "out")
    other = weights(int_grid(4, 32))
    right = other.load

    def changed(name: str) -> Any:
        q = right(name)
        if name == "layers.1.k":
            q.scales[3, 1] *= 2
        return q

    other.load = changed
    assert OpenVinoExporter().read_back(artifact, other) == ["layers.1.k was read back with other values"]


def test_dynamic_quantization_is_on_unless_it_is_turned_off(weights, tmp_path) -> None:
    """Inputs rounded to 8 bits change the logits by less than 5 %; the file itself says how. The plugin rounds them
    where the processor has VNNI."""
    source = weights(int_grid(4, 32))
    expected = TorchModel(source).logits(IDS)
    fast = OpenVinoExporter().export(source, tmp_path / "fast")
    changed = off(logits(compiled(fast)), expected)
    assert changed < 0.05 and (changed > 1e-4 or OVERFLOWS)
    assert fast.options == {"context": 64, "device": "cpu", "kv_dtype": "u8", "dynamic_quantization": 32}
    exact = OpenVinoExporter().export(source, tmp_path / "exact", **EXACT)
    assert [activation_path(a) for a in (fast, exact)] == ["int8", "float"]
    told = ov.Core().read_model(exact.path / "openvino_model.xml").get_rt_info("runtime_options").value
    assert dict(told) == {
        "KV_CACHE_PRECISION": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    }
    assert str(compiled(exact).get_property("KV_CACHE_PRECISION")) == str(ov.Type.f32)


STATIC = [
    (ActivationGrid("static", 8, False, 0.05, 120), "u8"),
    (ActivationGrid("static", 8, True, 0.05, 0), "i8"),
    (ActivationGrid("static", 16, False, 0.0005, 30000), "i8"),
]


@pytest.mark.parametrize(("grid", "kind"), STATIC, ids=["uint8", "int8", "uint16"])
@pytest.mark.parametrize("rounded", [("q", "k", "v"), ("o",), ("gate", "up"), ("down",)], ids="-".join)
def test_static_activation_grids_are_computed(weights, tmp_path, grid: ActivationGrid, kind: str, rounded) -> None:
    """One place of one layer at a time: behind it, a code that falls to the other side of a tie would tell nothing."""
    source = weights(int_grid(8, -1, symmetric=True))
    plain = TorchModel(source).logits(IDS)
    names = {f"layers.1.{n}" for n in rounded}
    source.activation = lambda name: grid if name in names else None
    artifact = OpenVinoExporter().export(source, tmp_path / "out", kv_dtype="f32")
    assert artifact.options["dynamic_quantization"] == 0
    model, expected = compiled(artifact), TorchModel(source).logits(IDS)
    assert off(plain, expected) > 1e-5
    assert off(logits(model), expected) < 2e-6
    assert OVERFLOWS or ("FullyConnected", kind) in layers(model)


def test_sessions_compute_static_grids_on_any_processor(weights, tmp_path) -> None:
    """Also where sums of int8 products overflow, which the plugin left to itself does not avoid."""
    source = weights(int_grid(8, -1, symmetric=True))
    grid = ActivationGrid("static", 8, False, 0.05, 120)
    source.activation = lambda name: grid if name in {f"layers.1.{n}" for n in "qkv"} else None
    artifact = OpenVinoExporter().export(source, tmp_path / "out", kv_dtype="f32")
    engine = open_engine(artifact.path / FILE, context=64, threads=1, paged=False, rounded_inputs=True)
    assert off(engine.logits(IDS), TorchModel(source).logits(IDS)) < 2e-6


@pytest.mark.parametrize(
    ("arch", "isa", "wanted"),
    [
        ("x86_64", ("avx2", "fma"), {"LP_TRANSFORMS_MODE": "OFF"}),
        ("x86_64", ("avx2", "avx_vnni"), {}),
        ("aarch64", ("neon",), {}),
    ],
)
def test_products_of_8_bits_are_left_to_the_plugin_where_they_are_right(arch, isa, wanted) -> None:
    assert exact_products(Cpu("a processor", arch, 2, 4, isa)) == wanted


def test_dynamic_activation_grids_are_the_plugin_s_own(weights, tmp_path) -> None:
    source = weights(int_grid(8, -1, symmetric=True))
    source.activation = lambda name: ActivationGrid(symmetric=False) if name != "embed" else None
    artifact = OpenVinoExporter().export(source, tmp_path / "out")
    assert artifact.options["dynamic_quantization"] == 32
    assert off(logits(compiled(artifact)), TorchModel(source).logits(IDS)) < 0.05
    with pytest.raises(EdgeqError, match="rounded to 8 bits at run time"):
        OpenVinoExporter().export(source, tmp_path / "off", dynamic_quantization=0)


def test_codes_are_packed_low_first_and_signed_ones_in_two_s_complement(quantized) -> None:
    weight = quantized(int_grid(4, 32, symmetric=True), 3, 64)
    packed = np.concatenate(list(codes(weight, layout(weight.grid, 64))))
    low, high = packed & 15, packed >> 4
    signed = np.stack((low, high), 2).reshape(3, 64).astype(np.int8)
    signed[signed > 7] -= 16
    np.testing.assert_array_equal(signed, weight.codes.astype(np.int8) - 8)


def test_the_folder_is_what_other_runtimes_read(weights, tmp_path) -> None:
    source = weights(int_grid(4, 32))
    source.files = {"tokenizer_config.json": b'{"a": 1}'}
    seen: list[tuple[int, int, str]] = []
    OpenVinoExporter().export(source, tmp_path / "out", progress=lambda *p: seen.append(p), context=24, plan={"a": 1})
    artifact = read_artifact(tmp_path / "out")
    assert set(artifact.files) == {
        "openvino_model.xml",
        "openvino_model.bin",
        "config.json",
        "generation_config.json",
        "tokenizer_config.json",
    }
    assert [s[0] for s in seen] == list(range(1, seen[-1][1] + 1))
    assert (artifact.runtime, artifact.scheme, artifact.plan) == ("openvino", "test", {"a": 1})
    assert artifact.model["max_positions"] == 24 and artifact.model["no_tokenizer_models"]
    config = json.loads((artifact.path / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_layers"], config["eos_token_id"]) == ("llama", 2, 2)
    model = ov.Core().read_model(artifact.path / "openvino_model.xml")
    ids = sorted(v.info.variable_id for v in model.get_variables())
    assert ids[0] == "past_key_values.0.keypresent.0.key" and len(ids) == 4


SYM128 = int_grid(4, 128, symmetric=True)


@pytest.mark.parametrize(
    ("grid", "options", "word"),
    [
        (int_grid(4, 27), {}, "can't be split"),
        (int_grid(4, 32), {"context": 65}, "context"),
        (int_grid(4, 32), {"device": "tpu"}, "no device 'tpu'"),
        (int_grid(4, 32), {"kv_dtype": "q8_0"}, "no q8_0 cache"),
        (int_grid(4, 32), {"dynamic_quantization": -1}, "groups of -1"),
        (int_grid(2, 32), {"dynamic_quantization": 32}, "2-bit weights with dynamic"),
        (int_grid(4, 128), {"device": "npu"}, "symmetric int4"),
        (SYM128, {"device": "npu", "kv_dtype": "u8"}, "no u8 cache on the npu"),
        (codebook_grid("nf4", 32), {"device": "gpu"}, "no nf4 weights"),
    ],
)
def test_refused_before_a_file_is_written(weights, tmp_path, grid: Grid, options: dict[str, Any], word: str) -> None:
    source = weights()
    source.scheme = Scheme("bad", "rtn", grid, grid)
    with pytest.raises(EdgeqError, match=word):
        OpenVinoExporter().export(source, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_what_the_npu_takes_is_written_for_it(weights, tmp_path) -> None:
    artifact = OpenVinoExporter().export(weights(SYM128), tmp_path / "out", device="npu")
    assert artifact.options["kv_dtype"] == "f16"


def test_a_grid_found_on_the_way_leaves_nothing(weights, tmp_path: Path) -> None:
    source = weights(int_grid(4, 32), overrides={"down": int_grid(4, 27)})
    with pytest.raises(EdgeqError, match="can't be split"):
        OpenVinoExporter().export(source, tmp_path / "out")
    assert not list(tmp_path.iterdir())
