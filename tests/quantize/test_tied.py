"""A tied embedding below eight bits is rounded for what the head reads."""

from __future__ import annotations

import numpy as np
import torch

from edgeq.checkpoint.weights import dense
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.quantize.layout import shards
from edgeq.quantize.tied import INPUT_SHARE, tied_statistics
from edgeq.recipe import Recipe


def ids(source) -> np.ndarray:
    return np.random.default_rng(3).integers(0, source.spec.vocab_size, (12, 32))


def test_statistics_are_of_the_final_norms_output(tiny, tmp_path):
    source = open_source(str(tiny()))
    recipe = Recipe("m", method="gptq", embed_bits=4)
    found = tied_statistics(
        source, shards(source.spec, recipe.scheme), ids(source), tmp_path, lambda done, total, what: None
    )
    seen = read_by_head(source)
    gram = seen.T @ seen / len(seen)
    expected = gram + INPUT_SHARE * gram.diagonal().mean() * np.eye(len(gram))
    np.testing.assert_allclose(found.gram.numpy(), expected, rtol=1e-3, atol=1e-4)
    assert not list(tmp_path.glob("*.npy"))


def read_by_head(source) -> np.ndarray:
    from edgeq.decoder.decoder import block, embedding, settled
    from edgeq.decoder.torch_ops import TorchOps

    ops = TorchOps(source)
    with torch.no_grad():
        stream = embedding(ops, source.spec, torch.from_numpy(ids(source)))
        for i in range(source.spec.n_layers):
            stream = block(ops, source.spec, i, stream)
        return ops.norm(settled(ops, stream), "final_norm").flatten(0, 1).double().numpy()


def test_the_heads_error_falls(tiny, tmp_path):
    source = open_source(str(tiny()))
    seen, weight = read_by_head(source), dense(source.load("embed")).astype(np.float64)
    lost = {}
    for method in ("rtn", "gptq"):
        recipe = Recipe("m", method=method, embed_bits=3, bits=8)
        made = quantize(source, recipe, tmp_path / method, **({} if method == "rtn" else {"tokens": ids(source)}))
        off = made.load("embed").dequantize() - weight
        lost[method] = float(np.square(seen @ off.T).sum())
    assert lost["gptq"] < 0.8 * lost["rtn"]
