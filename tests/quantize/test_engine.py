"""From a source folder to a checkpoint: what is stored, what survives a kill, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.checkpoint.store import Checkpoint
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.errors import EdgeqError
from edgeq.model.tensors import tensors
from edgeq.model.weights import open_source
from edgeq.quantize import engine, work
from edgeq.quantize.engine import quantize, relative_error
from edgeq.quantize.layout import disk_bytes, shards
from edgeq.quantize.methods import all_methods, find_method
from edgeq.recipe import Recipe, with_presets
from edgeq.scheme import F16, F32, int_grid

Make = Callable[..., Path]
KILLED = """
import os, signal, sys
from pathlib import Path
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe
model, out, at = sys.argv[1:]
def progress(done, total, what):
    if what == at:
        os.kill(os.getpid(), signal.SIGKILL)
quantize(open_source(model), Recipe(model), Path(out), progress=progress)
"""


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the report, which holds times."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "report.json")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


@pytest.mark.parametrize("name", [m.name for m in all_methods() if not m.needs and m.allocation is None])
def test_a_method_s_name_alone_makes_a_checkpoint(tiny: Make, tmp_path: Path, name: str) -> None:
    """The embedding is on an integer grid, whatever the method's own is."""
    recipe = Recipe(**with_presets({"model": "tiny", "method": name}))
    made = quantize(open_source(tiny(intermediate_size=64)), recipe, tmp_path / "q")
    kinds = {n: t.grid.kind for n, t in made.manifest.tensors.items()}
    assert kinds["embed"] == "int" and kinds["layers.0.q"] == made.scheme.linear.kind
    assert all(t.error is None or t.error < 1 for t in made.manifest.tensors.values())


def test_every_tensor_is_stored_on_its_grid(tiny: Make, tmp_path: Path) -> None:
    source = open_source(tiny())
    made = quantize(source, Recipe("tiny", bits=3, group_size=16), tmp_path / "q")
    assert list(made.names()) == [t.name for t in tensors(source.spec)]
    assert made.spec == source.spec and made.scheme.name == "rtn-int3-g16"
    for t in tensors(source.spec):
        original, stored = source.load(t.name), made.load(t.name)
        if t.linear or t.role == "embed":
            assert isinstance(stored, QuantizedTensor)
            assert stored.grid == (int_grid(8, 32) if t.role == "embed" else int_grid(3, 16))
            again = find_method("rtn").quantize(original, stored.grid)
            assert np.array_equal(stored.codes, again.codes) and np.array_equal(stored.scales, again.scales)
            assert np.array_equal(stored.zero_points, again.zero_points)
            norm = np.linalg.norm(stored.dequantize() - original) / np.linalg.norm(original)
            assert made.manifest.tensors[t.name].error == pytest.approx(norm, rel=1e-4)
            assert 0 < norm < (0.01 if t.role == "embed" else 0.25)
        else:
            assert np.array_equal(stored, original) and made.manifest.tensors[t.name].error is None
    assert made.tokenizer_files() == {"tokenizer.json": tmp_path / "q/tokenizer/tokenizer.json"}
    made.verify()


@pytest.mark.parametrize(("head", "grid"), [("embed", int_grid(8, 32)), ("linear", int_grid(4, 32)), ("float", F16)])
def test_an_untied_head_has_its_grid(tiny: Make, tmp_path: Path, head: Any, grid: Any) -> None:
    source = open_source(tiny(tie_word_embeddings=False))
    made = quantize(source, Recipe("tiny", head=head), tmp_path / "q")
    assert made.manifest.tensors["head"].grid == grid
    loaded = made.load("head")
    values = loaded.dequantize() if isinstance(loaded, QuantizedTensor) else loaded
    assert np.abs(values - source.load("head")).max() < 0.05


def test_sixteen_bits_keep_half_precision(tiny: Make, tmp_path: Path) -> None:
    source = open_source(tiny())
    made = quantize(source, Recipe("tiny", bits=16, embed_bits=16, symmetric=True), tmp_path / "q")
    assert made.scheme.name == "fp16"
    assert np.array_equal(made.load("layers.1.up"), source.load("layers.1.up").astype(np.float16).astype(np.float32))
    assert made.manifest.tensors["layers.1.attn_norm"].grid == F32


def test_the_same_run_gives_the_same_bytes(tiny: Make, tmp_path: Path) -> None:
    source = open_source(tiny())
    for out in ("a", "b"):
        quantize(source, Recipe("tiny"), tmp_path / out)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("at", ["embed", "layers.0.q", "layers.1.up", "layers.2.down", "final_norm", "done"])
def test_a_killed_run_resumes_to_the_same_bytes(tiny: Make, tmp_path: Path, at: str) -> None:
    model, out = tiny(), tmp_path / "killed"
    quantize(open_source(model), Recipe(str(model)), tmp_path / "whole")
    done = subprocess.run([sys.executable, "-c", KILLED, str(model), str(out), at], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    whole = {d.shard for d in engine.Journal(tmp_path / "killed.partial", _fingerprint(model)).done.values()}
    seen: list[str] = []
    quantize(open_source(model), Recipe(str(model)), out, progress=lambda d, t, what: seen.append(what))
    assert contents(out) == contents(tmp_path / "whole")
    assert not (tmp_path / "killed.partial").exists()
    plan = shards(open_source(model).spec, Recipe(str(model)).scheme)
    redone = {shard for shard, items in plan.items() if items[0].tensor.name in seen}
    assert redone == set(plan) - whole
    assert len(whole) == {"embed": 0, "layers.0.q": 1, "layers.1.up": 2, "layers.2.down": 3, "final_norm": 4}.get(at, 5)


def _fingerprint(model: Path) -> str:
    source = open_source(model)
    return engine._fingerprint(source, Recipe(str(model)), engine.describe_source(source))


def _interrupted(model: Path, out: Path, recipe: Recipe, at: str = "layers.1.q") -> Path:
    class StopError(Exception):
        pass

    def progress(done: int, total: int, what: str) -> None:
        if what == at:
            raise StopError

    with pytest.raises(StopError):
        quantize(open_source(model), recipe, out, progress=progress)
    return out.with_name(out.name + ".partial")


def test_a_damaged_or_foreign_shard_is_made_again(tiny: Make, tmp_path: Path) -> None:
    model = tiny()
    quantize(open_source(model), Recipe("m"), tmp_path / "whole")
    partial = _interrupted(model, tmp_path / "q", Recipe("m"))
    shard = partial / "layer-0000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x00")
    with (partial / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"fingerprint": "cut sho')
    quantize(open_source(model), Recipe("m"), tmp_path / "q")
    assert contents(tmp_path / "q") == contents(tmp_path / "whole")


def test_another_recipe_takes_nothing_over(tiny: Make, tmp_path: Path) -> None:
    model = tiny()
    _interrupted(model, tmp_path / "q", Recipe("m", bits=8))
    quantize(open_source(model), Recipe("m"), tmp_path / "q")
    quantize(open_source(model), Recipe("m"), tmp_path / "whole")
    assert contents(tmp_path / "q") == contents(tmp_path / "whole")


def test_an_existing_output_is_kept_or_replaced_whole(tiny: Make, tmp_path: Path) -> None:
    source = open_source(tiny())
    quantize(source, Recipe("tiny"), tmp_path / "q")
    with pytest.raises(EdgeqError, match="exists already"):
        quantize(source, Recipe("tiny", bits=8), tmp_path / "q")
    assert Checkpoint.open(tmp_path / "q").scheme.name == "rtn-int4-g32"
    quantize(source, Recipe("tiny", bits=8), tmp_path / "q", force=True)
    assert Checkpoint.open(tmp_path / "q").scheme.name == "rtn-int8-g32"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q", "tiny"]


def test_no_room_is_said_before_the_first_byte(tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    with pytest.raises(EdgeqError, match="not enough room"):
        quantize(open_source(tiny()), Recipe("tiny"), tmp_path / "q")
    assert not (tmp_path / "q").exists()
    assert not list((tmp_path / "q.partial").glob("*.safetensors"))


def test_a_full_disk_midway_leaves_a_run_to_resume(tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    quantize(open_source(model), Recipe("m"), tmp_path / "whole")
    real, calls = os.fsync, [0]

    def full(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EdgeqError, match=r"No space left.*goes on where it stopped"):
        quantize(open_source(model), Recipe("m"), tmp_path / "q")
    assert not (tmp_path / "q").exists()
    assert not list((tmp_path / "q.partial").glob(".*.partial"))
    quantize(open_source(model), Recipe("m"), tmp_path / "q")
    assert contents(tmp_path / "q") == contents(tmp_path / "whole")


def test_a_second_run_into_the_same_folder_is_refused(tiny: Make, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    source = open_source(tiny())
    with work.work_folder(tmp_path / "q"), pytest.raises(EdgeqError, match="another run"):
        quantize(source, Recipe("tiny"), tmp_path / "q")


def test_foreign_files_are_never_removed(tiny: Make, tmp_path: Path) -> None:
    (tmp_path / "q.partial").mkdir()
    (tmp_path / "q.partial/thesis.txt").write_text("mine")
    with pytest.raises(EdgeqError, match=r"foreign file: thesis\.txt"):
        quantize(open_source(tiny()), Recipe("tiny"), tmp_path / "q")
    assert (tmp_path / "q.partial/thesis.txt").read_text() == "mine"


def test_unknown_methods_and_damaged_weights(tiny: Make, tmp_path: Path) -> None:
    model = tiny()
    with pytest.raises(EdgeqError, match=r"no quantization method 'magic'.*rtn"):
        quantize(open_source(model), Recipe("m", method="magic"), tmp_path / "q")
    source = open_source(model)
    load = source.load

    def damaged(name: str) -> Any:
        values = load(name)
        if name == "layers.1.up":
            values[3, 5] = np.nan
        return values

    source.load = damaged  # type: ignore[method-assign]
    with pytest.raises(EdgeqError, match=r"not finite \(layers\.1\.up\)"):
        quantize(source, Recipe("m"), tmp_path / "q")


def test_the_prediction_of_disk_is_close(tiny: Make, tmp_path: Path) -> None:
    source = open_source(tiny(hidden_size=256, intermediate_size=512, vocab_size=1000))
    made = quantize(source, Recipe("tiny"), tmp_path / "q")
    predicted = disk_bytes(shards(source.spec, made.scheme))
    assert predicted == pytest.approx(made.weight_bytes, rel=0.01)


def test_peak_memory_is_a_layer_s_not_the_model_s(tiny: Make, tmp_path: Path) -> None:
    peaks = []
    wide = {"hidden_size": 256, "intermediate_size": 1024}
    for layers in (2, 10):
        source = open_source(tiny(f"deep{layers}", num_hidden_layers=layers, **wide))
        quantize(source, Recipe("tiny"), tmp_path / "warm-up", force=True)
        tracemalloc.start()
        quantize(source, Recipe("tiny"), tmp_path / f"q{layers}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2
    one = 4 * 256 * 1024
    assert peaks[1] < 10 * one  # of the 41 such matrices' worth in the model


def test_relative_error_is_the_frobenius_ratio() -> None:
    w = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)
    q = find_method("rtn").quantize(w, int_grid(4, 32))
    expected = np.linalg.norm(q.dequantize().astype(float) - w) / np.linalg.norm(w.astype(float))
    assert relative_error(w, q) == pytest.approx(expected, rel=1e-5)
    nothing = np.zeros((2, 32), np.float32)
    assert relative_error(nothing, find_method("rtn").quantize(nothing, int_grid(4, 32))) == 0


def test_quantizing_imports_no_torch(tiny: Make, tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['', *sys.argv[1:]]\n" + KILLED + "\nprint('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny()), str(tmp_path / "q"), "never"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["layer-0001.safetensors", "tokenizer/tokenizer.json", "manifest.json"])
def test_damage_to_a_checkpoint_is_found(tiny: Make, tmp_path: Path, name: str) -> None:
    quantize(open_source(tiny()), Recipe("tiny"), tmp_path / "q")
    path = tmp_path / "q" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])
    with pytest.raises(EdgeqError, match=r"damaged|truncated"):
        Checkpoint.open(tmp_path / "q")
    path.unlink()
    with pytest.raises(EdgeqError, match=r"missing|no manifest"):
        Checkpoint.open(tmp_path / "q")
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    if name != "manifest.json":
        with pytest.raises(EdgeqError, match="checksum"):
            Checkpoint.open(tmp_path / "q").verify()
    if name.startswith("layer"):
        with pytest.raises(EdgeqError, match="checksum"):
            Checkpoint.open(tmp_path / "q").load("layers.1.q")


def test_hostile_manifests(tiny: Make, tmp_path: Path) -> None:
    made = quantize(open_source(tiny()), Recipe("tiny"), tmp_path / "q")
    path = made.path / "manifest.json"
    honest = json.loads(path.read_text())
    with pytest.raises(EdgeqError, match="no tensor"):
        made.load("layers.9.q")
    changes: list[tuple[Callable[[Any], Any], str]] = [
        (lambda m: m["files"].update({"../x": {"bytes": 1, "sha256": ""}}), "outside"),
        (lambda m: m.update(edgeq_checkpoint=99), "format 99"),
        (lambda m: m.pop("spec"), "lacks 'spec'"),
        (lambda m: m["tensors"]["embed"].update(shape="big"), "should be a list"),
    ]
    for change, says in changes:
        manifest = json.loads(json.dumps(honest))
        change(manifest)
        path.write_text(json.dumps(manifest))
        with pytest.raises(EdgeqError, match=says):
            Checkpoint.open(made.path)
    for text in ("[" * 100_000, "[]", "{", '{"a": 1, "a": 2}'):
        path.write_text(text)
        with pytest.raises(EdgeqError):
            Checkpoint.open(made.path)
