"""Calibration text: the model's own, from files, from the hub; kept for a run that goes on."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from edgeq.checkpoint.weights import Weight
from edgeq.decoder.decoder import decoder
from edgeq.decoder.torch_ops import KeyValueCache, TorchOps
from edgeq.errors import EdgeqError
from edgeq.model.spec import MLP, Attention, Layer, ModelSpec, Rope
from edgeq.model.tensors import tensors
from edgeq.model.tokenizer import open_tokenizer, prefix
from edgeq.quantize import calibrate, calibrate_needs, calibrate_self
from edgeq.quantize.calibrate import FILE, Calibration, calibration
from edgeq.quantize.calibrate_needs import own_text_needs, rows_of
from edgeq.quantize.calibrate_self import RoomyCache, distinct_share, own_text, sample
from edgeq.recipe import Recipe

BOS, EOS = 256, 257


class Model:
    """Random weights, a tokenizer whose tokens are bytes."""

    def __init__(self, *, bos: bool = False, scale: float = 0.2) -> None:
        attention = Attention(heads=4, kv_heads=2, head_dim=16, scale=0.25, rope=Rope(10_000.0, 16))
        layers = (Layer(attention, MLP(96)),) * 2
        self.spec = ModelSpec("tiny", "llama", 64, 260, layers, True, 192, bos_id=BOS, eos_ids=(EOS,), origin="folder")
        self.bos = bos
        rng = np.random.default_rng(0)
        noise = {t.name: rng.standard_normal(t.shape).astype(np.float32) for t in tensors(self.spec)}
        self._all = {n: 1 + 0.1 * v if v.ndim == 1 else scale * v for n, v in noise.items()}

    def names(self) -> list[str]:
        return list(self._all)

    def load(self, name: str) -> Weight:
        return self._all[name]

    def tokenizer_files(self) -> dict[str, Path | bytes]:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        made.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
        if self.bos:
            made.post_processor = processors.TemplateProcessing(single=["<s>", "$A"], special_tokens=[("<s>", BOS)])
        template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        config = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": template}
        return {"tokenizer.json": made.to_str().encode(), "tokenizer_config.json": json.dumps(config).encode()}


def recipe(text: str = "self", tokens: int = 128, length: int = 32, **more: Any) -> Recipe:
    return Recipe("tiny", calibration=text, calibration_tokens=tokens, calibration_length=length, **more)


def written(model: Model, sequences: int = 6, length: int = 24, **more: Any) -> np.ndarray:
    values = {"seed": 0, "keep_start": False, "progress": lambda *_: None, **more}
    return own_text(model, sequences, length, **values).tokens


def test_the_model_writes_the_same_text_for_a_seed_whatever_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    whole = written(model)
    assert whole.shape == (6, 24) and whole.dtype == np.int64 and whole.max() < model.spec.vocab_size
    monkeypatch.setattr(calibrate_needs, "ROWS", 4)
    assert np.array_equal(written(model), whole)
    assert not np.array_equal(written(model, seed=1), whole)
    assert len({tuple(row) for row in whole}) == 6


def test_each_token_is_drawn_from_the_distribution_after_those_before_it() -> None:
    """An oracle without a cache: the whole sequence in one pass, the same random numbers."""
    model = Model()
    text = written(model, sequences=2, length=20, keep_start=True)
    ops = TorchOps(model)
    for i, row in enumerate(text):
        chances = np.random.default_rng((0, i, 0)).random(21)
        logits = decoder(ops, model.spec, torch.from_numpy(row)[None])[0]
        mass = logits.double().softmax(-1).cumsum(-1).numpy()
        assert row[0] == BOS
        drawn = [step for step in range(1, 19) if row[step] not in (BOS, EOS)]  # after those, a text begins
        assert len(drawn) > 10
        assert [row[step + 1] for step in drawn] == [np.searchsorted(mass[step], chances[step]) for step in drawn]


def test_after_an_end_a_new_text_begins() -> None:
    model = Model()
    model._all["embed"] = model._all["embed"].copy()
    model._all["embed"][EOS] *= 3  # ends often
    for keep in (True, False):
        text = written(model, sequences=8, length=64, keep_start=keep)
        after = text[:, 1:][text[:, :-1] == EOS]
        assert len(after) > 3
        assert (after == BOS).all() if keep else not np.isin(after, (BOS, EOS)).any()
        assert (text[:, 0] == BOS).all() == keep


def test_sampling_follows_the_probabilities() -> None:
    probabilities = torch.tensor([[0.5, 0.25, 0.25, 0.0]])
    logits = probabilities.log().repeat(4, 1)
    chances = torch.tensor([0.0, 0.499, 0.6, 1 - 1e-12], dtype=torch.float64)
    assert sample(logits, chances).tolist() == [0, 0, 1, 2]


def test_a_repetitive_sequence_is_written_anew_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = calibrate_self._Writer.write

    def write(self: Any, chances: np.ndarray, progress: Any) -> np.ndarray:
        found = real(self, chances, progress)
        calls.append(len(found))
        if len(calls) == 1:
            found[2:4] = 7  # two of them go round in circles
        return found

    monkeypatch.setattr(calibrate_self._Writer, "write", write)
    text = own_text(Model(), 6, 24, seed=0, keep_start=False, progress=lambda *_: None)
    assert (calls, text.redrawn, text.degenerate) == ([6, 2], 2, 0)
    assert min(distinct_share(row) for row in text.tokens) > 0.5


def test_a_model_that_only_repeats_itself_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate_self._Writer, "write", lambda self, chances, progress: np.ones((len(chances), 32)))
    found = calibration(Model(), recipe())
    assert found.describe()["note"] == "4 of 4 sequences repeat themselves"


def test_the_roomy_cache_holds_what_the_growing_one_does() -> None:
    growing, roomy = KeyValueCache(), RoomyCache(9)
    for tokens in (4, 1, 3):
        keys, values = torch.randn(2, 3, tokens, 8), torch.randn(2, 3, tokens, 8)
        expected, found = growing.extend(0, keys, values), roomy.extend(0, keys, values)
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
        growing.length = roomy.length = growing.length + tokens


def test_a_batch_s_cache_stays_within_its_bytes() -> None:
    spec = Model().spec
    assert rows_of(spec, 32, 4) == calibrate_needs.ROWS
    assert rows_of(spec, calibrate_needs.CACHE_BYTES // (2 * 2 * 2 * 16 * 4) // 3, 4) == 3
    assert rows_of(spec, calibrate_needs.CACHE_BYTES, 4) == 1


def test_what_writing_takes_grows_with_the_text_and_holds_the_model() -> None:
    spec = Model().spec
    seconds, memory = own_text_needs(spec, recipe(), 1e9)
    weights = sum(v.size for v in Model()._all.values())
    assert seconds == pytest.approx(2 * weights * 128 / 0.4e9)
    assert memory > 4 * weights
    longer = own_text_needs(spec, recipe(tokens=256), 1e9)
    assert longer[0] == 2 * seconds and longer[1] > memory


def test_memory_that_does_not_hold_the_model_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate_self.psutil, "virtual_memory", lambda: types.SimpleNamespace(available=10_000))
    with pytest.raises(EdgeqError, match="--calibration FILE"):
        calibration(Model(), recipe())


def test_a_text_file_gives_its_own_tokens_in_order(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_text("".join(chr(97 + i % 26) for i in range(200)))
    found = calibration(Model(), recipe(str(file)))
    ids = open_tokenizer(Model().tokenizer_files()).encode(file.read_text())
    assert found.tokens.tolist() == [ids[at : at + 32] for at in (0, 64, 96, 160)]
    facts = found.describe()
    assert (facts["kind"], facts["used"], facts["tokens"]) == ("text", "64% of the file's 200 tokens", 128)
    assert facts["sha256"] == found.fingerprint and facts["distinct"] == round(26 / 128, 4)


def test_a_sequence_begins_with_the_token_the_tokenizer_puts_before_a_text(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_text("x" * 200)
    model = Model(bos=True)
    assert prefix(open_tokenizer(model.tokenizer_files())) == [BOS]
    found = calibration(model, recipe(str(file)))
    assert (found.tokens[:, 0] == BOS).all() and (found.tokens[:, 1:] != BOS).all()
    assert (calibration(model, recipe()).tokens[:, 0] == BOS).all()


def test_a_long_text_is_read_all_over(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_text("".join(chr(97 + i) * 1000 for i in range(20)))
    found = calibration(Model(), recipe(str(file)))
    letters = [{chr(97 + i) for i in range(20)} & set(_text(row)) for row in found.tokens]
    assert [min(x) for x in letters] == ["a", "f", "k", "p"]


def test_a_short_text_is_used_up_and_said_to_be_short(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_text("y" * 70)
    found = calibration(Model(), recipe(str(file)))
    assert found.tokens.shape == (2, 32) and found.describe()["note"] == "the text gave 2 of 4 sequences"


def test_json_lines_are_documents_and_conversations(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    chat = [{"role": "user", "content": "hi"}]
    file.write_text("\n".join(map(json.dumps, ({"text": "one"}, {"content": "two"}, {"messages": chat}))))
    found = calibration(Model(), recipe(str(file), tokens=15, length=15))
    text = _text(found.tokens[0])
    assert set(text.split("</s>")[:2]) <= {"one", "two", "[user]hi"} and "</s>" in text
    assert found.describe()["used"] == "3 of 3 documents"
    again = calibration(Model(), recipe(str(file), tokens=15, length=15, seed=3))
    assert again.describe()["seed"] == 3


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("t.txt", "short", "too short for one calibration sequence of 32 tokens"),
        ("t.txt", " ", "empty"),
        ("t.jsonl", '{"text": "a"}', "too short"),
        ("t.jsonl", "{", "not a JSON object"),
        ("t.jsonl", '{"body": "a"}', "no text in the field text or content or messages"),
    ],
)
def test_what_can_t_be_used_is_said_in_a_line(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(EdgeqError, match=says):
        calibration(Model(), recipe(str(tmp_path / name)))


def test_a_file_that_is_not_there_and_a_model_without_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(EdgeqError, match="cannot read the text"):
        calibration(Model(), recipe(str(tmp_path / "none.txt")))
    model = Model()
    model.tokenizer_files = dict  # type: ignore[method-assign]
    (tmp_path / "t.txt").write_text("z" * 99)
    with pytest.raises(EdgeqError, match=r"no tokenizer\.json"):
        calibration(model, recipe(str(tmp_path / "t.txt")))
    assert calibration(model, recipe()).tokens.shape == (4, 32)  # its own text needs none


def test_a_run_that_goes_on_does_not_write_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = calibration(Model(), recipe(), folder=tmp_path, origin="a")
    monkeypatch.setattr(calibrate, "_made", lambda *_: pytest.fail("written again"))
    second = calibration(Model(), recipe(), folder=tmp_path, origin="a")
    assert second.describe() == first.describe() and np.array_equal(second.tokens, first.tokens)


@pytest.mark.parametrize("change", ["seed", "origin", "damage", "length"])
def test_a_kept_text_of_another_run_or_a_damaged_one_is_not_taken(tmp_path: Path, change: str) -> None:
    calibration(Model(), recipe(), folder=tmp_path, origin="a")
    if change == "damage":
        (tmp_path / FILE).write_text("{")
    made: list[bool] = []
    again = recipe(seed=1) if change == "seed" else recipe(length=16) if change == "length" else recipe()
    calibration(
        Model(),
        again,
        lambda *_: made.append(True),
        folder=tmp_path,
        origin="b" if change == "origin" else "a",
    )
    assert made


def test_progress_counts_to_its_end() -> None:
    told: list[tuple[int, int, str]] = []
    calibration(Model(), recipe(), lambda *now: told.append(now))
    assert told[-1][0] == told[-1][1] == 128 and told == sorted(told)


def test_the_fingerprint_knows_the_shape() -> None:
    ids = np.arange(12)
    assert Calibration(ids.reshape(3, 4)).fingerprint != Calibration(ids.reshape(4, 3)).fingerprint


def test_the_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("edgeq.model.hub.reachable", lambda: False)
    with pytest.raises(EdgeqError, match="--calibration self"):
        calibration(Model(), recipe("hub:someone/texts"))


def test_a_data_set_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = tmp_path / "train.jsonl"
    rows.write_text("\n".join(json.dumps({"body": f"document {i} " * 5}) for i in range(20)))
    _hub(monkeypatch, {"data/train.jsonl": rows, "data/test.jsonl": rows, "README.md": rows})
    found = calibration(Model(), recipe("hub:someone/texts:train:body"))
    assert found.tokens.shape == (4, 32)
    assert found.describe()["name"] == "someone/texts, data/train.jsonl"
    for name, says in (("hub:someone/texts:dev", "no split 'dev'"), ("hub:someone/texts", "no text in the field")):
        with pytest.raises(EdgeqError, match=says):
            calibration(Model(), recipe(name))


def test_parquet_needs_pyarrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _hub(monkeypatch, {"train/0.parquet": tmp_path / "0.parquet"})
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(EdgeqError, match="pip install pyarrow"):
        calibration(Model(), recipe("hub:someone/texts"))


def _hub(monkeypatch: pytest.MonkeyPatch, files: dict[str, Path]) -> None:
    import huggingface_hub

    monkeypatch.setattr("edgeq.model.hub.reachable", lambda: True)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda *_, **__: list(files))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda _, name, **__: str(files[name]))


def _text(row: np.ndarray) -> str:
    tokenizer = open_tokenizer(Model().tokenizer_files())
    return str(tokenizer.decode([int(i) for i in row], skip_special=False))
