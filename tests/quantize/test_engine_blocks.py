"""Block after block: the statistics each matrix sees, what is stored, what is refused, what is fallen back on."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from edgeq.checkpoint.store import Checkpoint
from edgeq.checkpoint.tensor import Parameters, QuantizedTensor
from edgeq.decoder.decoder import block as decoder_block
from edgeq.decoder.decoder import embedding, settled
from edgeq.decoder.torch_ops import TorchOps
from edgeq.errors import EdgeqError
from edgeq.model.spec import Layer, ModelSpec, MoE
from edgeq.model.tensors import tensors
from edgeq.model.weights import open_source
from edgeq.quantize import engine
from edgeq.quantize.block import Block
from edgeq.quantize.engine import quantize
from edgeq.quantize.grids.uniform import search
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.report import read_report
from edgeq.quantize.solvers.rtn import round_to_nearest
from edgeq.quantize.statistics import InputStatistics
from edgeq.recipe import Recipe
from edgeq.scheme import Grid, int_grid

Make = Callable[..., Path]
Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
GROUPS = (("q", "k", "v"), ("o",), ("gate", "up"), ("down",))


def plain_search(weight: Floats, importance: Floats | None, grid: Grid) -> Parameters:
    """A search that ignores importance: rounding then depends on the weight alone, not on float noise."""
    return search(weight, None, grid)


class InMemory:
    """Random weights of any spec."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        rng = np.random.default_rng(0)
        self._values = {t.name: rng.standard_normal(t.shape).astype(np.float32) for t in tensors(spec)}

    def names(self) -> Sequence[str]:
        return tuple(self._values)

    def load(self, name: str) -> Floats:
        return self._values[name]

    def tokenizer_files(self) -> dict[str, Path | bytes]:
        return {}


class Recorder:
    """A solver that rounds to nearest and remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[Floats, InputStatistics]] = []

    def __call__(self, weight: Floats, statistics: InputStatistics | None, grid: Grid, search: Any) -> QuantizedTensor:
        assert statistics is not None
        copied = replace(
            statistics,
            gram=statistics.gram.clone(),
            cross=None if statistics.cross is None else statistics.cross.clone(),
        )
        self.seen.append((weight.copy(), copied))
        return round_to_nearest(weight, None, grid, search)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Method], None]:
    """Makes the engine take a method of the test's own."""

    def take(method: Method) -> None:
        monkeypatch.setattr(engine, "find_method", lambda name: method)

    return take


class Reference:
    """The same loop in memory, in double precision, all tokens at once: written as one would say it."""

    def __init__(self, source: Any, made: Checkpoint, ids: Ids) -> None:
        self.source, self.made, self.ids = source, made, torch.from_numpy(ids)

    def inputs(self, layer: int, quantized_roles: int, floats: bool = False) -> dict[tuple[str, ...], torch.Tensor]:
        """What each group of a layer reads when all layers before it, and the layer's first groups, are quantized."""
        done = {r for g in GROUPS[:quantized_roles] for r in g}
        ops = _Ops(self.source, self.made, layer, set() if floats else done, floats)
        stream = embedding(ops, self.source.spec, self.ids)
        for i in range(layer + 1):
            ops.read.clear()
            stream = decoder_block(ops, self.source.spec, i, stream)
            stream = type(stream)(settled(ops, stream))
        return {tuple(n.split(".")[2] for n in k): v.flatten(0, 1) for k, v in ops.read.items()}


class _Ops(TorchOps):
    def __init__(self, source: Any, made: Checkpoint, layer: int, done: set[str], floats: bool) -> None:
        super().__init__(source, dtype=torch.float64)
        self.made, self.layer, self.done, self.floats = made, layer, done, floats
        self.read: dict[tuple[str, ...], torch.Tensor] = {}

    def weight(self, name: str) -> torch.Tensor:
        stored = self.made.load(name)
        before = not name.startswith("layers.") or int(name.split(".")[1]) < self.layer
        here = name.startswith(f"layers.{self.layer}.") and name.split(".")[2] in self.done
        if isinstance(stored, QuantizedTensor) and (before or here) and not self.floats:
            return torch.from_numpy(stored.dequantize()).double()
        return super().weight(name)

    def linear(self, x: torch.Tensor, names: tuple[str, ...]) -> torch.Tensor:
        self.read[names] = x
        return super().linear(x, names)


@pytest.mark.parametrize("cross", [False, True])
def test_every_matrix_sees_what_the_quantized_model_before_it_gives(
    tiny: Make, tmp_path: Path, ids: Ids, use: Any, cross: bool
) -> None:
    solver = Recorder()
    use(Method("toy", solver, plain_search, needs=frozenset({"text", "cross"} if cross else {"text"})))
    source = open_source(tiny(qkv_bias=True, attention_bias=True))
    made = quantize(source, Recipe("m", bits=3, embed_bits=8), tmp_path / "q", tokens=ids)
    seen = iter(solver.seen)
    reference = Reference(source, made, ids)
    for layer in range(3):
        for k, group in enumerate(GROUPS):
            x = reference.inputs(layer, k)[group]
            gram = x.T @ x / len(x)
            for role in group:
                weight, statistics = next(seen)
                assert np.array_equal(weight, source.load(f"layers.{layer}.{role}"))
                assert statistics.tokens == ids.size
                assert torch.allclose(statistics.gram.double(), gram, rtol=1e-3, atol=1e-5 * float(gram.abs().max()))
                for name, expected in (
                    ("absmax", x.abs().amax(0)),
                    ("absmean", x.abs().mean(0)),
                    ("mean", x.mean(0)),
                    ("minimum", x.amin(0)),
                    ("maximum", x.amax(0)),
                ):
                    assert torch.allclose(getattr(statistics, name).double(), expected, rtol=1e-3, atol=1e-5), name
                if cross:
                    assert statistics.cross is not None
                    floats = reference.inputs(layer, k, floats=True)[group]
                    both = floats.T @ x / len(x)
                    assert torch.allclose(
                        statistics.cross.double(), both, rtol=1e-3, atol=1e-5 * float(both.abs().max())
                    )
                else:
                    assert statistics.cross is None
    assert next(seen, None) is None


def test_gptq_lowers_the_output_error_and_reports_it(tiny: Make, tmp_path: Path, ids: Ids) -> None:
    source = open_source(tiny(tie_word_embeddings=False))
    recipe = Recipe("m", method="gptq", head="linear")
    made = quantize(source, recipe, tmp_path / "q", tokens=ids)
    reports = {n: t.report for n, t in made.manifest.tensors.items() if t.report is not None}
    linear = [f"layers.{i}.{r}" for i in range(3) for g in GROUPS for r in g]
    assert list(reports) == [*linear, "head"]
    assert all(0 < r.error_after < r.error_before < 0.02 and r.fallback is None for r in reports.values())
    reference = Reference(source, made, ids)
    x = reference.inputs(1, 3)[("down",)]
    w = torch.from_numpy(source.load("layers.1.down")).double()
    stored = made.load("layers.1.down")
    assert isinstance(stored, QuantizedTensor)
    q = torch.from_numpy(stored.dequantize()).double()
    expected = float((x @ (w - q).T).square().sum() / (x @ w.T).square().sum())
    assert reports["layers.1.down"].error_after == pytest.approx(expected, rel=1e-3)
    made.verify()
    assert made.manifest.calibration is not None and made.manifest.calibration["tokens"] == ids.size
    assert not list((tmp_path / "q").glob("*.npy")) and not (tmp_path / "q.partial").exists()
    told = read_report(tmp_path / "q")
    assert told is not None and [m.name for m in told.layers if m.error_after is not None] == [*linear, "head"]
    assert told.peak_rss_bytes > 1e7 and told.seconds > 0 and told.disk_bytes == made.weight_bytes


def test_a_worse_answer_is_not_taken(tiny: Make, tmp_path: Path, ids: Ids, use: Any) -> None:
    calls = []

    def solver(weight: Floats, statistics: Any, grid: Grid, search: Any) -> QuantizedTensor:
        good = round_to_nearest(weight, statistics, grid, search)
        calls.append(weight.shape)
        if len(calls) == 2:  # k of the first layer
            return QuantizedTensor.of(grid, good.codes ^ 8, good.parameters)
        if len(calls) == 3:
            broken = Parameters(good.scales * np.float16(np.nan), good.zero_points)
            return QuantizedTensor.of(grid, good.codes, broken)
        if len(calls) == 4:
            raise np.linalg.LinAlgError("not positive definite")
        return good

    use(Method("odd", solver, search, needs=frozenset({"text"})))
    source = open_source(tiny())
    made = quantize(source, Recipe("m"), tmp_path / "q", tokens=ids)
    said = {n: t.report.fallback for n, t in made.manifest.tensors.items() if t.report and t.report.fallback}
    assert said["layers.0.k"].startswith("odd was worse (0.") or "odd was worse" in said["layers.0.k"]
    assert said["layers.0.v"].startswith("odd was worse (inf > 0.0")
    assert said["layers.0.o"] == "odd failed (not positive definite)"
    assert len(said) == 3
    use(Method("nearest", round_to_nearest, search, needs=frozenset({"text"})))
    plain = quantize(source, Recipe("m"), tmp_path / "plain", tokens=ids)
    for name in said:
        ours, theirs = made.load(name), plain.load(name)
        assert isinstance(ours, QuantizedTensor) and isinstance(theirs, QuantizedTensor)
        assert np.array_equal(ours.codes, theirs.codes)


def test_a_refinement_is_kept_only_where_the_block_gets_better(tiny: Make, tmp_path: Path, ids: Ids, use: Any) -> None:
    def coarse(weight: Floats, statistics: Any, grid: Grid, search: Any) -> QuantizedTensor:
        return round_to_nearest(weight, statistics, grid, search)

    def refine(block: Block) -> None:
        assert block.targets is not None and block.batches is not None
        assert sum(t.numel() for t in block.targets()) == ids.size * 64
        for name, q in block.quantized.items():
            if block.index == 1:  # makes it worse
                block.quantized[name] = QuantizedTensor.of(q.grid, q.codes ^ 1, q.parameters)
            elif block.index == 0:  # makes it better
                weight = block.current[name].numpy()
                block.quantized[name] = round_to_nearest(weight, None, q.grid, search)

    def bad_search(weight: Floats, importance: Floats | None, grid: Grid) -> Parameters:
        good = search(weight, None, grid)
        return Parameters((good.scales * np.float16(1.25)).astype(np.float16), good.zero_points)

    use(Method("tuned", coarse, bad_search, refine=refine, needs=frozenset({"text", "float_stream"})))
    source = open_source(tiny())
    made = quantize(source, Recipe("m"), tmp_path / "q", tokens=ids)
    use(Method("coarse", coarse, bad_search, needs=frozenset({"text"})))
    plain = quantize(source, Recipe("m"), tmp_path / "plain", tokens=ids)
    told = read_report(made.path)
    assert told is not None
    first, second, third = (told.blocks[f"layer-000{i}.safetensors"] for i in range(3))
    assert first["after"] < first["before"] and second["after"] > second["before"] and third["after"] == third["before"]
    for name, stored in made.manifest.tensors.items():
        if stored.report is None:
            continue
        same = np.array_equal(made.load(name).codes, plain.load(name).codes)  # type: ignore[union-attr]
        assert same == (".0." not in name)
        worse = stored.report.fallback is not None and "the refinement of tuned was worse" in stored.report.fallback
        assert worse == (".1." in name)


def test_transforms_fold_into_what_is_stored(tiny: Make, tmp_path: Path, ids: Ids, use: Any) -> None:
    grams = []

    def halve(block: Block) -> None:
        """The MLP's norm gives half, its readers take twice; statistics follow."""
        assert block.statistics_of is not None
        group = block.groups[2]
        before = block.statistics_of(group).gram.clone()
        assert block.statistics_of(group).gram.data_ptr() == block.statistics_of(group).gram.data_ptr()
        norm = f"layers.{block.index}.mlp_norm"
        block.current[norm] /= 2  # in place: the original must not follow
        for name in group:
            block.current[name] = block.current[name] * 2
        after = block.statistics_of(group).gram
        assert torch.allclose(after * 4, before, rtol=1e-4)
        assert torch.equal(block.original[norm], torch.from_numpy(source.load(norm)))
        grams.append(after)

    solver = Recorder()
    use(Method("halved", solver, plain_search, transforms=(halve,), needs=frozenset({"text"})))
    source = open_source(tiny())
    made = quantize(source, Recipe("m", bits=8), tmp_path / "q", tokens=ids)
    assert len(grams) == 3
    for i in range(3):
        norm, up = f"layers.{i}.mlp_norm", f"layers.{i}.up"
        assert np.array_equal(made.load(norm), source.load(norm) / 2)
        stored = made.load(up)
        assert isinstance(stored, QuantizedTensor)
        assert np.abs(stored.dequantize() - 2 * source.load(up)).max() < 0.01
        assert made.manifest.tensors[up].error == pytest.approx(0.005, abs=0.003)


def test_tokens_can_be_weighed(tiny: Make, tmp_path: Path, ids: Ids, use: Any) -> None:
    solver = Recorder()
    needs: Any = frozenset({"text"})
    use(Method("weighed", solver, plain_search, needs=needs, weigh=lambda x: 1 / x.square().sum(1)))
    source = open_source(tiny())
    made = quantize(source, Recipe("m"), tmp_path / "q", tokens=ids)
    x = Reference(source, made, ids).inputs(0, 0)[("q", "k", "v")]
    w = 1 / x.square().sum(1)
    expected = (x * w[:, None]).T @ x / w.sum()
    assert torch.allclose(solver.seen[0][1].gram.double(), expected, rtol=1e-3, atol=1e-5)


def test_half_precision_layers_and_single_overrides(tiny: Make, tmp_path: Path, ids: Ids) -> None:
    source = open_source(tiny())
    made = quantize(source, Recipe("m", method="gptq", bits=16, embed_bits=8), tmp_path / "q", tokens=ids)
    assert np.array_equal(made.load("layers.2.up"), source.load("layers.2.up").astype(np.float16).astype(np.float32))
    assert all(t.report is None for t in made.manifest.tensors.values())


def test_memory_is_a_block_s(tiny: Make, tmp_path: Path, ids: Ids) -> None:
    """No more than two blocks' worth of torch's memory is alive whenever a tensor is read, however deep the model."""
    source = open_source(tiny(num_hidden_layers=6, hidden_size=128, intermediate_size=512))
    block_bytes = 4 * sum(t.numel for t in source._tensors.values() if t.layer == 0)
    peaks: list[int] = []
    load = source.load

    def counting(name: str) -> Any:
        alive = {o.data_ptr(): o.untyped_storage().nbytes() for o in gc.get_objects() if type(o) is torch.Tensor}
        peaks.append(sum(alive.values()))
        return load(name)

    gc.collect()
    base = sum({o.data_ptr(): o.nbytes for o in gc.get_objects() if type(o) is torch.Tensor}.values())
    source.load = counting  # type: ignore[method-assign]
    quantize(source, Recipe("m", method="gptq"), tmp_path / "q", tokens=ids[:, :16])
    assert max(peaks) - base < 2 * block_bytes


def test_what_can_t_run_is_refused_before_anything_is_written(tiny: Make, tmp_path: Path, ids: Ids) -> None:
    source = open_source(tiny())
    with pytest.raises(EdgeqError, match=r"tokens must lie in 0\.\.79"):
        quantize(source, Recipe("m", method="gptq"), tmp_path / "q", tokens=ids + 1)
    with pytest.raises(EdgeqError, match="no calibration text"):
        quantize(source, Recipe("m", method="gptq"), tmp_path / "q", tokens=ids[:0])
    assert [p.name for p in tmp_path.iterdir()] == ["tiny"]


def test_experts_stream_without_text(tiny: Make, tmp_path: Path) -> None:
    dense = open_source(tiny())
    experts = tuple(Layer(layer.mixer, MoE(4, 2, 32)) for layer in dense.spec.layers)
    source = InMemory(replace(dense.spec, layers=experts))
    made = quantize(source, Recipe("m"), tmp_path / "q")
    stored = made.load("layers.1.experts_down")
    assert isinstance(stored, QuantizedTensor) and stored.shape == (4 * 64, 32)
    expected = round_to_nearest(source.load("layers.1.experts_down").reshape(256, 32), None, int_grid(4, 32), search)
    assert np.array_equal(stored.codes, expected.codes)
