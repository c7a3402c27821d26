"""A tiny random llama, quantized in memory and exported once: what verify and bench are tried on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgeq.artifact import Artifact
from edgeq.checkpoint.weights import Weight
from edgeq.errors import EdgeqError
from edgeq.model.spec import MLP, Attention, Layer, ModelSpec, Rope
from edgeq.model.tensors import tensors
from edgeq.scheme import Scheme, int_grid

VOCAB = 288


def tiny_spec() -> ModelSpec:
    attention = Attention(heads=4, kv_heads=2, head_dim=16, scale=0.25, rope=Rope(10_000.0, 16))
    return ModelSpec(
        name="tiny-llama",
        family="llama",
        hidden_size=64,
        vocab_size=VOCAB,
        layers=(Layer(attention, MLP(96)),) * 2,
        tied=False,
        max_positions=192,
        bos_id=256,
        eos_ids=(257,),
        origin="folder",
    )


class TinyWeights:
    """Random float weights, the same for a seed, with a tokenizer whose tokens are bytes."""

    def __init__(self, spec: ModelSpec, seed: int = 0) -> None:
        self.spec = spec
        rng = np.random.default_rng(seed)
        self._all: dict[str, Weight] = {}
        for t in tensors(spec):
            noise = rng.standard_normal(t.shape).astype(np.float32)
            self._all[t.name] = 1 + 0.1 * noise if len(t.shape) == 1 else 0.2 * noise

    def names(self) -> Sequence[str]:
        return list(self._all)

    def load(self, name: str) -> Weight:
        if name not in self._all:
            raise EdgeqError(f"no tensor {name}")
        return self._all[name]

    def tokenizer_files(self) -> dict[str, Path | bytes]:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
        config = json.dumps({"bos_token": "<s>", "eos_token": "</s>"}).encode()
        return {"tokenizer.json": tokenizer.to_str().encode(), "tokenizer_config.json": config}


class TinyCheckpoint(TinyWeights):
    """The same weights, linear ones rounded to the nearest of an int4 grid."""

    def __init__(self, spec: ModelSpec, seed: int = 0) -> None:
        from edgeq.quantize.grids.uniform import search
        from edgeq.quantize.solvers.rtn import rounded

        super().__init__(spec, seed)
        grid = int_grid(4, 32)
        self.scheme = Scheme("rtn-int4-g32", "rtn", grid, int_grid(8, 32))
        for t in tensors(spec):
            weight = self._all[t.name]
            if t.linear or t.name == "embed":
                assert isinstance(weight, np.ndarray)
                one = grid if t.linear and t.name != "head" else self.scheme.embed
                self._all[t.name] = rounded(weight, search(weight, None, one), one)


@pytest.fixture(scope="session")
def original() -> TinyWeights:
    return TinyWeights(tiny_spec())


@pytest.fixture(scope="session")
def checkpoint() -> TinyCheckpoint:
    return TinyCheckpoint(tiny_spec())


@pytest.fixture(scope="session")
def other() -> TinyCheckpoint:
    """The same shapes, other weights."""
    return TinyCheckpoint(tiny_spec(), seed=1)


@pytest.fixture(scope="session")
def _exported(checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    from edgeq.registry import exporter

    return exporter("onnx").export(checkpoint, tmp_path_factory.mktemp("tiny") / "artifact")


@pytest.fixture
def artifact(_exported: Artifact, tmp_path: Path) -> Artifact:
    """A copy that a test may damage."""
    import shutil

    from edgeq.artifact import read_artifact

    shutil.copytree(_exported.path, tmp_path / "artifact")
    return read_artifact(tmp_path / "artifact")
