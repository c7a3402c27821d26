"""The mixture of the comparison: the shape that it says, readable by edgeq; and what its figures are."""

from __future__ import annotations

from pathlib import Path

import pytest

moe = pytest.importorskip("moe")
from engines import Row  # noqa: E402

from edgeq.model.spec import Attention, MoE  # noqa: E402
from edgeq.model.weights import open_source  # noqa: E402


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"HIDDEN": 64, "EXPERT": 32, "ACTIVE": 2, "HEADS": 4, "KV_HEADS": 2, "HEAD_DIM": 16, "VOCAB": 3000}
    for name, value in sizes.items():
        monkeypatch.setattr(moe, name, value)


def test_the_model_is_a_qwen3_mixture(narrow: None, tmp_path: Path) -> None:
    source = open_source(moe.write_model(tmp_path / "model", layers=2, experts=4))
    assert source.spec.family == "qwen3_moe" and source.spec.n_layers == 2
    for layer in source.spec.layers:
        assert isinstance(layer.ffn, MoE) and isinstance(layer.mixer, Attention)
        assert (layer.ffn.experts, layer.ffn.active, layer.ffn.intermediate) == (4, 2, 32)
        assert (layer.mixer.heads, layer.mixer.kv_heads, layer.mixer.head_dim) == (4, 2, 16)
    assert source.load("layers.1.experts_down").shape == (4, 64, 32)


def test_rows_have_their_runtimes_own_beside_them() -> None:
    assert all(not peer or peer in moe.ROWS for _, _, peer in moe.ROWS.values())
    assert {export for _, export, _ in moe.ROWS.values()} == set(moe.EXPORTS)


def test_the_ratio_is_within_a_round(tmp_path: Path) -> None:
    ours = Row("ours", "edgeq", tmp_path, "theirs", decode=[10.0, 30.0, 22.0], prefill={32: [100.0]})
    theirs = Row("theirs", "genai", tmp_path, decode=[5.0, 10.0, 20.0], prefill={32: [50.0]})
    found = moe._figures(ours, [ours, theirs])
    assert (found["decode_tps"], found["to_its_own"]) == (22.0, 2.0)
    assert moe._figures(theirs, [ours, theirs])["to_its_own"] is None
    assert moe._figures(Row("gone", "edgeq", missing="not exported"), [])["missing"] == "not exported"
