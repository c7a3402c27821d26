"""The memory benchmark's own parts: its checkpoint, its text, what it sees of a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

big = pytest.importorskip("big")
import big_model  # noqa: E402

from edgeq.model.tensors import parameters  # noqa: E402
from edgeq.model.weights import open_source  # noqa: E402

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc is Linux's")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HIDDEN": 64, "MLP": 96, "HEADS": 4, "VOCAB": 3000, "DRAWN": 1000}.items():
        monkeypatch.setattr(big_model, name, value)


def test_the_checkpoint_is_a_whole_model_of_spread_weights(tmp_path: Path, tiny: None) -> None:
    model = big_model.write_model(tmp_path / "model", 3)
    source = open_source(str(model.folder))
    assert len(source.spec.layers) == 3 and not source.spec.tied
    assert parameters(source.spec) == model.weights
    values = source.load("layers.2.down")
    assert values.shape == (64, 96)
    assert 0.018 < values.std() < 0.022 and abs(values.mean()) < 0.002
    assert not np.array_equal(source.load("layers.1.q"), source.load("layers.2.q"))
    assert (source.load("layers.0.attn_norm") == 1).all()


def test_its_first_blocks_share_the_weights(tmp_path: Path, tiny: None) -> None:
    model = big_model.write_model(tmp_path / "model", 3)
    first = big_model.first_blocks(model, tmp_path / "first", 2)
    source, whole = open_source(str(first.folder)), open_source(str(model.folder))
    assert parameters(source.spec) == first.weights < model.weights
    for name in source.names():
        assert np.array_equal(source.load(name), whole.load(name))
    assert (first.folder / "layer-01.safetensors").samefile(model.folder / "layer-01.safetensors")


def test_its_tokenizer_finds_many_tokens_in_its_text(tmp_path: Path, tiny: None) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    model = big_model.write_model(tmp_path / "model", 1)
    tokenizer = tokenizers.Tokenizer.from_file(str(model.folder / "tokenizer.json"))
    big_model.write_text(tmp_path / "text.txt", 2048)
    text = (tmp_path / "text.txt").read_text()
    ids = tokenizer.encode(text).ids
    assert len(ids) >= 2048 and len(set(ids)) > 1000 and max(ids) < 3000
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(tokenizer.encode("ä €\n").ids) == "ä €\n"


@needs_proc
def test_the_memory_of_a_process_is_seen(tmp_path: Path) -> None:
    held = "import time; held = b'x' * 200_000_000; time.sleep(1.0)"
    seen = big.watch([sys.executable, "-c", held], tmp_path / "journal.jsonl", tmp_path / "log")
    assert seen.peak_rss >= seen.peak_anonymous > 200_000_000
    assert seen.peak_rss < 400_000_000
    assert seen.seconds > 1.0 and seen.steps == []


@needs_proc
def test_steps_come_from_whole_lines_of_the_journal(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    lines = ["\n" + json.dumps({"shard": name}) + "\n" for name in ("embed.safetensors", "layer-0000.safetensors")]
    code = f"""
import time
stream = open({str(journal)!r}, "w")
for line in {lines!r} + ['\\n{{"shard": ']:
    time.sleep(0.3)
    stream.write(line)
    stream.flush()
time.sleep(0.3)
"""
    seen = big.watch([sys.executable, "-c", code], journal, tmp_path / "log")
    assert [s.shard for s in seen.steps] == ["embed.safetensors", "layer-0000.safetensors"]
    assert sum(s.seconds for s in seen.steps) < seen.seconds


@needs_proc
def test_a_command_that_fails_ends_the_benchmark_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such thing"):
        big.watch([sys.executable, "-c", "raise ValueError('no such thing')"], tmp_path / "j", tmp_path / "log")


def test_the_time_of_the_whole_model_adds_median_layers() -> None:
    seconds = {"embed": 5.0, "layer-0000": 10.0, "layer-0001": 12.0, "layer-0002": 20.0, "final": 6.0}
    steps = [big.Step(f"{name}.safetensors", s, 0) for name, s in seconds.items()]
    watched = big.Watched(seconds=sum(seconds.values()) + 1, steps=steps)
    assert big.full_time(watched, 32) == pytest.approx(54 + 29 * 12)
    assert big.full_time(watched, 3) == pytest.approx(54)


@needs_proc
def test_it_runs_from_end_to_end_and_leaves_nothing(tmp_path: Path) -> None:
    # The same script on a model that is quantized in a second.
    small = "import big_model as m, sys; m.HIDDEN, m.MLP, m.HEADS, m.VOCAB = 64, 96, 4, 3000; import big; big.main()"
    command = [sys.executable, "-c", small, "--layers", "2", "--methods", "rtn", "--folder", str(tmp_path), "--json"]
    folder = Path(big.__file__).parent
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["reached"] and row["layers"] == 2 and row["method"] == "rtn"
    assert 1e7 < row["watched"]["peak_rss"] < 1e9
    assert row["predicted"]["ram_bytes"] > 0 and row["disk_bytes"] > 0
    assert list(tmp_path.iterdir()) == []
