"""Every dense architecture exported to OpenVINO: the same logits as transformers, step by step as in one pass."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeq.decoder.torch_model import TorchModel
from edgeq.registry import exporter

ov = pytest.importorskip("openvino")

DENSE: tuple[str, ...] = runpy.run_path(str(Path(__file__).with_name("conftest.py")))["DENSE"]
IDS = np.random.default_rng(7).integers(3, 160, 28).tolist()  # longer than every window and trained length here
SHORT = 12
TOLERANCE = 1e-4
EXACT: dict[str, Any] = {"kv_dtype": "f32", "dynamic_quantization": 0}


class Runner:
    """The model as it lies in the folder, fed as any caller would."""

    def __init__(self, folder: Path) -> None:
        config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        self.compiled = ov.Core().compile_model(folder / "openvino_model.xml", "CPU", config)
        self._request = self.compiled.create_infer_request()
        self._length = 0

    def logits(self, ids: list[int]) -> npt.NDArray[np.float32]:
        self._request.reset_state()
        self._length = 0
        return self.step(ids)

    def step(self, ids: list[int]) -> npt.NDArray[np.float32]:
        start, self._length = self._length, self._length + len(ids)
        feeds = {
            "input_ids": np.array([ids]),
            "attention_mask": np.ones((1, self._length), np.int64),
            "position_ids": np.arange(start, self._length)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        return np.array(self._request.infer(feeds)["logits"][0])

    def layers(self) -> list[str]:
        """Kinds of the nodes that are executed."""
        infos = (n.get_rt_info() for n in self.compiled.get_runtime_model().get_ops())
        return [getattr(i["layerType"], "value", str(i["layerType"])) for i in infos]


@pytest.mark.parametrize("name", DENSE)
def test_logits_are_those_of_transformers_in_one_pass_and_step_by_step(tiny, tmp_path: Path, name: str) -> None:
    model = tiny(name)
    artifact = exporter("openvino").export(model.weights, tmp_path / "out", **EXACT)
    runner = Runner(artifact.path)
    for length in (SHORT, len(IDS)):
        theirs = model.reference(IDS[:length])
        np.testing.assert_allclose(runner.logits(IDS[:length]), theirs, atol=TOLERANCE, rtol=0)
    runner.logits([5])
    reference = TorchModel(model.weights)
    cache = reference.start()
    reference.step([5], cache)
    for part in (IDS[:7], *([i] for i in IDS[7:])):
        np.testing.assert_allclose(runner.step(part), reference.step(part, cache), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["llama-bias", "gemma2", "olmo2"])
def test_float_weights_biases_and_norms_are_read_back(tiny, tmp_path: Path, name: str) -> None:
    model = tiny(name)
    artifact = exporter("openvino").export(model.weights, tmp_path / "out")
    assert exporter("openvino").read_back(artifact, model.weights) == []


@pytest.mark.parametrize(("name", "attentions"), [("qwen3", 3), ("mistral", 3), ("phi4-mini", 3), ("gemma2", 0)])
def test_the_plugin_fuses_norms_rotations_and_attention(tiny, tmp_path: Path, name: str, attentions: int) -> None:
    """A soft cap on the scores is all that keeps attention apart."""
    model = tiny(name)
    artifact = exporter("openvino").export(model.weights, tmp_path / "out", **EXACT)
    layers = Runner(artifact.path).layers()
    assert layers.count("ScaledDotProductAttention") == attentions
    assert layers.count("RoPE") == 2 * 3
    assert layers.count("RMS") >= 2 * 3 + 1
    assert layers.count("FullyConnected") == 4 * 3 + 1


def test_padding_on_the_left_and_two_sequences_at_once(tiny, tmp_path: Path) -> None:
    model = tiny("mistral")
    artifact = exporter("openvino").export(model.weights, tmp_path / "out", **EXACT)
    request = Runner(artifact.path).compiled.create_infer_request()
    pad = len(IDS) - SHORT
    mask = np.ones((2, len(IDS)), np.int64)
    mask[1, :pad] = 0
    feeds = {
        "input_ids": np.array([IDS, [0] * pad + IDS[:SHORT]]),
        "attention_mask": mask,
        "position_ids": np.maximum(np.cumsum(mask, 1) - 1, 0),
        "beam_idx": np.arange(2, dtype=np.int32),
    }
    found = request.infer(feeds)["logits"]
    np.testing.assert_allclose(found[0], model.reference(IDS), atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(found[1, pad:], model.reference(IDS[:SHORT]), atol=TOLERANCE, rtol=0)
