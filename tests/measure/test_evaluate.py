"""`edgeq eval`: which tokens count, whatever holds the model, and what is kept for the next candidate."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.artifact import Artifact
from edgeq.cli.main import main
from edgeq.decoder.torch_model import TorchModel
from edgeq.errors import EdgeqError
from edgeq.measure.divergence import divergence
from edgeq.measure.evaluate import ReferenceCache, Windows, evaluate, windows
from edgeq.measure.harness import Scorer, task_names
from edgeq.measure.layerwise import layerwise_logits
from edgeq.measure.model import ArtifactModel, Measured, WeightsModel, open_model

TEXT = "It was a dark and stormy night, and the rain fell in torrents. " * 4


class Tokens:
    """A tokenizer whose tokens are characters, with a BOS of 1 where asked for."""

    eos_id = 2

    def __init__(self, bos: bool = False) -> None:
        self.bos = bos

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        return [1] * (special and self.bos) + [ord(c) for c in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


def tick(_: float) -> None: ...


def test_second_halves_are_what_llama_perplexity_scores() -> None:
    """perplexity.cpp: chunks of n_ctx, the logits of positions n_ctx/2 to n_ctx - 2."""
    found = windows(Tokens(), "abcdefghijklmnopqrst", length=6)
    assert ["".join(map(chr, c)) for c in found.chunks] == ["abcdef", "ghijkl", "mnopqr"]
    assert (found.first, found.scored) == (3, 6)


def test_with_a_bos_each_chunk_s_first_token_gives_way_to_it() -> None:
    found = windows(Tokens(bos=True), "abcdefghijk", length=4)
    assert [c[0] for c in found.chunks] == [1, 1, 1]
    assert [bytes(c[1:]).decode() for c in found.chunks] == ["abc", "efg", "ijk"]  # "d" and "h" gave way


def test_all_of_the_text_counts_its_rest_too() -> None:
    found = windows(Tokens(), "abcdefghijk", length=4, second_half=False)
    assert [len(c) for c in found.chunks] == [4, 4, 3]
    assert (found.first, found.scored) == (0, 8)
    assert len(windows(Tokens(), "abcdefghijk", length=4, count=2).chunks) == 2


@pytest.mark.parametrize("options", [{"length": 40}, {"length": 1}, {"length": 9, "longest": 8}, {"length": 2}])
def test_a_text_or_chunk_that_can_t_be_scored(options: dict[str, Any]) -> None:
    with pytest.raises(EdgeqError, match="--length"):
        windows(Tokens(), "short text, this", **options)


def test_the_figures_are_those_of_the_scored_logits(original: Any, checkpoint: Any) -> None:
    first, second = WeightsModel(original), WeightsModel(checkpoint)
    text = windows(first.tokenizer(), TEXT, length=64)
    found = evaluate(first, second, text)
    a, b = TorchModel(original), TorchModel(checkpoint)
    rows = [(a.logits(c)[32:-1], b.logits(c)[32:-1], np.array(c[33:])) for c in text.chunks]
    expected = divergence(*(np.concatenate(part) for part in zip(*rows, strict=True)))
    assert found.divergence == pytest.approx(expected) or found.divergence.mean_kl == pytest.approx(expected.mean_kl)
    assert found.divergence.perplexity == pytest.approx(expected.perplexity)
    assert found.divergence.tokens == text.scored == len(text.chunks) * 31
    assert 0 < found.divergence.mean_kl < 10


def test_layer_by_layer_gives_the_same_logits(checkpoint: Any) -> None:
    sequences = [list(range(9)), list(range(40, 57))]
    told: list[float] = []
    for ids, found in zip(sequences, layerwise_logits(checkpoint, sequences, told.append), strict=True):
        assert np.array_equal(found, TorchModel(checkpoint).logits(ids))
    assert sum(told) == pytest.approx(2)


def test_a_model_too_large_for_memory_reads_each_weight_once(checkpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    real = type(checkpoint).load
    monkeypatch.setattr(type(checkpoint), "load", lambda self, name: loads.append(name) or real(self, name))
    model = WeightsModel(checkpoint, resident=False)
    assert len(list(model.logits([[1, 2, 3]] * 5, tick))) == 5
    assert sorted(loads) == sorted(checkpoint.names())


def test_only_one_chunk_s_logits_are_asked_for_at_a_time(original: Any) -> None:
    order: list[str] = []

    class Traced(WeightsModel):
        def logits(self, sequences: Any, tick: Any) -> Iterator[Any]:
            for found in super().logits(sequences, tick):
                order.append(self.scheme)
                yield found

    first, second = Traced(original), Traced(original)
    first.scheme, second.scheme = "a", "b"
    evaluate(first, second, windows(first.tokenizer(), TEXT, length=64))
    assert order == ["a", "b"] * 4 or order == ["a", "b"] * (len(order) // 2)


def test_an_artifact_and_its_checkpoint_agree(original: Any, checkpoint: Any, artifact: Artifact) -> None:
    first, second, third = WeightsModel(original), WeightsModel(checkpoint), open_model(artifact.path)
    text = windows(first.tokenizer(), TEXT, length=64)
    try:
        assert isinstance(third, ArtifactModel)
        ours, theirs = evaluate(first, second, text), evaluate(first, third, text)
    finally:
        third.close()
    assert theirs.scheme == "rtn-int4-g32 on onnxruntime" and theirs.bytes == artifact.total_bytes
    assert theirs.divergence.mean_kl == pytest.approx(ours.divergence.mean_kl, rel=0.2)


def test_kept_logits_spare_the_original_and_change_nothing(original: Any, checkpoint: Any, tmp_path: Path) -> None:
    first, second = WeightsModel(original), WeightsModel(checkpoint)
    text = windows(first.tokenizer(), TEXT, length=64)
    cache = ReferenceCache(tmp_path, first.fingerprint())
    before = evaluate(first, second, text, cache=cache)
    assert len(list(tmp_path.iterdir())) == len(text.chunks)
    first.logits = None  # type: ignore[assignment, method-assign]  # asked now, it would fail
    after = evaluate(first, second, text, cache=cache)
    assert (after.divergence, after.original_s) == (before.divergence, 0.0)
    longer = Windows(text.chunks, text.length, text.first - 1)
    with pytest.raises(TypeError):  # other rows of the same chunks are not there
        evaluate(first, second, longer, cache=cache)


def test_a_torn_file_of_the_cache_is_made_again(original: Any, checkpoint: Any, tmp_path: Path) -> None:
    first, second = WeightsModel(original), WeightsModel(checkpoint)
    text = windows(first.tokenizer(), TEXT, length=64)
    cache = ReferenceCache(tmp_path, "one")
    before = evaluate(first, second, text, cache=cache)
    torn = sorted(tmp_path.iterdir())[0]
    torn.write_bytes(torn.read_bytes()[:-4])
    assert evaluate(first, second, text, cache=cache).divergence == before.divergence
    assert cache.read(text.chunks[0], text.first, first.vocab_size) is not None
    assert ReferenceCache(tmp_path, "two").read(text.chunks[0], text.first, first.vocab_size) is None


def test_fingerprints_tell_models_apart(original: Any, checkpoint: Any, other: Any) -> None:
    prints = [WeightsModel(w).fingerprint() for w in (original, checkpoint, other)]
    assert len(set(prints)) == 3 and prints[0] == WeightsModel(original).fingerprint()


def test_progress_reaches_its_end(original: Any) -> None:
    told: list[tuple[int, int]] = []
    first, second = WeightsModel(original), WeightsModel(original, resident=False)
    text = windows(first.tokenizer(), TEXT, length=64)
    evaluate(first, second, text, progress=lambda done, total, what: told.append((done, total)))
    assert told[-1][0] == told[-1][1] == 200 * len(text.chunks) and told == sorted(told)


class Uniform(Measured):
    """Every token is as likely as every other, but what follows `a` is `b`."""

    name = scheme = "uniform"
    vocab_size, max_positions, bos_id, bytes = 128, 16, None, 0

    def tokenizer(self) -> Any:
        return Tokens()

    def logits(self, sequences: Any, tick: Any) -> Iterator[Any]:
        for ids in sequences:
            assert len(ids) <= self.max_positions
            rows = np.zeros((len(ids), 128), np.float32)
            rows[np.asarray(ids) == ord("a"), ord("b")] = np.log(128)
            rows[np.asarray(ids) == ord("b"), ord("c")] = 9.0
            yield rows

    def fingerprint(self) -> str:
        return "uniform"

    def close(self) -> None: ...


def test_scores_of_answers_are_sums_of_log_probabilities() -> None:
    scorer = Scorer(Uniform())
    value, greedy = scorer.score(scorer.encode("xa"), scorer.encode("b"))
    assert (value, greedy) == (pytest.approx(math.log(128 / 255)), True)
    value, greedy = scorer.score(scorer.encode("xx"), scorer.encode("xy"))
    assert (value, greedy) == (pytest.approx(-2 * math.log(128)), False)
    assert scorer.score(scorer.encode("y" * 40), scorer.encode("yy"))[0] == pytest.approx(-2 * math.log(128))
    assert scorer.score_text("y" * 40) == pytest.approx(-40 * math.log(128))


def test_a_greedy_answer_ends_where_the_task_says() -> None:
    scorer = Scorer(Uniform())
    assert scorer.answer("a", {"until": ["c"], "max_gen_toks": 5}) == "b"
    assert scorer.answer("a", {"until": [], "max_gen_toks": 2}) == "bc"


def test_tasks_need_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeq.measure.harness.find_spec", lambda _: None)
    assert task_names(None) == ()
    with pytest.raises(EdgeqError, match="pip install lm-eval"):
        task_names("hellaswag")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["eval", *map(str, arguments)])
    return int(caught.value.code or 0)


def test_the_command_prints_figures(
    original: Any, checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {"original": original, "candidate": checkpoint}
    monkeypatch.setattr("edgeq.measure.model.open_weights", lambda ref: named[str(ref)])
    (tmp_path / "t.txt").write_text(TEXT)
    options = ("--text", tmp_path / "t.txt", "--length", 64, "--cache", tmp_path / "kept")
    assert run("original", "candidate", *options, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["first"] == 32 and found["divergence"]["mean_kl"] > 0
    assert run("original", "candidate", *options, "--chunks", 2, "--all") == 0
    printed = capsys.readouterr().out
    assert "KL divergence" in printed and "126 tokens" in printed and "2 chunks of 64, all tokens" in printed
    assert run("original", "candidate", "--length", 64) == 0
    assert "built-in text" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("/none/a", "/none/b"), "no such file or folder"),
        (("original", "original", "--text", "/none.txt"), "cannot read the text"),
        (("original", "original", "--length", "4000"), "--length"),
        (("original", "original", "--chunks", "0"), "--chunks"),
        (("original", "narrow"), "vocabulary"),
    ],
)
def test_one_line_for_what_is_wrong(
    original: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: Any, says: str
) -> None:
    from edgeq.checkpoint.open import open_weights

    class Narrow(Uniform):
        max_positions = 4096

    real = {"original": lambda: WeightsModel(original), "narrow": Narrow}
    monkeypatch.setattr(
        "edgeq.measure.model.open_model", lambda ref: real[ref]() if ref in real else WeightsModel(open_weights(ref))
    )
    options = () if "--length" in arguments else ("--length", "64")
    assert run(*arguments, *options) == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("error: ") and says in printed and "\n" not in printed
