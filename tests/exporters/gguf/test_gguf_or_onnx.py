"""Of two artifacts of one checkpoint, for two runtimes, the one that was measured to be faster is opened."""

from __future__ import annotations

import io
import shutil

import pytest

import edgeq
from edgeq.benchmark import Benchmark, Decode, Samples, device_key
from edgeq.cli.main import main
from edgeq.device.spec import Cpu, Device, Figure, Memory
from edgeq.errors import EdgeqError
from edgeq.exporters.gguf import GgufExporter
from edgeq.exporters.onnx import OnnxExporter
from edgeq.measure import fastest, threads
from edgeq.measure.fastest import artifacts_of, choose
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe
from edgeq.store import Store

pytest.importorskip("xllamacpp")

MACHINE = Device(
    "test", "local", "Linux", Cpu("Test", "x86_64", 4, 8), Memory(16 << 30, 8 << 30, Figure(20e9, "B/s", "measured"))
)


@pytest.fixture(scope="module")
def made(saved, tmp_path_factory):
    place = tmp_path_factory.mktemp("two")
    folder = saved("llama")
    recipe = Recipe(str(folder), bits=4, group_size=32, symmetric=True, embed_symmetric=True, embed_group_size=32)
    checkpoint = quantize(open_source(folder), recipe, place / "q")
    GgufExporter().export(checkpoint, place / "q-gguf")
    OnnxExporter().export(checkpoint, place / "q-onnx")
    (place / "notes").mkdir()
    return place


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEQ_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(fastest, "load_device", lambda ref: MACHINE)


def measured(artifact, tps, count, device=MACHINE):
    """A benchmark of an artifact, as if it had been measured so."""
    decode = Decode(32, 32, Samples((tps,)))
    kept = Benchmark(
        date="2026-01-02T03:04:05+00:00",
        device=device_key(device),
        target=f"{artifact.runtime}/cpu",
        model=artifact.name,
        family="llama",
        scheme=artifact.scheme,
        artifact=str(artifact.path),
        artifact_bytes=artifact.total_bytes,
        threads=count,
        import_s=0.0,
        load_s=0.0,
        prefill=(),
        decode=decode,
        baseline_bytes=0,
        loaded_bytes=0,
        peak_bytes=0,
        load_before=0.0,
        load_during=0.0,
    )
    Store().add(kept)


def test_a_checkpoint_knows_what_was_exported_from_it(made, tmp_path):
    found = artifacts_of(made / "q")
    assert [a.path.name for a in found] == ["q-gguf", "q-onnx"]
    shutil.copytree(made / "q", tmp_path / "q")
    assert artifacts_of(tmp_path / "q") == []
    with pytest.raises(EdgeqError, match="without an artifact beside it") as caught:
        edgeq.load(tmp_path / "q")
    assert caught.value.hint == f"edgeq export {tmp_path / 'q'}"


def test_the_faster_one_is_opened(made):
    gguf, onnx = artifacts_of(made / "q")
    assert choose(made / "q").artifact == gguf and "not measured here, the first of 2" in choose(made / "q").words
    measured(onnx, 50.0, 2)
    only = choose(made / "q")
    assert only.artifact == onnx and "1 not measured" in only.words and only.threads is None
    measured(gguf, 40.0, 4)
    measured(gguf, 60.0, 2)
    both = choose(made / "q")
    assert both.artifact == gguf and both.threads == 2
    assert "60.0 tok/s with 2 threads on 2026-01-02, the fastest of 2 measured here" in both.words
    assert choose(made / "q", runtime_name="onnxruntime").artifact == onnx
    with edgeq.load(made / "q", threads=1) as session:
        assert type(session.engine).__name__ == "LlamaEngine"
    with edgeq.load(made / "q", runtime="onnxruntime", threads=1) as session:
        assert type(session.engine).__name__ == "OnnxEngine"
    measured(onnx, 70.0, 2)
    with edgeq.load(made / "q", threads=1) as session:
        assert type(session.engine).__name__ == "OnnxEngine"


def test_what_was_measured_elsewhere_or_of_another_size_does_not_count(made):
    from dataclasses import replace

    gguf, onnx = artifacts_of(made / "q")
    measured(onnx, 50.0, 2, device=replace(MACHINE, cpu=Cpu("Other", "x86_64", 4, 8)))
    measured(replace(onnx, files={}), 90.0, 2)
    measured(gguf, 1.0, 1)
    assert choose(made / "q").artifact == gguf


def test_a_runtime_that_is_not_installed_is_not_chosen(made, monkeypatch):
    gguf, onnx = artifacts_of(made / "q")
    measured(gguf, 99.0, 1)
    monkeypatch.setattr("edgeq.runtimes.llamacpp.LlamaCppRuntime.missing", lambda self: "xllamacpp")
    assert choose(made / "q").artifact == onnx
    monkeypatch.setattr("edgeq.runtimes.onnxruntime.OnnxRuntime.missing", lambda self: "onnxruntime")
    with pytest.raises(EdgeqError, match="no runtime of its artifacts is installed: llamacpp, onnxruntime"):
        choose(made / "q")


def run(*arguments):
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    return left.value.code


def test_run_says_what_it_opens(made, capsys, monkeypatch):
    _, onnx = artifacts_of(made / "q")
    measured(onnx, 50.0, 1)
    measured(onnx, 40.0, 2)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert run("run", made / "q", "The", "--raw", "--max-tokens", 3) == 0
    said = capsys.readouterr()
    assert f"opening {onnx.path} (onnxruntime, 50.0 tok/s with 1 thread on" in said.err and said.out
    assert run("run", onnx.path, "The", "--raw", "--max-tokens", 3) == 0
    assert "opening" not in capsys.readouterr().err


def test_threads_are_tried_and_the_best_is_kept(made, monkeypatch, capsys):
    import edgeq.device.load_ref as load_ref

    machine = Device("test", "local", "Linux", Cpu("Test", "x86_64", 2, 2), MACHINE.memory)
    monkeypatch.setattr(load_ref, "load_device", lambda ref: machine)
    monkeypatch.setattr(fastest, "load_device", lambda ref: machine)
    monkeypatch.setattr(threads, "SHORT", threads.Workload((4,), 4, 4, 1))
    short = ("--prompt-tokens", "4", "--tokens", "4", "--reps", "1")
    assert run("bench", made / "q-onnx", "--threads", "auto", *short, "--json") == 0
    kept = Store().benchmarks()
    assert [b.threads for b in kept[:2]] == [1, 2] and len(kept) == 3
    assert kept[2].threads == threads.fastest_threads(kept[:2])
    assert choose(made / "q-onnx").threads in (1, 2)
    assert run("bench", made / "q-onnx", "--threads", "auto", *short, "--no-store") == 0
    assert "Tokens/s by threads: 1: " in capsys.readouterr().out and len(Store().benchmarks()) == 3
    assert run("bench", made / "q-onnx", "--threads", "many") == 2
    assert "--threads is 'many'" in capsys.readouterr().err


def test_numbers_of_threads_worth_trying():
    assert threads.counts(MACHINE) == (1, 2, 3, 4, 8)
