"""Every family against transformers: the same tensors with the same shapes, from configs of both generations."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeq.errors import EdgeqError
from edgeq.model import parameters, read_model
from edgeq.model.config import read_config
from edgeq.model.names import hf_names
from edgeq.model.spec import MLP, Attention, GatedDelta, LatentAttention, Mamba, ModelSpec, MoE
from edgeq.model.stored import stored_shapes
from edgeq.model.tensors import tensors

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

_BASE: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LINEAR = {
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_MLA = {
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "first_k_dense_replace": 1,
    "num_experts_per_tok": 2,
    "n_routed_experts": 4,
    "n_shared_experts": 2,
    "moe_intermediate_size": 16,
}
_SSM = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2}
_HYBRID = {"mamba_n_heads": 4, "mamba_d_state": 16, "shared_intermediate_size": 24, "num_experts_per_tok": 2}

# name -> (model_type, fields)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _BASE),
    "llama-biases": ("llama", {**_BASE, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama-head-dim": ("llama", {**_BASE, "head_dim": 24}),
    "mistral": ("mistral", _BASE),
    "qwen2": ("qwen2", _BASE),
    "qwen3": ("qwen3", {**_BASE, "head_dim": 16}),
    "gemma2": ("gemma2", {**_BASE, "head_dim": 16}),
    "gemma3": ("gemma3_text", {**_BASE, "head_dim": 16}),
    "phi3": ("phi3", _BASE),
    "smollm3": ("smollm3", _BASE),
    "olmo2": ("olmo2", _BASE),
    "olmo3": ("olmo3", _BASE),
    "granite": ("granite", {**_BASE, "attention_bias": True}),
    "mixtral": ("mixtral", {**_BASE, "num_local_experts": 4}),
    "qwen2_moe": ("qwen2_moe", {**_BASE, **_EXPERTS, "shared_expert_intermediate_size": 24}),
    "qwen3_moe": ("qwen3_moe", {**_BASE, **_EXPERTS, "head_dim": 16, "decoder_sparse_step": 2}),
    "gpt_oss": ("gpt_oss", {**_BASE, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "olmoe": ("olmoe", {**_BASE, "num_experts": 4, "num_experts_per_tok": 2}),
    "deepseek_v2": ("deepseek_v2", {**_BASE, **_MLA, "q_lora_rank": None}),
    "deepseek_v2-bias": ("deepseek_v2", {**_BASE, **_MLA, "q_lora_rank": 10, "attention_bias": True}),
    "deepseek_v3": ("deepseek_v3", {**_BASE, **_MLA, "q_lora_rank": 10, "n_group": 2, "topk_group": 1}),
    "qwen3_next": ("qwen3_next", {**_BASE, **_EXPERTS, **_LINEAR, "shared_expert_intermediate_size": 24}),
    "qwen3_5": ("qwen3_5_text", {**_BASE, **_LINEAR}),
    "qwen3_5_moe": ("qwen3_5_moe_text", {**_BASE, **_EXPERTS, **_LINEAR, "shared_expert_intermediate_size": 24}),
    "mamba": ("mamba", _SSM),
    "mamba-bias": ("mamba", {**_SSM, "use_bias": True, "use_conv_bias": False}),
    "mamba2": ("mamba2", {**_SSM, "num_heads": 4, "head_dim": 16, "n_groups": 2, "state_size": 16}),
    "granitemoe": ("granitemoe", {**_BASE, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "granite4": ("granitemoehybrid", {**_BASE, **_HYBRID, "layer_types": ["mamba", "attention", "mamba", "mamba"]}),
    "granite4-dense": ("granitemoehybrid", {**_BASE, **_HYBRID, "num_local_experts": 0}),
}
# Saved beside the parameters: DeepSeek-V3's balancing bias, a buffer in transformers.
_BUFFERS = ("e_score_correction_bias",)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A function: case name -> (folder, transformers' parameter count)."""
    made: dict[str, tuple[Path, int]] = {}

    def get(name: str) -> tuple[Path, int]:
        if name not in made:
            kind, fields = CASES[name]
            torch.manual_seed(0)
            model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **fields))
            folder = tmp_path_factory.mktemp(name)
            model.save_pretrained(folder)
            made[name] = folder, sum(p.numel() for p in model.parameters())
        return made[name]

    return get


def _stored(folder: Path) -> dict[str, tuple[int, ...]]:
    from edgeq.model.safetensors_file import open_shards

    return {name: file.tensors[name].shape for name, file in open_shards(folder).items()}


@pytest.mark.parametrize("name", CASES)
def test_every_tensor_agrees_with_transformers(saved, name):
    folder, count = saved(name)
    spec = read_model(str(folder))
    found = {n: s for n, s in _stored(folder).items() if not n.endswith(_BUFFERS)}
    assert stored_shapes(spec, found) == found
    assert parameters(spec) == count == sum(math.prod(s) for s in found.values())
    assert (spec.origin, spec.location, spec.source_dtype, spec.estimated) == ("folder", str(folder), "f32", ())


@pytest.mark.parametrize("name", [n for n, (kind, _) in CASES.items() if "moe" not in kind])
def test_dense_names_cover_the_files_rows(saved, name):
    folder, _ = saved(name)
    spec, found = read_model(str(folder)), _stored(folder)
    if not spec.softmax:
        with pytest.raises(EdgeqError, match="not possible yet"):
            hf_names(spec)
        return
    if not spec.dense:  # their experts: tests/model/test_experts.py
        return
    rows: dict[str, int] = dict.fromkeys(found, 0)
    names = hf_names(spec, found)
    assert list(names) == [t.name for t in tensors(spec)]
    for t in tensors(spec):
        at = names[t.name]
        taken = found[at.name][0] if at.row_start is None else (at.row_stop or 0) - at.row_start
        assert (taken, *found[at.name][1:]) == t.shape
        rows[at.name] += taken
    assert rows == {n: s[0] for n, s in found.items()}


@pytest.mark.parametrize("name", CASES)
def test_config_of_transformers_4_reads_the_same(saved, name):
    folder, _ = saved(name)
    new = json.loads((folder / "config.json").read_text())
    spec = read_config(new, name="x")
    assert replace(read_config(_as_transformers_4(new), name="x"), source_dtype=spec.source_dtype) == spec


def _as_transformers_4(config: dict[str, Any]) -> dict[str, Any]:
    """The same config as older files spell it."""
    old = dict(config)
    rope = old.pop("rope_parameters", None)
    old["torch_dtype"] = old.pop("dtype", "float32")
    if rope and "full_attention" in rope:
        old["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    if rope:
        rope = dict(rope)
        old["rope_theta"] = rope.pop("rope_theta")
        if "partial_rotary_factor" in rope:
            old["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
        kind = rope.pop("rope_type")
        old["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}
    # A plain list of the layers' kinds is new; files of old say how to count them off.
    if old.get("model_type") not in ("granitemoehybrid", "gemma3_text"):
        old.pop("layer_types", None)
    return old


@pytest.mark.parametrize(
    "kind", ["llama", "mistral", "qwen2", "gemma2", "gemma3_text", "phi3", "smollm3", "olmo2", "granite", "mixtral"]
)
def test_absent_fields_take_the_class_defaults(kind):
    theirs = transformers.AutoConfig.for_model(kind)
    spec = read_config({"model_type": kind, "hidden_size": 4096, "num_hidden_layers": 7}, name=kind)
    assert spec.vocab_size == theirs.vocab_size
    assert spec.tied == theirs.tie_word_embeddings
    assert spec.norm_eps == theirs.rms_norm_eps
    assert spec.max_positions == theirs.max_position_embeddings
    assert (spec.bos_id, spec.pad_id) == (theirs.bos_token_id, theirs.pad_token_id)
    full = _attention(spec, 5)  # the first of Gemma 3's that sees everything
    assert (full.heads, full.kv_heads) == (theirs.num_attention_heads, theirs.num_key_value_heads or full.heads)
    theta = theirs.rope_parameters.get("full_attention", theirs.rope_parameters)["rope_theta"]
    assert full.rope is not None and full.rope.theta == theta


def _attention(spec: ModelSpec, i: int) -> Attention:
    mixer = spec.layers[i].mixer
    assert isinstance(mixer, Attention)
    return mixer


def test_windows_alternate_as_transformers_does(saved):
    for name in ("gemma2", "gemma3", "gpt_oss", "olmo3", "mistral", "qwen2"):
        folder, _ = saved(name)
        kinds = transformers.AutoConfig.from_pretrained(folder).to_dict().get("layer_types")
        config = json.loads((folder / "config.json").read_text())
        config.pop("layer_types", None)
        spec = read_config(config, name=name)
        ours = ["sliding_attention" if _attention(spec, i).window else "full_attention" for i in range(4)]
        assert ours == (kinds or ["sliding_attention"] * 4)


def test_kinds_of_layers():
    by_name = {n: read_config({"model_type": kind, **fields}, name=n) for n, (kind, fields) in CASES.items()}
    assert [type(x.mixer) for x in by_name["qwen3_next"].layers] == [GatedDelta] * 3 + [Attention]
    assert [type(x.ffn) for x in by_name["deepseek_v3"].layers] == [MLP, MoE, MoE, MoE]
    assert [type(x.ffn) for x in by_name["qwen3_moe"].layers] == [MLP, MoE, MLP, MoE]
    assert [type(x.mixer) for x in by_name["granite4"].layers] == [Mamba, Attention, Mamba, Mamba]
    assert isinstance(by_name["deepseek_v2"].layers[0].mixer, LatentAttention)
    assert [_attention(by_name["smollm3"], i).rope is None for i in range(4)] == [False, False, False, True]
    assert by_name["gpt_oss"].layers[0].ffn == MoE(4, 2, 48, router_bias=True, expert_bias=True, limit=7.0)
    assert _attention(by_name["gpt_oss"], 0).sinks


def test_gemma_3_with_a_vision_tower_reads_its_text_config(tmp_path):
    text = {"model_type": "gemma3_text", **CASES["gemma3"][1]}
    outer = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 8}, "eos_token_id": [1, 106]}
    spec = read_config(outer, name="x")
    assert (spec.family, spec.eos_ids, spec.tied) == ("gemma3_text", (1, 106), True)
    names = {f"language_model.model.{n}" for n in ("embed_tokens.weight", "norm.weight")}
    assert hf_names(spec, names)["layers.1.q"].name == "language_model.model.layers.1.self_attn.q_proj.weight"


def test_yarn_and_deepseek_temperature():
    rope = {"type": "yarn", "factor": 40, "mscale": 0.707, "mscale_all_dim": 0.707, "beta_fast": 32, "beta_slow": 1}
    rope["original_max_position_embeddings"] = 4096
    kind, fields = CASES["deepseek_v2"]
    spec = read_config({"model_type": kind, **fields, "rope_scaling": rope}, name="x")
    mixer = spec.layers[0].mixer
    assert isinstance(mixer, LatentAttention)
    assert mixer.rope.param("attention_factor", 0) == pytest.approx(1.0)
    temperature = 0.1 * 0.707 * math.log(40) + 1
    assert mixer.scale == pytest.approx(temperature**2 / math.sqrt(12))


def test_stop_tokens_of_generation_config_win(saved, tmp_path):
    folder, _ = saved("llama")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 9, 5]}')
    assert read_model(str(tmp_path)).eos_ids == (5, 9)


def test_weights_that_contradict_the_config_are_named(saved, tmp_path):
    folder, _ = saved("llama")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 50}))
    with pytest.raises(EdgeqError, match=r"layers\.0\.mlp\.gate_proj\.weight.*\[50, 32\].*\[48, 32\]"):
        read_model(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}))
    with pytest.raises(EdgeqError, match=r"layers\.4\..* is missing"):
        read_model(str(tmp_path))


def test_unknown_architecture_is_estimated_from_headers(saved, tmp_path):
    folder, count = saved("llama")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "brandnew"}))
    with pytest.raises(EdgeqError, match=r"unknown architecture 'brandnew'.*no safetensors headers"):
        read_model(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    spec = read_model(str(tmp_path))
    assert spec.family == "brandnew" and spec.estimated and parameters(spec) == count


def test_a_pickle_is_planned_from_its_config_alone(saved, tmp_path):
    folder, count = saved("llama")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04junk")
    assert parameters(read_model(str(tmp_path))) == count
