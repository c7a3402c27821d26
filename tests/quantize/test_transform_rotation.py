"""A turned model gives the logits of the original, tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeq.decoder.torch_model import TorchModel
from edgeq.errors import EdgeqError
from edgeq.model.spec import MLP, Attention, Layer, ModelSpec, MoE, Rope
from edgeq.model.tensors import tensors
from edgeq.quantize.transforms.rotation import Rotation, refuses, rotated

ROPE = Rope(10000.0, 16)
ATTENTION = Attention(4, 2, 16, 0.25, rope=ROPE)
LLAMA = ModelSpec("t", "llama", 48, 50, (Layer(ATTENTION, MLP(40)),) * 2, tied=True, max_positions=64)
BIASED = Attention(4, 2, 16, 0.25, rope=ROPE, qkv_bias=True, o_bias=True)
SPECS = {
    "llama": LLAMA,
    "untied": replace(LLAMA, tied=False, head_bias=True),
    "qwen3": replace(LLAMA, layers=(Layer(replace(ATTENTION, qk_norm="head"), MLP(40)),) * 2),
    "full-qk-norm": replace(LLAMA, layers=(Layer(replace(ATTENTION, qk_norm="full"), MLP(40)),)),
    "biases": replace(LLAMA, layers=(Layer(BIASED, MLP(40, bias=True)),) * 2),
    "granite": replace(LLAMA, embed_scale=12.0, residual_scale=0.22, logit_scale=0.3),
    "offset": replace(LLAMA, norm_offset=1.0, logit_softcap=3.0),
    "ungated": replace(LLAMA, layers=(Layer(ATTENTION, MLP(40, "relu2", gated=False)),) * 2),
    "power-of-two": replace(LLAMA, hidden_size=64),
    "odd": replace(LLAMA, hidden_size=45),
}


class Source:
    """Random weights, and a note of what was asked for."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        rng = np.random.default_rng(3)
        self.values = {
            t.name: (
                rng.standard_normal(t.shape) * (0.2 if len(t.shape) > 1 else 0.4)
                + (1 - spec.norm_offset if t.role == "norm" else 0)
            ).astype(np.float32)
            for t in tensors(spec)
        }
        self.asked: list[str] = []

    def names(self) -> Sequence[str]:
        return tuple(self.values)

    def load(self, name: str) -> npt.NDArray[np.float32]:
        self.asked.append(name)
        return self.values[name]

    def tokenizer_files(self) -> dict[str, Path | bytes]:
        return {"tokenizer.json": b"{}"}


@pytest.mark.parametrize("n", [1, 2, 8, 9, 45, 48, 64, 576])
def test_rotations_are_orthogonal_and_spread_an_outlier(n: int) -> None:
    turn = Rotation.random(n, np.random.default_rng(0))
    matrix = turn.rows(np.eye(n))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(n), atol=1e-12)
    if n >= 48:
        assert np.abs(matrix[5]).max() < 5 / np.sqrt(n)
    x = np.random.default_rng(1).standard_normal((3, n))
    np.testing.assert_allclose(turn.rows(x), x @ matrix, atol=1e-12)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_logits_stay(name: str) -> None:
    source = Source(SPECS[name])
    turned = rotated(source, seed=7)
    ids = [3, 1, 40, 7, 7, 22, 49, 0, 11]
    wanted, found = TorchModel(source).logits(ids), TorchModel(turned).logits(ids)
    assert np.abs(found - wanted).max() < 1e-4 * max(1.0, float(np.abs(wanted).max()))
    changed = np.abs(turned.load("layers.0.q") - source.values["layers.0.q"]).mean()
    assert changed > 0.05


def test_shapes_are_the_specs_and_rows_are_read_alone() -> None:
    source = Source(SPECS["biases"])
    turned = rotated(source, seed=1)
    assert not turned.spec.tied and set(turned.names()) == {t.name for t in tensors(turned.spec)}
    for t in tensors(turned.spec):
        value = turned.load(t.name)
        assert value.shape == t.shape and value.dtype == np.float32 and value.flags.c_contiguous
    for name in ("embed", "head", "layers.1.o"):
        np.testing.assert_array_equal(turned.load_rows(name, slice(5, 9)), turned.load(name)[5:9])
    assert turned.tokenizer_files() == source.tokenizer_files()


def test_one_tensor_is_loaded_at_a_time_and_the_seed_decides() -> None:
    source = Source(LLAMA)
    turned = rotated(source, seed=1)
    assert source.asked == []
    turned.load("layers.1.up")
    assert set(source.asked) == {"layers.1.up", "layers.1.mlp_norm"}
    again, other = rotated(source, seed=1), rotated(source, seed=2)
    assert np.array_equal(again.load("layers.0.v"), turned.load("layers.0.v"))
    assert not np.array_equal(other.load("layers.0.v"), turned.load("layers.0.v"))


@pytest.mark.parametrize(
    "change", [{"norm_layout": "post"}, {"norm_layout": "sandwich"}, {"layers": (Layer(ATTENTION, MoE(4, 2, 8)),)}]
)
def test_what_cannot_be_folded_is_refused(change: dict[str, Any]) -> None:
    spec = replace(LLAMA, **change)
    assert refuses(spec)
    with pytest.raises(EdgeqError, match="rotations can't be folded"):
        rotated(Source(spec), 0)


def test_an_unknown_tensor_is_said() -> None:
    with pytest.raises(EdgeqError, match="no tensor"):
        rotated(Source(LLAMA), 0).load("layers.9.q")
