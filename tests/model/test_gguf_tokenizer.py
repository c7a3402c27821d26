"""Tokenizers from GGUF metadata: the same tokens as the tokenizer that the vocabulary came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.errors import EdgeqError
from edgeq.model.gguf_file import GgufFile
from edgeq.model.gguf_tokenizer import tokenizer_files

tokenizers = pytest.importorskip("tokenizers")

TEXT = [
    "The quick brown fox jumps over the lazy dog, 1234 times in 2026; it didn't stop.",
    "def f(x):\n    return x ** 2  # squared\n\n\tprint(f(12))",
    "Le café naïve coûte 3,50 € — déjà vu? 東京の天気は晴れです。 Привет, мир! 🚀🚀",
    "  leading and trailing spaces   ",
]
SPECIALS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
SAMPLES = [
    *TEXT,
    "",
    " ",
    "\n\n\n",
    "a" * 50,
    "1 22 333 4444",
    "<|im_start|>user\nhi<|im_end|>",
    "x<s>y",
    "\u0301\u200b|",
]


def _file(write_gguf: Any, keys: dict[str, Any]) -> GgufFile:
    return GgufFile.open(write_gguf("llama", {"llama.context_length": 512, **keys}, {"x": (2,)}))


def _keys(tokens: list[str], **more: Any) -> dict[str, Any]:
    """Special tokens are control tokens; the rest is normal."""
    kinds = [3 if t in SPECIALS[1:] else 2 if t == "<unk>" else 1 for t in tokens]
    base = {"tokens": tokens, "token_type": kinds, "bos_token_id": 1, "eos_token_id": 4, "unknown_token_id": 0, **more}
    return {f"tokenizer.ggml.{k}": v for k, v in base.items()}


def _trained(digits: bool) -> Any:
    """A small byte-level BPE tokenizer, with digits apart (SmolLM) or not (GPT-2)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    apart = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level])
    made.pre_tokenizer = apart if digits else level
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXT * 3, trainer)
    return made


def _bpe_keys(source: Any, pre: str) -> dict[str, Any]:
    model = json.loads(source.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return _keys(tokens, model="gpt2", pre=pre, merges=[" ".join(m) for m in model["merges"]])


@pytest.fixture(scope="module", params=["smollm", "gpt-2"])
def bpe(request, tmp_path_factory):
    """(the tokenizer a vocabulary came from, the one made of the GGUF with that vocabulary)."""
    gguf = pytest.importorskip("gguf")
    source = _trained(request.param == "smollm")
    path = tmp_path_factory.mktemp("bpe") / "m.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    for key, value in _bpe_keys(source, request.param).items():
        add = {int: writer.add_uint32, str: writer.add_string, list: writer.add_array}[type(value)]
        add(key, value)
    writer.add_tensor("x", np.zeros(2, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return source, tokenizers.Tokenizer.from_str(tokenizer_files(GgufFile.open(path))["tokenizer.json"].decode())


@pytest.mark.parametrize("text", SAMPLES)
def test_byte_level_tokens_are_those_of_the_source(bpe, text):
    source, made = bpe
    assert made.encode(text).ids == source.encode(text).ids
    assert made.decode(made.encode(text).ids, skip_special_tokens=False) == text


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(text=st.text(max_size=60))
def test_byte_level_tokens_of_any_text(bpe, text):
    source, made = bpe
    assert made.encode(text).ids == source.encode(text).ids


@pytest.fixture(scope="module")
def spm(tmp_path_factory):
    """A tiny SentencePiece BPE model with byte fallback, by the library itself."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("spm")
    (folder / "text.txt").write_text("\n".join(TEXT * 5))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "spm"),
        model_type="bpe",
        vocab_size=450,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["<|im_start|>", "<|im_end|>"],
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))


def _spm_keys(spm: Any) -> dict[str, Any]:
    n = spm.get_piece_size()
    kinds = [
        2 if spm.is_unknown(i) else 3 if spm.is_control(i) or 3 <= i < 5 else 6 if spm.is_byte(i) else 1
        for i in range(n)
    ]
    keys = {"model": "llama", "token_type": kinds, "scores": [float(spm.get_score(i)) for i in range(n)]}
    return {**_keys([spm.id_to_piece(i) for i in range(n)]), **{f"tokenizer.ggml.{k}": v for k, v in keys.items()}}


@pytest.mark.parametrize("text", [*TEXT, " ", "a" * 50, "1 22 333", "naïve € ☃ unseen ℵ", "tab\tand\nline"])
def test_sentencepiece_tokens_are_those_of_the_library(write_gguf, spm, text):
    files = tokenizer_files(_file(write_gguf, _spm_keys(spm)))
    made = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
    ids = made.encode(text).ids
    assert ids == [1, *spm.encode(text)]  # a llama vocabulary begins with <s> unless told otherwise
    assert made.decode(ids) == text
    assert made.encode(text, add_special_tokens=False).ids == ids[1:]


def test_the_other_files(write_gguf):
    keys = _bpe_keys(_trained(True), "smollm") | {"tokenizer.chat_template": "{{ messages }}"}
    keys["tokenizer.ggml.eos_token_id"] = 2
    files = tokenizer_files(_file(write_gguf, keys))
    config, generation = (json.loads(files[f"{n}_config.json"]) for n in ("tokenizer", "generation"))
    assert (config["bos_token"], config["eos_token"], config["unk_token"]) == ("<s>", "</s>", "<unk>")
    assert config["chat_template"] == files["chat_template.jinja"].decode() == "{{ messages }}"
    assert config["model_max_length"] == 512 and config["add_bos_token"] is False
    assert generation == {"bos_token_id": 1, "eos_token_id": [2, 4]}  # the file's own, then the end of a turn


def test_transformers_reads_the_files(write_gguf, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    source = _trained(True)
    for name, data in tokenizer_files(_file(write_gguf, _bpe_keys(source, "smollm"))).items():
        (tmp_path / name).write_bytes(data)
    made = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in SAMPLES:
        assert made(text)["input_ids"] == source.encode(text).ids


@pytest.mark.parametrize("pre", ["llama-bpe", "qwen2", "dbrx", "gpt-4o", "tekken", "deepseek-v3", "qwen35", "default"])
def test_every_pre_tokenizer_cuts_text_without_losing_any(write_gguf, pre):
    keys = _bpe_keys(_trained(False), pre) | {"tokenizer.ggml.add_bos_token": False}
    files = tokenizer_files(_file(write_gguf, keys))
    made = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
    for text in TEXT:
        assert made.decode(made.encode(text).ids, skip_special_tokens=False) == text
    pieces = [p for p, _ in made.pre_tokenizer.pre_tokenize_str("We'll pay 12345 now")]
    digits = {"default": ["Ġ12345"], "llama-bpe": ["123", "45"], "dbrx": ["123", "45"], "gpt-4o": ["123", "45"]}
    digits["deepseek-v3"] = ["123", "45"]
    assert [p for p in pieces if any(c.isdigit() for c in p)] == digits.get(pre, list("12345"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "t5"}, "tokenizer of kind 't5'"),
        ({"model": ["gpt2"]}, "tokenizer of kind"),
        ({"pre": [1, 2]}, "unknown pre-tokenizer"),
        ({"pre": "brand-new"}, "unknown pre-tokenizer 'brand-new'"),
        ({"tokens": ["a", "a"]}, "names a token twice"),
        ({"merges": ["ab"]}, "not a pair"),
        ({"merges": ["q! zz"]}, "tokenizer is damaged"),
        ({"token_type": [1, 1]}, "token_type should have"),
        ({"model": "llama"}, "scores should have"),
    ],
)
def test_a_damaged_tokenizer_is_one_line(write_gguf, change, message):
    keys = _bpe_keys(_trained(True), "smollm") | {f"tokenizer.ggml.{k}": v for k, v in change.items()}
    with pytest.raises(EdgeqError, match=message) as caught:
        tokenizer_files(_file(write_gguf, keys))
    assert "\n" not in caught.value.line


def test_a_file_without_a_tokenizer(write_gguf):
    with pytest.raises(EdgeqError, match="no vocabulary"):
        tokenizer_files(_file(write_gguf, {}))
