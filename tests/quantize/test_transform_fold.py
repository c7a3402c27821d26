"""A folded scale leaves a block's output as it was, on every architecture that the decoder runs."""

from __future__ import annotations

import json
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeq.model.read import read_model
from edgeq.model.spec import Attention, ModelSpec, MoE
from edgeq.model.tensors import tensors
from edgeq.quantize.block import Block, load_block
from edgeq.quantize.run_block import BlockRunner
from edgeq.quantize.transforms.fold import FoldPoint, apply, fold_points, group_of

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = runpy.run_path(
    str(Path(__file__).parents[1] / "decoder" / "conftest.py")
)["ARCHITECTURES"]
BASE = {"vocab_size": 40, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
BASE |= {"num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2}
BASE |= {"pad_token_id": 0}
LAYER = 1


class Held:
    """Weights in memory."""

    def __init__(self, spec: ModelSpec, values: dict[str, torch.Tensor]) -> None:
        self.spec, self.values = spec, values

    def names(self) -> Sequence[str]:
        return tuple(self.values)

    def load(self, name: str) -> np.ndarray[Any, Any]:
        return self.values[name].numpy()

    def tokenizer_files(self) -> dict[str, Path | bytes]:
        return {}


def _spec(name: str, folder: Path) -> ModelSpec:
    from transformers import AutoConfig

    kind, fields = ARCHITECTURES[name]
    config = AutoConfig.for_model(kind, **{**BASE, **fields}).to_dict()
    (folder / "config.json").write_text(json.dumps(config, default=str))
    return read_model(str(folder))


def _block(spec: ModelSpec) -> Block:
    g = torch.Generator().manual_seed(5)
    values = {
        t.name: torch.randn(t.shape, generator=g) * (0.15 if len(t.shape) > 1 else 0.4)
        + (1.0 - spec.norm_offset if t.role == "norm" else 0.0)
        for t in tensors(spec)
        if t.layer == LAYER
    }
    parts = [t for t in tensors(spec) if t.layer == LAYER]
    return load_block(Held(spec, values), LAYER, parts, {}, copy=True)


def _run(b: Block, x: torch.Tensor) -> torch.Tensor:
    return BlockRunner(b.spec, LAYER)(b.current, x)


def _scale(point: FoldPoint, seed: int = 0) -> torch.Tensor:
    return torch.exp(torch.randn(point.channels, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_point_keeps_the_output(name: str, tmp_path: Path) -> None:
    spec = _spec(name, tmp_path)
    x = torch.randn(2, 12, spec.hidden_size, generator=torch.Generator().manual_seed(1))
    points = fold_points(spec, LAYER)
    expected = {"olmo2": ["o", "down"], "gpt_oss": ["qkv", "o", "mlp"]}.get(name, ["qkv", "o", "mlp", "down"])
    ffn = spec.layers[LAYER].ffn
    if isinstance(ffn, MoE) and ffn.limit is None:
        expected += ["down"] * (ffn.experts - 1 + bool(ffn.shared_intermediate))
    assert [p.name for p in points] == expected
    for seed, point in enumerate(points):
        b = _block(spec)
        before = _run(b, x)
        apply(b, point, _scale(point, seed))
        changed = {n for n, t in b.current.items() if not torch.equal(t, b.original[n])}
        assert changed == {*point.sources, *point.targets}
        torch.testing.assert_close(_run(b, x), before, rtol=1e-4, atol=1e-5)
        router = (f"layers.{LAYER}.router",)
        assert group_of(b, point) == (router if router[0] in point.targets else point.targets)


def test_all_points_together_and_twice(tmp_path: Path) -> None:
    spec = _spec("llama-bias", tmp_path)
    b = _block(spec)
    x = torch.randn(1, 9, spec.hidden_size, generator=torch.Generator().manual_seed(2))
    before = _run(b, x)
    for seed in range(2):
        for point in fold_points(spec, LAYER):
            apply(b, point, _scale(point, seed))
    torch.testing.assert_close(_run(b, x), before, rtol=1e-4, atol=1e-5)


def test_spread_and_gather_follow_the_heads(tmp_path: Path) -> None:
    spec = _spec("llama", tmp_path)
    mixer = spec.layers[LAYER].mixer
    assert isinstance(mixer, Attention)
    point = next(p for p in fold_points(spec, LAYER) if p.name == "o")
    channels = torch.arange(point.channels, dtype=torch.float32)
    columns = point.spread(channels)
    for h in range(mixer.heads):
        served = h // (mixer.heads // mixer.kv_heads)
        part = channels[served * mixer.head_dim : (served + 1) * mixer.head_dim]
        assert torch.equal(columns[h * mixer.head_dim : (h + 1) * mixer.head_dim], part)
    assert torch.equal(point.gather(columns), channels[:, None].expand(-1, point.repeat))


def test_a_bad_scale_is_refused(tmp_path: Path) -> None:
    b = _block(_spec("llama", tmp_path))
    point = fold_points(b.spec, LAYER)[0]
    for bad in (torch.ones(3), torch.zeros(point.channels), torch.full((point.channels,), float("nan"))):
        with pytest.raises(ValueError, match="channels"):
            apply(b, point, bad)
