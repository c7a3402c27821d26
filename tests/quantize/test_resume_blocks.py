"""A run of a method with text can be stopped at any moment, by anything, and goes on to the same bytes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.errors import EdgeqError
from edgeq.model.weights import open_source
from edgeq.quantize import engine
from edgeq.quantize.block import Block
from edgeq.quantize.engine import quantize
from edgeq.quantize.grids.uniform import search
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.solvers.rtn import round_to_nearest
from edgeq.recipe import Recipe

Make = Callable[..., Path]
Ids = npt.NDArray[np.int64]
Contents = Callable[[Path], dict[str, bytes]]
RECIPE = Recipe("m", method="full", bits=3)


class StopError(Exception):
    pass


def compensating(weight: Any, statistics: Any, grid: Any, search: Any) -> QuantizedTensor:
    """A toy of an error-compensating solver: the two streams' difference goes into the weight before it is rounded."""
    gram, cross = statistics.gram.double(), statistics.cross.double()
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    target = torch.linalg.solve(damped, cross.T @ torch.from_numpy(weight).double().T).T
    return round_to_nearest(target.float().numpy(), statistics, grid, search)


def scale_up(block: Block) -> None:
    """A transform that asks for statistics and changes norms: by the loudest channel of what the MLP reads."""
    assert block.statistics_of is not None
    factor = 1 + block.statistics_of(block.groups[2]).absmax.max()
    block.current[f"layers.{block.index}.mlp_norm"] /= factor
    for name in block.groups[2]:
        block.current[name] *= factor


def nudge(block: Block) -> None:
    """A refinement that depends on batches and targets; sometimes worse, then taken back."""
    assert block.batches is not None and block.targets is not None
    total = sum(float(y.abs().sum()) for y in block.targets()) + sum(float(x.sum()) for x in block.batches())
    name = block.groups[int(total) % 4][0]
    block.quantized[name] = method("rtn").quantize(block.current[name].numpy(), block.grids[name])


def method(name: str) -> Method:
    """Everything a method may ask for at once, and quick."""
    if name == "rtn":
        from edgeq.quantize.methods import find_method

        return find_method("rtn")
    return Method(
        name,
        compensating,
        search,
        transforms=(scale_up,),
        refine=nudge,
        needs=frozenset({"text", "float_stream", "cross"}),
    )


@pytest.fixture(autouse=True)
def _full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find_method", method)


@pytest.fixture
def model(tiny: Make) -> Path:
    return tiny(tie_word_embeddings=False)


def run(model: Path, out: Path, ids: Ids, **options: Any) -> None:
    quantize(open_source(model), RECIPE, out, tokens=ids, **options)


@pytest.fixture
def whole(model: Path, tmp_path: Path, ids: Ids, contents: Contents) -> dict[str, bytes]:
    run(model, tmp_path / "whole", ids)
    return contents(tmp_path / "whole")


NAMES = ("embed", "layers.0.q", "layers.0.down", "layers.1.attn_norm", "layers.2.gate", "final_norm", "head", "done")


def shard_of(name: str) -> str:
    return name.rpartition(".")[0] or ("embed" if name == "embed" else "final")


@pytest.mark.parametrize("at", NAMES)
def test_an_interrupted_step_is_made_again(
    model: Path, tmp_path: Path, ids: Ids, contents: Contents, whole: Any, at: str
) -> None:
    out, seen = tmp_path / "q", []

    def stop(done: int, total: int, what: str) -> None:
        if what == at:
            raise StopError

    with pytest.raises(StopError):
        run(model, out, ids, progress=stop)
    assert not out.exists()
    run(model, out, ids, progress=lambda done, total, what: seen.append(what))
    assert contents(out) == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q", "tiny", "whole"]
    assert not set(seen) & {n for n in NAMES[: NAMES.index(at)] if shard_of(n) != shard_of(at)}


@pytest.mark.parametrize("what", ["missing", "flipped", "cut", "both shards"])
def test_damaged_hidden_states_are_made_again(
    model: Path, tmp_path: Path, ids: Ids, contents: Contents, whole: Any, what: str
) -> None:
    def stop(done: int, total: int, name: str) -> None:
        if name == "layers.2.attn_norm" or name == "layers.2.q":
            raise StopError

    with pytest.raises(StopError):
        run(model, tmp_path / "q", ids, progress=stop)
    work = tmp_path / "q.partial"
    assert sorted(p.name for p in work.glob("*.npy")) == ["float-0002.npy", "hidden-0002.npy"]
    path = work / "hidden-0002.npy"
    values = path.read_bytes()
    if what == "missing":
        path.unlink()
    elif what == "flipped":
        (work / "float-0002.npy").unlink()
        path.write_bytes(values[:-5] + bytes([values[-5] ^ 64]) + values[-4:])
    elif what == "cut":
        path.write_bytes(values[:-100])
    else:
        shard = work / "layer-0000.safetensors"
        shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    (work / "hidden-0009.npy").write_bytes(b"of a step that was not committed")
    run(model, tmp_path / "q", ids)
    assert contents(tmp_path / "q") == whole


def _every_failure(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: int, attempt: Callable[[], None]
) -> int:
    """Let call n of a function fail, for n = 1, 2, ... until the run ends whole; how often it failed."""
    real, count, failures = getattr(owner, name), [0], 0

    def failing(*args: Any, **options: Any) -> Any:
        count[0] += 1
        if count[0] == failures % 7 + 1:  # each attempt gets a little further
            raise OSError(error, os.strerror(error))
        return real(*args, **options)

    monkeypatch.setattr(owner, name, failing)
    while True:
        count[0] = 0
        try:
            attempt()
        except EdgeqError as problem:
            assert "goes on where it stopped" in str(problem) or "goes on" in (problem.hint or "")
            failures += 1
            assert failures < 100
            continue
        monkeypatch.setattr(owner, name, real)
        return failures


def test_a_full_disk_at_any_write(
    model: Path, tmp_path: Path, ids: Ids, contents: Contents, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "q"
    failures = _every_failure(monkeypatch, os, "fsync", errno.ENOSPC, lambda: run(model, out, ids))
    assert failures >= 10
    assert contents(out) == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q", "tiny", "whole"]


def test_a_failed_rename_at_any_file(
    model: Path, tmp_path: Path, ids: Ids, contents: Contents, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "q"
    failures = _every_failure(monkeypatch, Path, "replace", errno.EACCES, lambda: run(model, out, ids))
    assert failures > 8
    assert contents(out) == whole


def test_when_the_last_rename_fails_nothing_is_lost(
    model: Path, tmp_path: Path, ids: Ids, contents: Contents, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen = tmp_path / "q", []
    real = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if Path(target) == out and self.name.endswith(".partial"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return real(self, target)

    out.mkdir()
    (out / "old").write_text("still here")
    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(EdgeqError, match="busy"):
        run(model, out, ids, force=True)
    assert (out / "old").read_text() == "still here"
    monkeypatch.setattr(Path, "replace", real)
    run(model, out, ids, force=True, progress=lambda done, total, what: seen.append(what))
    assert contents(out) == whole
    assert set(seen) == {"checksums of the source", "done"}


def test_a_run_killed_while_it_tidied_up_is_finished(
    model: Path, tmp_path: Path, ids: Ids, contents: Contents, whole: Any
) -> None:
    out = tmp_path / "whole"
    (out / "journal.jsonl").write_text("{}")
    (out / "lock").write_text("")
    run(model, out, ids)
    assert contents(out) == whole
    with pytest.raises(EdgeqError, match="exists already"):
        run(model, out, ids)


def test_other_text_takes_nothing_over(model: Path, tmp_path: Path, ids: Ids, contents: Contents, whole: Any) -> None:
    def stop(done: int, total: int, name: str) -> None:
        if name == "layers.1.down":
            raise StopError

    with pytest.raises(StopError):
        run(model, tmp_path / "q", ids[::-1].copy(), progress=stop)
    run(model, tmp_path / "q", ids)
    assert contents(tmp_path / "q") == whole


KILLS = """
import importlib.util, os, signal, sys, time
from pathlib import Path
import numpy as np
spec = importlib.util.spec_from_file_location("full", sys.argv[1])
full = importlib.util.module_from_spec(spec)
spec.loader.exec_module(full)
full.engine.find_method = full.method
model, out = Path(sys.argv[2]), Path(sys.argv[3])
ids = np.load(sys.argv[4])

def start():
    pid = os.fork()
    if pid == 0:
        full.run(model, out, ids)
        os._exit(0)
    return pid

begun = time.perf_counter()
os.waitpid(start(), 0)
took = time.perf_counter() - begun
out.rename(out.with_name("first"))
rng = np.random.default_rng(7)
kills = runs = 0
while kills < 20:
    pid = start()
    time.sleep(rng.uniform(0, took / 3))
    if os.waitpid(pid, os.WNOHANG)[0] == 0:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        kills += 1
    if out.exists() and kills < 20:
        runs += 1
        out.rename(out.with_name(f"run{runs}"))
if not out.exists() or (out / "journal.jsonl").exists():
    os.waitpid(start(), 0)
print(kills, runs)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_twenty_kills_at_random_moments(model: Path, tmp_path: Path, ids: Ids, contents: Contents, whole: Any) -> None:
    np.save(tmp_path / "ids.npy", ids)
    out = tmp_path / "killed"
    arguments = [__file__, str(model), str(out), str(tmp_path / "ids.npy")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLS, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    kills, runs = map(int, done.stdout.split())
    assert kills == 20
    for name in ("first", "killed", *(f"run{i + 1}" for i in range(runs))):
        assert contents(tmp_path / name) == whole, name
    assert not (tmp_path / "killed.partial").exists()
    assert signal.SIGKILL  # what ended them
