"""The reference runtime's options; a GPU is stood in for by torch's device without memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeq.artifact import Artifact
from edgeq.checkpoint.open import open_weights
from edgeq.cli.run_ import runtime_options
from edgeq.decoder.decoder import decoder
from edgeq.decoder.torch_model import TorchModel
from edgeq.decoder.torch_ops import as_ids
from edgeq.errors import EdgeqError
from edgeq.runtimes.torch import TorchRuntime

IDS = [1, 5, 9, 33, 2, 7, 200, 14]


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer_folder):
    """A folder of transformers' own, with a window and capped scores: every mask and table the decoder makes."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tokenizer_folder(tmp_path_factory.mktemp("torch") / "model")
    sizes = {"vocab_size": 259, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 4, "max_position_embeddings": 64}
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model("gemma2", **sizes, **heads)).float().save_pretrained(folder)
    return folder


@pytest.fixture
def artifact(model):
    return Artifact(model, "torch", "tiny", "fp32", {}, checkpoint=str(model))


def test_narrow_dtypes_compute_about_the_same(artifact):
    found = {}
    for dtype in ("f32", "bf16", "f16"):
        with TorchRuntime().open(artifact, dtype=dtype, threads=1) as session:
            found[dtype] = session.logits(IDS)
            assert found[dtype].dtype == np.float32
            assert isinstance(session.generate("Hi", max_tokens=3), str)
    with TorchRuntime().open(artifact, threads=1) as session:
        np.testing.assert_array_equal(session.logits(IDS), found["f32"])
    error = {k: np.abs(v - found["f32"]).max() / np.abs(found["f32"]).max() for k, v in found.items()}
    assert 0 < error["f16"] < error["bf16"] < 0.05


def test_all_of_the_decoder_stays_on_its_device(model):
    """A tensor left on the processor would not meet the others there."""
    weights = open_weights(model)
    on_device = TorchModel(weights, device="meta", dtype=torch.bfloat16)
    cache = on_device.start()
    on_device._ops.cache = cache
    for part in (IDS, IDS[:1]):
        with torch.inference_mode():
            out = decoder(on_device._ops, weights.spec, as_ids(part).to("meta"))
        cache.length += len(part)
        assert out.device.type == "meta" and out.shape == (1, len(part), 259) and out.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"device": "tpu"}, "knows no device 'tpu'"),
        ({"dtype": "int8"}, "no dtype 'int8'"),
        ({"colour": "red"}, "no option 'colour'"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_bad_options_are_told(artifact, options, line):
    with pytest.raises(EdgeqError, match=line):
        TorchRuntime().open(artifact, **options)


def test_a_gpu_that_is_not_there_is_told(artifact, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EdgeqError, match="finds no NVIDIA GPU here"):
        TorchRuntime().open(artifact, device="cuda")


def test_options_of_a_runtime_on_the_command_line():
    assert runtime_options(["kv-dtype=q8_0", "chunk=64", "spin=false"]) == {
        "kv_dtype": "q8_0",
        "chunk": 64,
        "spin": False,
    }
    for bad in ("kv_dtype", "=1", "x="):
        with pytest.raises(EdgeqError, match="--option"):
            runtime_options([bad])
