"""Folders of mixtures: what transformers computes from them, and that they hold every expert to the bit."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import dense
from edgeq.conversion import convert
from edgeq.decoder.torch_model import TorchModel
from edgeq.errors import EdgeqError
from edgeq.exporters.huggingface import AwqExporter, CompressedTensorsExporter, GptqExporter
from edgeq.model.safetensors_file import SafetensorsFile
from edgeq.model.weights import open_source

EXPORTERS = {"compressed-tensors": CompressedTensorsExporter, "gptq": GptqExporter, "awq": AwqExporter}
IDS = np.random.default_rng(7).integers(3, 160, 20).tolist()
QWEN = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "tie_word_embeddings": False}
LOCAL = {"num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 64}
TYPES = ["sliding_attention", "full_attention"]
ONE_BY_ONE: dict[str, dict[str, Any]] = {
    "mixtral": {**LOCAL, "sliding_window": None},
    "qwen3_moe": {**QWEN, "norm_topk_prob": True, "head_dim": 32},
    "qwen2_moe": {**QWEN, "shared_expert_intermediate_size": 64, "mlp_only_layers": [1]},
    "olmoe": {**QWEN, "intermediate_size": 32},
}
TOGETHER: dict[str, dict[str, Any]] = {
    "gpt_oss": {**LOCAL, "head_dim": 32, "sliding_window": 6, "layer_types": TYPES},
    "granitemoe": LOCAL,
    "granitemoeshared": {**LOCAL, "shared_intermediate_size": 32},
}
SYMMETRIC = {"symmetric": True, "embed_symmetric": True, "embed_group_size": 32}


def loaded(folder):
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}
    model = AutoModelForCausalLM.from_pretrained(folder, **options).eval()
    for parameter in model.parameters():
        if parameter.dtype == torch.float16:  # experts come so, whatever is asked for
            parameter.data = parameter.data.float()
    with torch.inference_mode():
        logits = model(torch.tensor([IDS]), use_cache=False).logits[0].float().numpy()
        answer = model.generate(torch.tensor([IDS]), max_new_tokens=6, min_new_tokens=6, do_sample=False)
    return logits, answer[0, len(IDS) :].tolist()


class InHalf:
    """The weights as transformers 5.23 has them: it unpacks experts while it loads, in the type of the scales."""

    def __init__(self, weights: Any) -> None:
        self.spec, self.names = weights.spec, weights.names
        self._weights = weights

    def load(self, name: str) -> Any:
        weight = self._weights.load(name)
        return dense(weight).astype(np.float16).astype(np.float32) if "experts" in name else weight


@pytest.mark.parametrize("kind", [*ONE_BY_ONE, *TOGETHER])
def test_a_float_mixture_is_a_plain_folder(saved, tmp_path, kind):
    source = open_source(saved(kind, **{**ONE_BY_ONE, **TOGETHER}[kind]))
    artifact = CompressedTensorsExporter().export(source, tmp_path / "out")
    assert CompressedTensorsExporter().read_back(artifact, source) == []
    np.testing.assert_allclose(loaded(artifact.path)[0], TorchModel(source).logits(IDS), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ONE_BY_ONE)
@pytest.mark.parametrize("bits", [4, 8])
def test_transformers_computes_what_the_checkpoint_says(checkpoint, tmp_path, kind, bits):
    made = checkpoint({**SYMMETRIC, "bits": bits, "head": "float"}, kind=kind, **ONE_BY_ONE[kind])
    artifact = CompressedTensorsExporter().export(made, tmp_path / "out")
    assert CompressedTensorsExporter().read_back(artifact, made) == []
    reference = TorchModel(InHalf(made))
    expected = reference.logits(IDS)
    logits, answer = loaded(artifact.path)
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0)
    ids = list(IDS)
    for _ in answer:
        last = reference.logits(ids)[-1].copy()
        last[list(made.spec.eos_ids)] = -np.inf  # as a minimum length does
        ids.append(int(last.argmax()))
    assert ids[len(IDS) :] == answer


@pytest.mark.parametrize("kind", ONE_BY_ONE)
@pytest.mark.parametrize("name", EXPORTERS)
def test_every_expert_comes_back(checkpoint, tmp_path, kind, name):
    made = checkpoint({"group_size": 32, "embed_group_size": 32, "head": "float"}, kind=kind, **ONE_BY_ONE[kind])
    artifact = EXPORTERS[name]().export(made, tmp_path / "out")
    assert EXPORTERS[name]().read_back(artifact, made) == []
    again = convert(artifact.path, tmp_path / "again")
    again.verify()
    experts = [n for n in made.names() if "experts" in n]
    assert experts
    for tensor in made.names():
        a, b = made.load(tensor), again.load(tensor)
        np.testing.assert_array_equal(dense(a), dense(b).reshape(dense(a).shape))
        assert isinstance(a, QuantizedTensor) == isinstance(b, QuantizedTensor) or tensor == "embed"


@pytest.mark.parametrize("kind", TOGETHER)
@pytest.mark.parametrize("name", EXPORTERS)
def test_experts_in_one_tensor_are_refused_where_quantized(checkpoint, tmp_path, kind, name):
    made = checkpoint({"group_size": 32, "embed_group_size": 32}, kind=kind, **TOGETHER[kind])
    with pytest.raises(EdgeqError, match=f"experts of {kind} are one tensor for all, which its readers take as floats"):
        EXPORTERS[name]().export(made, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_names_are_those_of_the_hub_and_routers_stay_float(checkpoint, tmp_path):
    made = checkpoint({**SYMMETRIC, "head": "float"}, kind="mixtral", **ONE_BY_ONE["mixtral"])
    for name in EXPORTERS:
        artifact = EXPORTERS[name]().export(made, tmp_path / name)
        names = set(SafetensorsFile.open(artifact.path / "model.safetensors").tensors)
        part = "weight_packed" if name == "compressed-tensors" else "qweight"
        assert {f"model.layers.1.block_sparse_moe.experts.4.{w}.{part}" for w in ("w1", "w2", "w3")} <= names
        assert "model.layers.0.block_sparse_moe.gate.weight" in names
        config = json.loads((artifact.path / "config.json").read_text())["quantization_config"]
        router = "model.layers.0.block_sparse_moe.gate"
        if name == "gptq":
            left_out = [p.removeprefix("-:") for p in config["dynamic"] if p.startswith("-:")]
            assert any(re.match(p, router) for p in left_out)
        else:
            assert router in config["ignore" if name == "compressed-tensors" else "modules_to_not_convert"]


def test_several_grids_are_told_by_few_patterns(checkpoint, tmp_path):
    """The head has another grid: the groups name all other modules, an expert's likes by one pattern."""
    made = checkpoint({**SYMMETRIC, "embed_group_size": 16}, kind="qwen3_moe", **ONE_BY_ONE["qwen3_moe"])
    config = json.loads((CompressedTensorsExporter().export(made, tmp_path / "ct").path / "config.json").read_text())
    groups = [g["targets"] for g in config["quantization_config"]["config_groups"].values()]
    experts = [t for g in groups for t in g if "experts" in t]
    assert len(experts) == 3 and r"re:^model\.layers\.(0|1)\.mlp\.experts\.\d+\.down_proj$" in experts
    assert not any("experts" in t for t in groups[0])  # transformers takes the first such group for all others
    np.testing.assert_allclose(loaded(tmp_path / "ct")[0], TorchModel(InHalf(made)).logits(IDS), atol=1e-4, rtol=0)


def test_a_missing_or_another_expert_is_found(checkpoint, tmp_path):
    made = checkpoint({**SYMMETRIC, "head": "float"}, kind="olmoe", **ONE_BY_ONE["olmoe"])
    artifact = CompressedTensorsExporter().export(made, tmp_path / "out")
    file = artifact.path / "model.safetensors"
    at = SafetensorsFile.open(file).tensors["model.layers.1.mlp.experts.3.up_proj.weight_packed"].start
    data = bytearray(file.read_bytes())
    data[at + 5] ^= 1
    file.write_bytes(data)
    assert CompressedTensorsExporter().read_back(artifact, made) == [
        "layers.1.experts_up was read back with other values"
    ]
    file.write_bytes(data.replace(b"layers.0.mlp.experts.2.down_proj", b"layers.0.mlp.experts.9.down_proj"))
    with pytest.raises(EdgeqError, match=r"lacks the tensor model\.layers\.0\.mlp\.experts\.2\.down_proj"):
        CompressedTensorsExporter().read_back(artifact, made)
