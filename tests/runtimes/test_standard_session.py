"""Sessions on graphs in standard operators: the same answers as on onnxruntime's own, from caches that grow or stay."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq.errors import EdgeqError
from edgeq.exporters.onnx.export import export
from edgeq.runtimes.onnxruntime.engine import OnnxEngine, open_engine

IDS = np.random.default_rng(3).integers(0, 256, 300).tolist()


@pytest.fixture(scope="module", params=["growing", "shared"])
def standard(request, tmp_path_factory: pytest.TempPathFactory, random_weights) -> Path:
    folder = tmp_path_factory.mktemp("standard")
    return export(random_weights(), folder / "tiny", dialect="standard", kv_buffer=request.param).path


@pytest.fixture(scope="module", params=["growing", "shared"])
def standard_window(request, tmp_path_factory: pytest.TempPathFactory, random_weights) -> Path:
    made, folder = random_weights(sliding_window=6), tmp_path_factory.mktemp("standard")
    return export(made, folder / "windowed", dialect="standard", kv_buffer=request.param).path


def opened(path: Path, **options: object) -> OnnxEngine:
    return open_engine(path / "model.onnx", **{"context": 512, "threads": 1, "chunk": 100, **options})


def test_prompt_steps_and_growth_give_the_logits_of_the_contrib_graph(standard, artifact):
    _same_logits(standard, artifact)


def test_so_they_do_with_a_window(standard_window, windowed):
    _same_logits(standard_window, windowed)


def _same_logits(ours_at: Path, theirs_at: Path) -> None:
    ours, theirs = opened(ours_at), opened(theirs_at)
    expected = theirs.logits(IDS[:280]).copy()
    np.testing.assert_allclose(ours.logits(IDS[:200]), expected[:200], atol=1e-3, rtol=0)
    for i in range(200, 280):  # past the first 256 tokens' buffers
        np.testing.assert_allclose(ours.decode(IDS[i]), expected[i], atol=1e-3, rtol=0)
    assert ours.position == 280 and ours.cache_bytes <= theirs.cache_bytes


def test_rewinding_forgets_the_tokens_behind(standard):
    engine = opened(standard)
    expected = engine.logits(IDS[:40]).copy()
    for position in (39, 17, 5, 0):
        engine.rewind(position)
        assert engine.position == position
        np.testing.assert_allclose(engine.prefill(IDS[position:40]), expected[-1], atol=1e-3, rtol=0)
    engine.rewind(20)
    engine.logits(IDS[100:130])
    engine.rewind(20)
    np.testing.assert_allclose(engine.logits(IDS[20:40]), expected[20:], atol=1e-3, rtol=0)


def test_a_session_generates_what_the_contrib_graph_generates(standard, artifact):
    said = []
    for path in (standard, artifact):
        with edgeq.load(path) as session:
            first = session.generate("hello there", max_tokens=20, temperature=0.0)
            again = session.generate("hello there", max_tokens=20, temperature=0.0)  # from the kept prefix
            said.append((first, again))
    assert said[0] == said[1] and said[0][0] == said[0][1]


def test_the_context_is_the_limit(standard):
    engine = opened(standard, context=30)
    engine.prefill(IDS[:30])
    with pytest.raises(EdgeqError, match="31 tokens do not fit"):
        engine.decode(1)


def test_float_arithmetic_of_fused_products_is_asked_for(tmp_path, random_weights):
    """Level 0 is a setting of the session here, and genai's configuration has it too."""
    from edgeq.artifact import read_artifact

    path = export(random_weights(), tmp_path / "out", dialect="standard", accuracy_level=0).path
    options = json.loads((path / "genai_config.json").read_text())["model"]["decoder"]["session_options"]
    assert options["session.qdq_matmulnbits_accuracy_level"] == "0"
    assert read_artifact(path).options["accuracy_level"] == 0
    with edgeq.load(path) as session:
        assert session.logits(IDS[:4]).shape == (4, 259)


def test_a_step_that_was_interrupted_leaves_nothing_behind(standard):
    """After the graph ran and before the engine counted its tokens: the buffers hold more than the position says."""
    engine = opened(standard)
    expected = engine.logits(IDS[:12]).copy()
    engine.rewind(8)
    engine.logits(IDS[100:103])
    engine._position = 8  # as if it had not been counted
    engine.rewind(8)
    np.testing.assert_allclose(engine.logits(IDS[8:12]), expected[8:], atol=1e-3, rtol=0)


def test_a_buffer_read_to_its_end_is_not_kept_much_longer_than_the_sequence(tmp_path, random_weights):
    path = export(random_weights(), tmp_path / "out", dialect="standard", kv_buffer="shared").path
    engine = opened(path, context=1024)
    one = engine.cache_bytes // 64
    expected = engine.logits(IDS[:50]).copy()
    engine.rewind(0)
    for _ in range(2):
        engine.prefill(IDS[:280])
    assert engine.cache_bytes == 576 * one
    engine.rewind(0)
    np.testing.assert_allclose(engine.logits(IDS[:50]), expected, atol=1e-5, rtol=0)
    assert engine.cache_bytes == 64 * one


def test_a_closed_session_says_so(standard):
    session = edgeq.load(standard)
    session.close()
    with pytest.raises(EdgeqError, match="closed"):
        session.generate("hello")


def test_a_growing_graph_without_positions_is_refused(tmp_path, random_weights, changed_artifact):
    standard = export(random_weights(), tmp_path / "whole", dialect="standard").path

    def rename(model) -> None:
        next(i for i in model.graph.input if i.name == "position_ids").name = "places_of_ids"
        for node in model.graph.node:
            for k, name in enumerate(node.input):
                if name == "position_ids":
                    node.input[k] = "places_of_ids"

    path = changed_artifact(standard, tmp_path / "changed", rename)
    with pytest.raises(EdgeqError, match="no input position_ids"):
        opened(path)
