"""Verification passes what is right and fails what is silently wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.artifact import Artifact, read_artifact
from edgeq.checkpoint.weights import Weights
from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json, to_json
from edgeq.measure import verify as verify_module
from edgeq.measure.texts import built_in_texts, chunks, random_tokens, read_text
from edgeq.measure.verify import FLOAT_LIMITS, INT8_LIMITS, Verification, record, verify
from edgeq.registry import exporter, runtime


def test_a_right_artifact_passes_by_a_wide_margin(artifact: Artifact, checkpoint: Weights) -> None:
    seen: list[tuple[int, int, str]] = []
    found = verify(artifact, checkpoint=checkpoint, progress=lambda *step: seen.append(step))
    assert (found.verdict, found.reasons, found.path, found.limits) == ("pass", (), "int8", INT8_LIMITS)
    assert found.text is not None and found.text.tokens > 900 and found.text.perplexity is not None
    assert 0 < found.text.mean_kl < INT8_LIMITS.mean_kl / 5
    assert 0 < found.random.mean_kl < INT8_LIMITS.random_kl / 5
    assert found.steps is not None and found.steps.mean_kl < INT8_LIMITS.mean_kl / 5
    assert found.original is None
    assert [done for done, _, _ in seen] == list(range(1, len(seen) + 1))
    assert seen[-1][0] == seen[-1][1]


def test_float_activations_are_held_to_float_rounding(checkpoint: Weights, tmp_path: Path) -> None:
    exact = exporter("onnx").export(checkpoint, tmp_path / "exact", accuracy_level=0)
    found = verify(exact, checkpoint=checkpoint)
    assert (found.verdict, found.path, found.limits) == ("pass", "float", FLOAT_LIMITS)
    assert found.text is not None and found.text.top1 == 1.0
    assert max(found.text.max_kl, found.random.max_kl) < 1e-8


@pytest.mark.parametrize(
    ("options", "path", "mean_kl"),
    [
        ({"accuracy_level": 0}, "float", 1e-4),
        ({"accuracy_level": 0, "kv_dtype": "int8"}, "float", 0.0301),
        ({"accuracy_level": 4, "kv_dtype": "f32"}, "int8", 0.05),
        ({"accuracy_level": 4, "kv_dtype": "int4"}, "int8", 0.95),
        ({"accuracy_level": 0, "activations": "static"}, "int8", 0.05),
        ({"activations": "dynamic", "activation_scales": "tensor", "kv_dtype": "int8"}, "int8-tensor", 0.28),
    ],
)
def test_limits_follow_the_options_of_the_export(
    artifact: Artifact, options: dict[str, Any], path: str, mean_kl: float
) -> None:
    made = replace(artifact, options=options)
    assert verify_module.activation_path(made) == path
    assert verify_module.limits_of(made).mean_kl == pytest.approx(mean_kl)


def test_a_cache_in_8_bits_passes_within_what_it_may_add(checkpoint: Weights, tmp_path: Path) -> None:
    made = exporter("onnx").export(checkpoint, tmp_path / "out", accuracy_level=0, kv_dtype="int8")
    found = verify(made, checkpoint=checkpoint)
    assert (found.verdict, found.path) == ("pass", "float")
    assert found.text is not None and 1e-7 < found.text.mean_kl < 0.01


def test_the_original_shows_what_quantization_cost(artifact: Artifact, checkpoint: Weights, original: Weights) -> None:
    found = verify(artifact, checkpoint=checkpoint, original=original)
    assert found.verdict == "pass"
    assert found.original is not None and found.text is not None
    assert found.original.mean_kl > 10 * found.text.mean_kl


def test_weights_of_another_model_fail(artifact: Artifact, other: Weights) -> None:
    found = verify(artifact, checkpoint=other)
    assert found.verdict == "fail"
    assert any("on text the mean KL divergence" in reason for reason in found.reasons)
    assert any("likeliest token agrees" in reason for reason in found.reasons)


def test_damage_inside_the_weights_fails(artifact: Artifact, checkpoint: Weights) -> None:
    data = max(artifact.path.iterdir(), key=lambda p: p.stat().st_size if p.name.startswith("model.onnx") else 0)
    content = bytearray(data.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = bytes(np.random.default_rng(0).integers(0, 256, 4096, np.uint8))
    data.write_bytes(content)
    assert verify(read_artifact(artifact.path), checkpoint=checkpoint).verdict == "fail"


class Stub:
    """A runtime and session whose logits are the real ones, made wrong by `spoil`; no tokenizer, and its engine
    forgets everything but the last token."""

    name = "stub"

    def __init__(self, inner: Any, spoil: Any) -> None:
        self._inner, self._spoil = inner, spoil
        self.engine = self
        self.chunk = 64

    def open(self, artifact: Artifact) -> Stub:
        return self

    def logits(self, ids: Sequence[int]) -> Any:
        return self._spoil(self._inner.logits(ids))

    def rewind(self, position: int) -> None: ...

    def prefill(self, ids: Sequence[int]) -> Any:
        return self.logits(ids)[-1]

    def decode(self, token: int) -> Any:
        return self.logits([token])[-1]

    def close(self) -> None:
        self._inner.close()


def stubbed(monkeypatch: pytest.MonkeyPatch, artifact: Artifact, spoil: Any = lambda rows: rows) -> None:
    inner = runtime("onnxruntime").open(artifact)
    monkeypatch.setattr(verify_module, "runtime", lambda name: Stub(inner, spoil))


def test_a_cache_that_forgets_fails_step_by_step_alone(
    artifact: Artifact, checkpoint: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubbed(monkeypatch, artifact)
    found = verify(artifact, checkpoint=checkpoint)
    assert found.verdict == "fail"
    assert len(found.reasons) == 1 and found.reasons[0].startswith("decoding step by step differs")
    assert found.text is None and found.random.tokens == verify_module.RANDOM_TOKENS  # no tokenizer


def test_logits_that_are_not_numbers_fail(
    artifact: Artifact, checkpoint: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(rows: Any) -> Any:
        rows[-1, 3] = np.nan
        return rows

    stubbed(monkeypatch, artifact, spoil)
    found = verify(artifact, checkpoint=checkpoint)
    assert found.verdict == "fail" and found.random.broken == 1
    assert "on random tokens 1 of 64 positions have logits that are not numbers" in found.reasons
    json.dumps(to_json(found), allow_nan=False)


def test_logits_of_the_wrong_shape_are_an_error(
    artifact: Artifact, checkpoint: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubbed(monkeypatch, artifact, lambda rows: rows[-1:])
    with pytest.raises(EdgeqError, match=r"shape \(1, 288\) for 64 tokens"):
        verify(artifact, checkpoint=checkpoint)


def test_a_stricter_limit_is_the_users(artifact: Artifact, checkpoint: Weights) -> None:
    found = verify(artifact, checkpoint=checkpoint, kld_limit=1e-9, tokens=40)
    assert found.verdict == "fail" and found.limits.mean_kl == 1e-9
    assert found.text is not None and found.text.tokens == 40


def test_the_users_text_is_cut_to_the_context(artifact: Artifact, checkpoint: Weights) -> None:
    found = verify(artifact, checkpoint=checkpoint, text="grüße " * 200, tokens=300)
    assert found.verdict == "pass" and found.text is not None and found.text.tokens == 300
    with pytest.raises(EdgeqError, match="too short"):
        verify(artifact, checkpoint=checkpoint, text="x")


def test_another_models_checkpoint_is_refused(artifact: Artifact, checkpoint: Weights) -> None:
    wider = replace(artifact, model={**artifact.model, "vocab_size": 999})
    with pytest.raises(EdgeqError, match="vocab_size 999, the checkpoint 288: they are different models"):
        verify(wider, checkpoint=checkpoint)


def test_the_manifest_keeps_the_verification(artifact: Artifact, checkpoint: Weights) -> None:
    found = verify(artifact, checkpoint=checkpoint, tokens=50)
    record(artifact, found)
    again = read_artifact(artifact.path)
    assert from_json(Verification, again.verify) == found
    assert again.files == artifact.files


def test_the_text_is_varied_and_the_noise_reaches_everywhere() -> None:
    texts = built_in_texts()
    assert len(texts) >= 8 and all(len(t) > 80 for t in texts)
    noise = random_tokens(1000, 5000)
    assert noise == random_tokens(1000, 5000) and min(noise) < 5 and max(noise) > 994
    assert chunks(list(range(9)), 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_text_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (tmp_path / "empty").write_text(" \n")
    for name, what in (("none", "cannot read"), ("latin", "not UTF-8"), ("empty", "is empty")):
        with pytest.raises(EdgeqError, match=what):
            read_text(tmp_path / name)
