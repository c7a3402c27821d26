"""Experts in safetensors files: one by one, fused, transposed and in turns, or MXFP4, all read as one tensor a role."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.errors import EdgeqError
from edgeq.model.experts import E2M1, mxfp4
from edgeq.model.weights import open_source

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

_SIZES: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
_SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 64}
_SIZES |= {"num_experts_per_tok": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
FIELDS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 3},
    "qwen3_moe": {"num_experts": 3, "moe_intermediate_size": 24},
    "granitemoe": {"num_local_experts": 3},
    "gpt_oss": {"num_local_experts": 3},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    made: dict[str, tuple[Path, Any]] = {}

    def make(kind: str) -> tuple[Path, Any]:
        if kind not in made:
            torch.manual_seed(0)
            config = transformers.AutoConfig.for_model(kind, **{**_SIZES, **FIELDS[kind]})
            model = transformers.AutoModelForCausalLM.from_config(config).float()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.normal_()
            folder = tmp_path_factory.mktemp(kind)
            model.save_pretrained(folder)
            made[kind] = folder, model
        return made[kind]

    return make


def _gate_up_down(kind: str, model: Any) -> tuple[Any, Any, Any]:
    """Of the second layer, as the model has them, (experts, out, in)."""
    layer = model.model.layers[1]
    block = layer.block_sparse_moe if kind == "granitemoe" else layer.mlp
    fused, down = block.experts.gate_up_proj, block.experts.down_proj
    if kind == "gpt_oss":
        fused, down = fused.transpose(1, 2), down.transpose(1, 2)
        return fused[:, ::2], fused[:, 1::2], down
    return (*fused.chunk(2, 1), down)


@pytest.mark.parametrize("kind", FIELDS)
def test_experts_are_read_as_the_model_has_them(saved, kind):
    folder, model = saved(kind)
    weights = open_source(folder)
    for role, theirs in zip(("gate", "up", "down"), _gate_up_down(kind, model), strict=True):
        name = f"layers.1.experts_{role}"
        np.testing.assert_array_equal(weights.load(name), theirs.detach().numpy())
        np.testing.assert_array_equal(weights.load_rows(name, slice(1, 3)), theirs[1:3].detach().numpy())


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_fused_experts_are_the_same_as_one_by_one(saved, tmp_path, kind):
    """transformers 5 holds a family's experts as two tensors, and saves them so where it is told to."""
    from safetensors.torch import save_file

    folder, model = saved(kind)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file({n: t.detach().contiguous() for n, t in model.state_dict().items()}, tmp_path / "model.safetensors")
    fused, one_by_one = open_source(tmp_path), open_source(folder)
    for name in one_by_one.names():
        np.testing.assert_array_equal(fused.load(name), one_by_one.load(name))


def test_mxfp4_is_what_transformers_makes_of_it(saved, tmp_path):
    from safetensors.torch import load_file, save_file
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    folder, _ = saved("gpt_oss")
    found = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    expected = {}
    for name in [n for n in found if n.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, inp, out = found.pop(name).shape
        blocks = torch.randint(0, 256, (experts, out, inp // 32, 16), generator=generator, dtype=torch.uint8)
        scales = torch.randint(100, 140, (experts, out, inp // 32), generator=generator, dtype=torch.uint8)
        found |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        expected[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).numpy()
    save_file(found, tmp_path / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = open_source(tmp_path)
    assert weights.spec.source_dtype == "mxfp4"
    for i in range(2):
        fused = expected[f"model.layers.{i}.mlp.experts.gate_up_proj"].swapaxes(1, 2)
        down = expected[f"model.layers.{i}.mlp.experts.down_proj"].swapaxes(1, 2)
        for role, theirs in (("gate", fused[:, ::2]), ("up", fused[:, 1::2]), ("down", down)):
            np.testing.assert_array_equal(weights.load(f"layers.{i}.experts_{role}"), theirs)
    np.testing.assert_array_equal(weights.load_rows("layers.0.experts_up", slice(2, 3))[0], _up(expected)[2])


def _up(expected: dict[str, Any]) -> Any:
    return expected["model.layers.0.mlp.experts.gate_up_proj"].swapaxes(1, 2)[:, 1::2]


def test_every_value_of_mxfp4_at_every_exponent():
    codes = np.arange(256, dtype=np.uint8)
    blocks = np.tile(codes[:, None], (1, 16)).reshape(256, 1, 16)
    for exponent in (0, 1, 126, 127, 128, 200):
        values = mxfp4(blocks, np.full((256, 1), exponent, np.uint8))
        expected = np.ldexp(np.stack([E2M1[codes & 15], E2M1[codes >> 4]], 1), exponent - 127)
        np.testing.assert_array_equal(values[:, :2], expected)


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_a_missing_or_misshapen_expert_is_named(saved, tmp_path, kind):
    from safetensors.torch import load_file, save_file

    folder, _ = saved(kind)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    found = load_file(folder / "model.safetensors")
    name = next(n for n in found if "layers.1" in n and ("experts.2.w3" in n or n.endswith("experts.down_proj")))
    kept = found.pop(name)
    save_file(found, tmp_path / "model.safetensors")
    with pytest.raises(EdgeqError, match=name):
        open_source(tmp_path)
    save_file({**found, name: kept[:-1].contiguous()}, tmp_path / "model.safetensors")
    with pytest.raises(EdgeqError, match=f"{name}.* shape"):
        open_source(tmp_path)
