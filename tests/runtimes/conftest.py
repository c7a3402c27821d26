"""A tiny random model, exported by edgeq itself, with a byte-level tokenizer: the tests run the real graph."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from edgeq.exporters.onnx.export import export
from edgeq.model.config import read_config
from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import tensors
from edgeq.runtimes.text import Tokenizer

VOCAB = 259  # 256 bytes and three special tokens
SPECIAL = ("<s>", "</s>", "<|end|>")
TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}:{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)
CONFIG = {
    "model_type": "mistral",
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 257,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}


class RandomWeights:
    """Enough variance that the logits differ clearly; no files behind it."""

    def __init__(self, spec: ModelSpec, merges: Sequence[tuple[str, str]] = ()) -> None:
        self.spec = spec
        self.merges = merges
        self._tensors = {t.name: t for t in tensors(spec)}

    def names(self) -> list[str]:
        return list(self._tensors)

    def load(self, name: str) -> np.ndarray:
        rng = np.random.default_rng(sum(map(ord, name)))
        t = self._tensors[name]
        values = rng.normal(0, 0.3, t.shape).astype(np.float32)
        return values + 1 if len(t.shape) == 1 else values

    def tokenizer_files(self) -> dict[str, bytes]:
        return tokenizer_files(merges=self.merges)


def tokenizer_files(
    template: str | None = TEMPLATE, merges: Sequence[tuple[str, str]] = (), **config: object
) -> dict[str, bytes]:
    """A tokenizer with one token a byte: most characters outside ASCII are spread over several tokens.

    What `merges` make takes the places of the last bytes.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = [*letters[: len(letters) - len(merges)], *map("".join, merges)]
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=list(merges)))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    settings = {"bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>", "special": True}, **config}
    if template is not None:
        settings["chat_template"] = template
    return {"tokenizer.json": inner.to_str().encode(), "tokenizer_config.json": json.dumps(settings).encode()}


def write_tokenizer(folder: Path, template: str | None = TEMPLATE, **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in tokenizer_files(template, **config).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_folder(write_tokenizer(tmp_path_factory.mktemp("text") / "tokenizer"))


@pytest.fixture(scope="session")
def tokenizer_folder() -> Callable[..., Path]:
    return write_tokenizer


@pytest.fixture(scope="session")
def changed_artifact() -> Callable[..., Path]:
    return changed


@pytest.fixture(scope="session")
def tiny_weights() -> Callable[..., RandomWeights]:
    """`tiny_weights(**changes)`: the tiny model with some fields of its configuration changed, and a tokenizer that
    merges something, as llama.cpp's do."""
    return lambda **changes: RandomWeights(read_config({**CONFIG, **changes}, name="tiny"), merges=[("Ġ", "Ġ")])


def _weights(**changes: object) -> RandomWeights:
    return RandomWeights(read_config({**CONFIG, **changes}, name="tiny"))


def _export(out: Path, **changes: object) -> Path:
    return export(_weights(**changes), out).path


@pytest.fixture(scope="session")
def random_weights() -> Callable[..., RandomWeights]:
    """Of the tiny model with some of its configuration changed."""
    return _weights


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full-attention model."""
    return _export(tmp_path_factory.mktemp("runtime") / "tiny")


@pytest.fixture(scope="session")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a sliding window of 6 tokens."""
    return _export(tmp_path_factory.mktemp("runtime") / "windowed", sliding_window=6)


@pytest.fixture(scope="session")
def longrope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LongRoPE model that turns to other frequencies beyond 16 tokens."""
    numbers = {"short_factor": [1.0 + 0.02 * i for i in range(8)], "long_factor": [1.5 + i / 2 for i in range(8)]}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, **numbers}
    changes = {"model_type": "phi3", "head_dim": 16, "original_max_position_embeddings": 16, "rope_parameters": rope}
    return _export(tmp_path_factory.mktemp("runtime") / "longrope", **changes)


@pytest.fixture(scope="session")
def without_logits_from(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same graph without the optional input: logits of every token, as other exporters write it."""

    def cut(model) -> None:
        slice_node = next(n for n in model.graph.node if n.op_type == "Slice" and "logits_from" in n.input)
        slice_node.op_type = "Identity"
        del slice_node.input[1:]
        for group in (model.graph.input, model.graph.initializer):
            for entry in [e for e in group if e.name == "logits_from"]:
                group.remove(entry)

    return changed(artifact, tmp_path_factory.mktemp("runtime") / "plain", cut)


def changed(artifact: Path, out: Path, change: Callable) -> Path:
    """A copy of an artifact whose graph went through `change(onnx model)`; its manifest names no files."""
    import onnx

    shutil.copytree(artifact, out)
    model = onnx.load(out / "model.onnx", load_external_data=False)
    change(model)
    onnx.save(model, out / "model.onnx")
    manifest = json.loads((out / "edgeq.json").read_text())
    manifest["files"] = {}
    (out / "edgeq.json").write_text(json.dumps(manifest))
    return out
