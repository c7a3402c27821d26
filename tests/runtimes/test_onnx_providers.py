"""Execution providers: what is asked for, what is refused, and a cache in a device's memory."""

from __future__ import annotations

import numpy as np
import pytest

import edgeq
from edgeq.errors import EdgeqError
from edgeq.runtimes.onnxruntime.providers import PROVIDERS, candidates

IDS = np.random.default_rng(5).integers(0, 256, 600).tolist()
ONE = {"threads": 1, "spin": False}
ALL = [p.name for p in PROVIDERS.values()]


def test_auto_prefers_accelerators_and_ends_with_the_cpu():
    assert candidates("auto", ALL) == ["cuda", "directml", "cpu"]
    assert candidates("auto", [PROVIDERS["cpu"].name]) == ["cpu"]
    assert candidates("directml", ALL) == ["directml"]


@pytest.mark.parametrize("device", ["cuda", "directml"])
def test_a_provider_that_is_not_there_is_refused_naming_its_package(device):
    with pytest.raises(EdgeqError, match=PROVIDERS[device].name) as caught:
        candidates(device, [PROVIDERS["cpu"].name])
    assert f"pip install onnxruntime-{'gpu' if device == 'cuda' else device}" in caught.value.line


def test_an_unknown_device_is_refused(artifact):
    with pytest.raises(EdgeqError, match=r"no device 'tpu'.*cpu, cuda, directml, auto"):
        edgeq.load(artifact, device="tpu")


def test_the_openvino_provider_is_refused_with_the_reason(artifact):
    with pytest.raises(EdgeqError, match=r"OpenVINO provider runs neither.*--to openvino"):
        edgeq.load(artifact, device="openvino")


def test_a_provider_that_does_not_start_is_refused_and_auto_takes_the_cpu(artifact, monkeypatch):
    """onnxruntime-gpu lists CUDA on a machine without a GPU, and then runs on the CPU in silence."""
    import onnxruntime as ort

    real = ort.InferenceSession
    monkeypatch.setattr(ort, "get_available_providers", lambda: ALL)
    monkeypatch.setattr(ort, "InferenceSession", lambda path, options, providers: real(path, options))
    with pytest.raises(EdgeqError, match="CUDAExecutionProvider but it did not start"):
        edgeq.load(artifact, device="cuda", **ONE)
    with edgeq.load(artifact, device="auto", **ONE) as session:
        assert type(session.engine).__name__ == "OnnxEngine"
        assert len(session.logits(IDS[:4])) == 4


def test_a_cache_bound_as_device_memory_gives_the_same_logits(artifact, monkeypatch):
    """On the CPU's memory, through the calls that any device's takes; the cache grows twice on the way."""
    from edgeq.runtimes.onnxruntime import engine, on_device, providers

    with edgeq.load(artifact, **ONE) as session:
        whole = session.logits(IDS)
        after = session.engine.decode(7)
    bound = providers.Provider(providers.CPU, "onnxruntime", memory="cpu")
    monkeypatch.setitem(engine.PROVIDERS, "cpu", bound)
    with edgeq.load(artifact, **ONE) as session:
        assert isinstance(session.engine, on_device.DeviceEngine)
        np.testing.assert_array_equal(session.logits(IDS), whole)
        np.testing.assert_array_equal(session.engine.decode(7), after)
        session.engine.rewind(300)
        np.testing.assert_allclose(session.engine.decode(IDS[300]), whole[300], atol=1e-4)
