"""A tiny model with a real tokenizer and chat template, exported for each runtime, in a folder with an awkward name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_llama import write_llama
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe
from edgeq.registry import exporter

NAME = 'it\'s a "tiny" model'  # what people call folders
VOCAB = 300
TEMPLATE = "{% for m in messages %}<s>{{ m['role'] }} {{ m['content'] }}</s>{% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}<s>assistant {% endif %}"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEQ_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`made(exporter, chat=True)`: the artifact's folder, made once."""
    top, known = tmp_path_factory.mktemp("made"), {}

    def make(to: str, chat: bool = True) -> Path:
        if (to, chat) not in known:
            folder = top / f"{to}-{chat}" / NAME
            model = write_model(folder.with_name("model"), chat=chat)
            grid = {"grid": "q8_0", "embed_grid": "q8_0"} if to == "gguf" else {"symmetric": True, "bits": 4}
            recipe = Recipe(str(model), **grid)  # type: ignore[arg-type]
            quantize(open_source(str(model)), recipe, folder.with_name("q"), threads=1)
            from edgeq.checkpoint.open import open_weights

            exporter(to).export(open_weights(folder.with_name("q")), folder)
            known[to, chat] = folder
        return known[to, chat]

    return make


def write_model(folder: Path, *, chat: bool) -> Path:
    write_llama(folder, vocab_size=VOCAB)
    _tokenizer().save(str(folder / "tokenizer.json"))
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    if chat:
        (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def _tokenizer() -> Tokenizer:
    """Byte-level BPE: every byte, and some pairs."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[AddedToken(t, special=True) for t in ("<unk>", "<s>", "</s>")],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(
        ["the sky is blue because the light is blue, the capital of France is Paris " * 9], trainer
    )
    return made
