"""Tiny random models with real tokenizers, one of each family that a GGUF file can hold, as transformers saves them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

WINDOW = 8
VOCAB = 512
SPECIALS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "The quick brown fox jumps over the lazy dog, 1234 times in 2026; it didn't stop..",
    "def f(x):\n    return x ** 2  # squared\n\n\tprint(f(12))",
    "Le café naïve coûte 3,50 € — déjà vu? 東京の天気は晴れです。 Привет, мир! 🚀🚀",
    "  leading and trailing spaces   ",
]
HARD = (
    "\u0301\u200b| 😀👍🏽 1 22 333 4444\r\n\r\n\t\t DON'T they'll  x<s>y <|im_start|>user\nhi<|im_end|>"
    " ٣٤٥ ﬁ é e\u0301 camelCaseHTTP_2   "
) + CORPUS[2]

_BASE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def _rope(kind: str = "default", theta: float = 10000.0, **numbers: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **numbers}}


_LLAMA3 = _rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
_GEMMA = {"head_dim": 32, "sliding_window": WINDOW, "query_pre_attn_scalar": 32}
_GEMMA2 = {**_GEMMA, "layer_types": ["sliding_attention", "full_attention"] * 2}
_GEMMA2 |= {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 2.0}
_GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 20000.0},
}
_GEMMA3 = {**_GEMMA, "num_hidden_layers": 7, "rope_parameters": _GEMMA3_ROPE, "layer_types": ["sliding_attention"] * 7}
_GEMMA3["layer_types"] = [*["sliding_attention"] * 5, "full_attention", "sliding_attention"]
_LONGROPE = _rope(
    "longrope",
    short_factor=[1.0 + 0.02 * i for i in range(8)],
    long_factor=[1.5 + 0.5 * i for i in range(8)],
    original_max_position_embeddings=16,
)
_GRANITE = {"embedding_multiplier": 12.0, "residual_multiplier": 0.22, "logits_scaling": 3.0}

_UNTIED = {"tie_word_embeddings": False}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 64}
_QWEN_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_GRANITE_MOE = {"attention_multiplier": 0.1}
_OSS = {**_EXPERTS, **_UNTIED, "head_dim": 32, "sliding_window": WINDOW}
# With bounds of the ramp rounded to whole dimensions, as llama.cpp does and gpt-oss does not.
_OSS_YARN = _rope("yarn", theta=10000.0, factor=4.0, truncate=True, beta_fast=32.0, beta_slow=1.0)
_OSS_YARN["rope_parameters"]["original_max_position_embeddings"] = 16

# name -> (transformers model_type, fields that differ from the base)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}),
    "llama-llama3-rope": ("llama", _LLAMA3),
    "llama-linear-rope": ("llama", _rope("linear", factor=4.0)),
    "mistral": ("mistral", {"sliding_window": None, "head_dim": 32, "tie_word_embeddings": False}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 32, **_rope(theta=1000000.0)}),
    "gemma2": ("gemma2", _GEMMA2),
    "gemma3": ("gemma3_text", _GEMMA3),
    "phi3": ("phi3", {"tie_word_embeddings": False}),
    "phi3-longrope": ("phi3", {"original_max_position_embeddings": 16, **_LONGROPE}),
    "olmo2": ("olmo2", {"tie_word_embeddings": False}),
    "granite": ("granite", {**_GRANITE, "attention_multiplier": 0.1}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 1, 1, 0], "no_rope_layer_interval": 4}),
    "mixtral": ("mixtral", {**_EXPERTS, "sliding_window": None, **_UNTIED}),
    "qwen2_moe": ("qwen2_moe", {**_QWEN_EXPERTS, "shared_expert_intermediate_size": 96, **_UNTIED}),
    "qwen3_moe": ("qwen3_moe", {**_QWEN_EXPERTS, "norm_topk_prob": True, "head_dim": 32}),
    "olmoe": ("olmoe", {**_QWEN_EXPERTS, "intermediate_size": 32, "num_key_value_heads": 4, **_UNTIED}),
    "gpt_oss": ("gpt_oss", {**_OSS, **_rope()}),
    "gpt_oss-yarn": ("gpt_oss", {**_OSS, **_OSS_YARN}),
    "granitemoe": ("granitemoeshared", {**_EXPERTS, **_GRANITE, "shared_intermediate_size": 64, **_GRANITE_MOE}),
}
PIECES = {"mistral", "gemma2", "gemma3", "phi3"}  # their tokenizers are SentencePiece's


@pytest.fixture(scope="session")
def families() -> dict[str, tuple[str, dict[str, Any]]]:
    return FAMILIES


@pytest.fixture(scope="session")
def hard_text() -> str:
    return HARD


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`saved(name, **fields)`: the folder of a tiny model of that name in FAMILIES, made once."""
    made: dict[str, Path] = {}

    def make(name: str, **fields: Any) -> Path:
        key = json.dumps([name, fields])
        if key not in made:
            folder = tmp_path_factory.mktemp("tiny")  # llama.cpp expects tokens of models named after Phi-3
            _save(FAMILIES[name][0], {**FAMILIES[name][1], **fields}, folder)
            tokenizer = pieces_tokenizer() if name in PIECES else byte_level_tokenizer(FAMILIES[name][0])
            tokenizer.save(str(folder / "tokenizer.json"))
            named = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": "{{ messages[0]['content'] }}"}
            (folder / "tokenizer_config.json").write_text(json.dumps(named))
            made[key] = folder
        return made[key]

    return make


def _save(kind: str, fields: dict[str, Any], folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**_BASE, **fields})).float()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases start as ones and zeros, where an offset would hide
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else 0.15))
    model.save_pretrained(folder)


def byte_level_tokenizer(kind: str) -> Any:
    """A small byte-level BPE tokenizer that cuts text as Qwen's, Llama 3's or SmolLM's does."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, processors, trainers

    from edgeq.model.gguf_pretokenizers import pre_tokenizer

    names = {"qwen2": "qwen2", "qwen3": "qwen2", "llama": "smollm", "granite": "refact", "olmo2": "dbrx"}
    cut = pre_tokenizer(names.get(kind, "llama-bpe"), kind)
    made = Tokenizer(models.BPE(ignore_merges=cut.ignore_merges))
    if cut.nfc:
        from tokenizers.normalizers import NFC

        made.normalizer = NFC()
    made.pre_tokenizer = cut.build()
    made.decoder = decoders.ByteLevel()
    from tokenizers.pre_tokenizers import ByteLevel

    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIALS, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(CORPUS * 3, trainer)
    made.add_tokens([AddedToken("<user>", normalized=False)])
    if kind == "llama":
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made


def pieces_tokenizer() -> Any:
    """A small BPE tokenizer over characters with byte fallback, as SentencePiece's are converted."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers

    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    ascii_only = [text.encode("ascii", "ignore").decode() for text in CORPUS]
    trainer = trainers.BpeTrainer(vocab_size=150, show_progress=False, max_token_length=8)
    trained.train_from_iterator(ascii_only * 3, trainer)
    model = json.loads(trained.to_str())["model"]
    first = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    vocab = {text: i for i, text in enumerate([*first, *(t for t in model["vocab"] if t not in first)])}
    merges = [tuple(m) for m in model["merges"]]
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = trained.normalizer
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in first[:3]])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp's threads wait for each other by spinning: beside other tests two take far longer than one."""
    monkeypatch.setattr("edgeq.runtimes.llamacpp.engine.probe_cpu", lambda: SimpleNamespace(cores=1))
