"""Tiny random transformers models, one an architecture, saved as folders and read back by edgeq's own readers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from edgeq.artifact import Artifact
from edgeq.checkpoint.weights import Weights
from edgeq.device.cpu import probe_cpu
from edgeq.device.isa import int8_sums_overflow

WINDOW = 6
VOCAB = 160

_BASE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def _rope(kind: str = "default", **numbers: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **numbers}}


_LLAMA3 = _rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
_SHORT, _LONG = [1.0 + 0.02 * i for i in range(8)], [1.5 + 0.5 * i for i in range(8)]
_TYPES = ["sliding_attention", "full_attention", "sliding_attention"]
_PHI = {"head_dim": 16, "original_max_position_embeddings": 16}
_LONGROPE = _rope("longrope", short_factor=_SHORT, long_factor=_LONG, original_max_position_embeddings=16)
_GEMMA = {"head_dim": 16, "sliding_window": WINDOW, "layer_types": _TYPES, "query_pre_attn_scalar": 24}
_GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}

_EXPERTS = {"num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 64}
_QWEN_EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_OSS_ROPE = _rope("yarn", factor=4.0, truncate=False, beta_fast=32.0, beta_slow=1.0)
_OSS_ROPE["rope_parameters"]["original_max_position_embeddings"] = 16

# name -> (transformers model_type, fields that differ from the base)
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": False}),
    "llama-llama3-rope": ("llama", _LLAMA3),
    "llama-linear-rope": ("llama", _rope("linear", factor=4.0)),
    "llama-dynamic-rope": ("llama", {**_rope("dynamic", factor=4.0), "max_position_embeddings": 64}),
    "llama-bias": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "smollm2": ("llama", {"tie_word_embeddings": True, **_rope()}),
    "mistral": ("mistral", {"sliding_window": WINDOW, "head_dim": 32}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2-yarn": ("qwen2", _rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "gemma2": ("gemma2", {**_GEMMA, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 2.0}),
    "gemma3_text": ("gemma3_text", {**_GEMMA, "rope_parameters": _GEMMA3_ROPE}),
    "phi3": ("phi3", {"head_dim": 16}),
    "phi3-longrope": ("phi3", {**_PHI, **_LONGROPE}),
    "phi4-mini": (
        "phi3",
        {
            **_PHI,
            "hidden_size": 128,
            "head_dim": 32,
            "tie_word_embeddings": True,
            "rope_parameters": {**_LONGROPE["rope_parameters"], "partial_rotary_factor": 0.5},
        },
    ),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0, 1], "no_rope_layer_interval": 2}),
    "olmo2": ("olmo2", {}),
    "granite": (
        "granite",
        {
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.22,
            "logits_scaling": 3.0,
            "attention_multiplier": 0.015625,
        },
    ),
    "mixtral": ("mixtral", {**_EXPERTS, "sliding_window": None}),
    "qwen3_moe": ("qwen3_moe", {**_QWEN_EXPERTS, "num_experts_per_tok": 3, "norm_topk_prob": True, "head_dim": 32}),
    "qwen2_moe": ("qwen2_moe", {**_QWEN_EXPERTS, "shared_expert_intermediate_size": 64, "mlp_only_layers": [1]}),
    "olmoe": ("olmoe", _QWEN_EXPERTS),
    "gpt_oss": ("gpt_oss", {**_EXPERTS, "head_dim": 32, "sliding_window": WINDOW, "layer_types": _TYPES, **_OSS_ROPE}),
    "granitemoe": ("granitemoeshared", {**_EXPERTS, "shared_intermediate_size": 32, "attention_multiplier": 0.2}),
}
MIXTURES = ("mixtral", "qwen3_moe", "qwen2_moe", "olmoe", "gpt_oss", "granitemoe")
DENSE = tuple(name for name in ARCHITECTURES if name not in MIXTURES)


class Tiny(NamedTuple):
    """A saved model, edgeq's view of its weights, and the logits that transformers gives."""

    folder: Path
    weights: Weights
    reference: Callable[[list[int]], npt.NDArray[np.float32]]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tiny]:
    made: dict[str, Tiny] = {}

    def make(name: str) -> Tiny:
        if name not in made:
            made[name] = _make(name, tmp_path_factory.mktemp(name))
        return made[name]

    return make


def _make(name: str, folder: Path) -> Tiny:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from edgeq.model.weights import open_source

    kind, fields = ARCHITECTURES[name]
    config = AutoConfig.for_model(kind, **{**_BASE, **fields}, attn_implementation="eager")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases start as ones and zeros, where an offset would hide
            spread = 0.3 if parameter.ndim == 1 else 0.15
            parameter.add_(torch.randn_like(parameter) * spread)
    model.save_pretrained(folder)

    def reference(ids: list[int]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = model(torch.tensor([ids]), use_cache=False).logits[0].float().numpy()
        return logits

    return Tiny(folder, open_source(folder), reference)


class OnnxRunner:
    """The plainest way to run an artifact: feed everything, take everything.

    `capacity` is the length of the caches it starts with; 0 lets them grow with the sequence.
    """

    def __init__(self, artifact: Artifact, capacity: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        level = str(artifact.options["accuracy_level"])  # of the standard dialect: in the other the nodes say it
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", level)
        cpu = probe_cpu()
        if "activations" in artifact.options and int8_sums_overflow(cpu.arch, cpu.isa):
            options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = onnxruntime.InferenceSession(str(artifact.path / "model.onnx"), options)
        shape = (1, artifact.model["kv_heads"], capacity, artifact.model["head_dim"])
        self._wants_positions = "position_ids" in {i.name for i in self._session.get_inputs()}
        names = [f"past_key_values.{i}.{p}" for i in range(artifact.model["layers"]) for p in ("key", "value")]
        self._empty = {name: np.zeros(shape, np.float32) for name in names}
        self.reset()

    def reset(self) -> None:
        self._cache, self._length = self._empty, 0

    def logits(self, ids: list[int], **feeds: Any) -> npt.NDArray[np.float32]:
        self.reset()
        return self.step(ids, **feeds)

    def step(self, ids: list[int], **feeds: Any) -> npt.NDArray[np.float32]:
        self._length += len(ids)
        mask = np.ones((1, self._length), np.int64)
        feeds = {"attention_mask": mask, **feeds, "input_ids": np.array([ids], np.int64)}
        if self._wants_positions:
            feeds.setdefault("position_ids", np.arange(self._length - len(ids), self._length)[None])
        logits, *cache = self._session.run(None, {**feeds, **self._cache})
        self._cache = dict(zip(self._cache, cache, strict=True))
        return logits[0]


@pytest.fixture
def onnx_runner() -> type[OnnxRunner]:
    return OnnxRunner


@pytest.fixture
def same_in_genai() -> Callable[[Tiny, Artifact, int], None]:
    """`same_in_genai(model, artifact, max_length)`: onnxruntime-genai's greedy answer is the reference's."""
    genai = pytest.importorskip("onnxruntime_genai")
    from edgeq.decoder.torch_model import TorchModel

    def compare(model: Tiny, artifact: Artifact, max_length: int) -> None:
        prompt, new = [5, 77, 31, 8, 120, 44, 9, 60, 13], 12
        loaded = genai.Model(str(artifact.path))
        params = genai.GeneratorParams(loaded)
        params.set_search_options(do_sample=False, max_length=max_length, min_length=len(prompt) + new)
        generator = genai.Generator(loaded, params)
        generator.append_tokens(np.array(prompt, np.int32))
        for _ in range(new):
            generator.generate_next_token()
        reference = TorchModel(model.weights)
        ids, cache, step = list(prompt), reference.start(), prompt
        for _ in range(new):
            logits = reference.step(step, cache)[-1].copy()
            logits[list(reference.spec.eos_ids)] = -np.inf  # as a minimum length does
            step = [int(logits.argmax())]
            ids += step
        assert list(generator.get_sequence(0)) == ids

    return compare
