"""Large tensors in parts of their rows, and what a run is predicted to take beside what it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.device.spec import Figure
from edgeq.estimate.effort import effort
from edgeq.estimate.needs import TOKENS, quantization_needs
from edgeq.model.spec import ModelSpec
from edgeq.model.weights import open_source
from edgeq.quantize import stream
from edgeq.quantize.engine import quantize
from edgeq.quantize.layout import shards
from edgeq.quantize.methods import NAMED, find_method
from edgeq.quantize.predict import effort_of, flop_rate, predicted, work_bytes
from edgeq.quantize.report import read_report
from edgeq.quantize.threads import limited, threads_now
from edgeq.recipe import Recipe
from edgeq.scheme import GGML_GRIDS, affine_grid, codebook_grid, int_grid, named_scheme

Make = Callable[..., Path]
Contents = Callable[[Path], dict[str, bytes]]


@pytest.mark.parametrize("fields", [{}, {"bits": 3, "grid": "affine"}, {"grid": "nf4-double"}, {"bits": 16}])
def test_parts_give_what_the_whole_gives(
    tiny: Make, tmp_path: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch, fields: Any
) -> None:
    source = open_source(tiny(tie_word_embeddings=False))
    recipe = Recipe("m", head="float", **fields)
    quantize(source, recipe, tmp_path / "whole")
    monkeypatch.setattr(stream, "PART", 7 * 64)  # seven rows of the embedding
    asked: list[tuple[str, int]] = []
    real = source.load_rows

    def load_rows(name: str, rows: slice) -> Any:
        asked.append((name, rows.stop - rows.start))
        return real(name, rows)

    monkeypatch.setattr(source, "load_rows", load_rows)
    monkeypatch.setattr(source, "load", _refusing(source.load))
    quantize(source, recipe, tmp_path / "parts")
    first, second = contents(tmp_path / "whole"), contents(tmp_path / "parts")
    assert first.keys() == second.keys()
    assert all(first[n] == second[n] for n in first if n != "manifest.json")  # errors are summed in another order
    assert asked.count(("embed", 7)) == 11 and ("embed", 3) in asked and ("head", 7) in asked


def _refusing(load: Callable[[str], Any]) -> Callable[[str], Any]:
    def asked(name: str) -> Any:
        assert name not in ("embed", "head"), "all of a large table was read"
        return load(name)

    return asked


def test_rows_of_a_source_are_its_tensor_s_rows(tiny: Make) -> None:
    source = open_source(tiny())
    for name in ("embed", "layers.0.q", "layers.2.down"):
        assert np.array_equal(source.load_rows(name, slice(3, 21)), source.load(name)[3:21])


def test_single_tensors_may_have_grids_of_their_own(tiny: Make) -> None:
    spec = open_source(tiny()).spec
    grids = {"layers.1.up": affine_grid(5, 32), "embed": codebook_grid("nf4", 64)}
    plan = shards(spec, Recipe("m").scheme, grids)
    found = {i.tensor.name: i.grid for items in plan.values() for i in items}
    assert found["layers.1.up"] == affine_grid(5, 32) and found["embed"] == codebook_grid("nf4", 64)
    assert found["layers.0.up"] == int_grid(4, 32)
    assert GGML_GRIDS["Q4_K"] not in found.values()


def test_work_disk_is_as_predicted(tiny: Make, tmp_path: Path) -> None:
    source = open_source(tiny())
    tokens = np.random.default_rng(0).integers(0, 80, (64, 128))
    most = [0]

    def look(done: int, total: int, what: str) -> None:
        size = sum(p.stat().st_size for p in (tmp_path / "q.partial").glob("*.npy"))
        most[0] = max(most[0], size)

    recipe = Recipe("m", method="gptq", calibration_tokens=tokens.size, calibration_length=128)
    quantize(source, recipe, tmp_path / "q", tokens=tokens, progress=look)
    method = find_method("gptq")
    told = read_report(tmp_path / "q")
    assert told is not None and told.predicted.work_bytes == work_bytes(source.spec, method, tokens.size)
    # Looked at before each matrix: the last hidden states of a block are not there yet.
    assert 0.5 * told.predicted.work_bytes < most[0] <= told.predicted.work_bytes + 10_000
    assert told.predicted.seconds > 0


def test_a_prediction_grows_with_what_is_asked(tiny: Make) -> None:
    spec: ModelSpec = open_source(tiny()).spec
    times = {m: predicted(spec, Recipe("m", method=m), 1) for m in ("rtn", "gptq", "qronos")}
    assert times["rtn"].seconds < times["gptq"].seconds < times["qronos"].seconds
    assert times["rtn"].work_bytes == 0 < times["gptq"].work_bytes < times["qronos"].work_bytes
    assert times["rtn"].ram_bytes < times["gptq"].ram_bytes


def test_threads_are_set_and_set_back(monkeypatch: pytest.MonkeyPatch, tiny: Make, tmp_path: Path) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with limited(3):
        assert threads_now() == 3
    assert threads_now() == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    with limited(2):
        assert threads_now() == 2
    source = open_source(tiny())
    ids: npt.NDArray[np.int64] = np.random.default_rng(0).integers(0, 80, (8, 64))
    for threads in (1, 2):
        quantize(source, Recipe("m"), tmp_path / f"q{threads}", threads=threads, tokens=ids)
    for name in source.names():
        one, two = (open_made(tmp_path / f"q{n}", name) for n in (1, 2))
        assert np.array_equal(one, two)


def open_made(folder: Path, name: str) -> Any:
    from edgeq.checkpoint.store import Checkpoint

    loaded = Checkpoint.open(folder).load(name)
    return loaded.codes if isinstance(loaded, QuantizedTensor) else loaded


@pytest.mark.parametrize("name", [*NAMED, "awq+gptq", "rotate+qronos", "mixed+gptq", "gptq+autoround-light"])
def test_the_plan_s_table_of_efforts_is_what_the_methods_are(name: str) -> None:
    assert effort(name) == effort_of(find_method(name))


def test_the_plan_and_the_run_predict_alike(tiny: Make) -> None:
    """One arithmetic: at the same rate, tokens and grids they give the same hours and memory."""
    spec: ModelSpec = open_source(tiny()).spec
    scheme = named_scheme("gptq-int4-g16")
    recipe = Recipe("m", method="gptq", group_size=16, embed_bits=8, embed_group_size=32)
    plain = replace(scheme, embed=recipe.scheme.embed, head=recipe.scheme.head)
    length = min(recipe.calibration_length, spec.max_positions)
    run = predicted(spec, replace(recipe, calibration_tokens=TOKENS, calibration_length=length), 2)
    planned = quantization_needs(spec, plain, Figure(flop_rate(2), "FLOP/s", "measured"))
    assert planned.hours == pytest.approx(run.seconds / 3600, rel=0.01)
    assert planned.ram == pytest.approx(run.ram_bytes, rel=0.01)
