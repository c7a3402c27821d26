"""Methods with text on mixtures of experts: what each expert sees, what is stored and told, what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from edgeq.checkpoint.store import Checkpoint
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.decoder.decoder import Stream, block, embedding, settled
from edgeq.decoder.torch_model import TorchModel
from edgeq.decoder.torch_ops import TorchOps
from edgeq.errors import EdgeqError
from edgeq.model.spec import Attention, Layer, ModelSpec, MoE, Rope
from edgeq.model.tensors import tensors
from edgeq.quantize import engine
from edgeq.quantize.engine import quantize
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.report import RunReport, read_report
from edgeq.quantize.solvers.rtn import round_to_nearest
from edgeq.quantize.statistics import InputStatistics
from edgeq.recipe import Recipe

Ids = npt.NDArray[np.int64]
Contents = Callable[[Path], dict[str, bytes]]
ATTENTION = Attention(4, 2, 16, 0.25, Rope(10000.0, 16))
MIXTURES = {
    "mixtral": MoE(4, 2, 32),
    "qwen2_moe": MoE(4, 2, 32, shared_intermediate=64, shared_gate=True, routing="all"),
    "gpt_oss": MoE(4, 2, 32, router_bias=True, expert_bias=True, limit=1.0),
}


class Held:
    """Random weights in memory."""

    def __init__(self, kind: str = "mixtral") -> None:
        layer = Layer(replace(ATTENTION, sinks=kind == "gpt_oss"), MIXTURES[kind])
        self.spec = ModelSpec("tiny", kind, 64, 80, (layer, layer), False, 128, bos_id=1, eos_ids=(2,))
        rng, self.values = np.random.default_rng(0), {}
        for t in tensors(self.spec):
            values = rng.standard_normal(t.shape) * (1 if t.role == "router" else 0.15) + (t.role == "norm")
            self.values[t.name] = values.astype(np.float32)

    def names(self) -> Sequence[str]:
        return tuple(self.values)

    def load(self, name: str) -> npt.NDArray[np.float32]:
        return self.values[name]

    def tokenizer_files(self) -> dict[str, Path | bytes]:
        return {}


class Recorder:
    """A solver that rounds to nearest and remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[npt.NDArray[np.float32], InputStatistics]] = []

    def __call__(self, weight: Any, statistics: Any, grid: Any, search: Any) -> QuantizedTensor:
        cross = None if statistics.cross is None else statistics.cross.clone()
        self.seen.append((weight.copy(), replace(statistics, gram=statistics.gram.clone(), cross=cross)))
        return round_to_nearest(weight, None, grid, search)


class Watched(TorchOps):
    """The model as it is stored, its experts' inputs remembered."""

    def __init__(self, weights: Any) -> None:
        super().__init__(weights)
        self.read: dict[tuple[str, int], torch.Tensor] = {}

    def expert_linear(self, x: torch.Tensor, names: tuple[str, ...], e: int, spec: MoE) -> torch.Tensor:
        self.read[names[0], e] = x
        return super().expert_linear(x, names, e, spec)


def run(source: Held, out: Path, ids: Ids, method: str = "gptq", **fields: Any) -> Checkpoint:
    return quantize(source, Recipe("m", method=method, bits=3, **fields), out, tokens=ids)


def told(made: Checkpoint) -> RunReport:
    report = read_report(made.path)
    assert report is not None
    return report


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("kind", MIXTURES)
def test_an_expert_sees_the_tokens_that_chose_it(
    kind: str, cross: bool, tmp_path: Path, ids: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, source = Recorder(), Held(kind)
    needs = frozenset({"text", "float_stream", "cross"} if cross else {"text"})
    method = Method("recorder", recorder, lambda w, i, g: engine_search(w, g), needs=needs)  # type: ignore[arg-type]
    monkeypatch.setattr(engine, "find_method", lambda name: method)
    made = run(source, tmp_path / "q", ids)
    # The last layer's router and attention read what is stored; so do its experts' down matrices.
    stored = Watched(made)
    stream = embedding(stored, source.spec, torch.from_numpy(ids))
    for i in range(2):
        stream = Stream(settled(stored, block(stored, source.spec, i, stream)))
    for e in range(4):
        for role in ("gate", "up", "down"):
            weight = source.values[f"layers.1.experts_{role}"][e]
            (statistics,) = [s for w, s in recorder.seen if np.array_equal(w, weight)]
            x = stored.read[f"layers.1.experts_{'down' if role == 'down' else 'gate'}", e]
            assert statistics.tokens == len(x)
            torch.testing.assert_close(statistics.gram, x.T @ x / len(x), rtol=1e-3, atol=1e-4)
            assert (statistics.cross is not None) == cross


def engine_search(weight: Any, grid: Any) -> Any:
    from edgeq.quantize.grids.uniform import search

    return search(weight, None, grid)


@pytest.mark.parametrize("method", ["gptq", "awq", "awq+gptq", "qronos", "autoround-light", "sparsegpt"])
@pytest.mark.parametrize("kind", ["qwen2_moe", "gpt_oss"])
def test_methods_with_text_lower_the_error_of_the_logits(kind: str, method: str, tmp_path: Path, ids: Ids) -> None:
    if kind == "gpt_oss" and method in ("autoround-light", "awq+gptq"):
        pytest.skip("seen on the other mixture")
    source, text = Held(kind), ids[:12]
    fields: dict[str, Any] = {"group_size": 32}
    made = run(source, tmp_path / "q", text, method, **fields)
    baseline = "sparsegpt" if method == "sparsegpt" else "rtn"
    if baseline == "sparsegpt":  # half of the weights are gone: it only has to be finite and told of
        assert np.isfinite(TorchModel(made).logits(text[0].tolist())).all()
        return
    plain = run(source, tmp_path / "rtn", text, baseline, **fields)
    reference = TorchModel(source)
    errors = []
    for weights in (made, plain):
        model = TorchModel(weights)
        off = [np.square(model.logits(s) - reference.logits(s)).mean() for s in text[:6].tolist()]
        errors.append(float(np.mean(off)))
    assert errors[0] < errors[1]


def test_every_expert_is_in_the_report_with_its_tokens(tmp_path: Path, ids: Ids) -> None:
    made = run(Held(), tmp_path / "q", ids)
    layers = {layer.name: layer for layer in told(made).layers}
    for i in range(2):
        for role in ("gate", "up", "down"):
            name = f"layers.{i}.experts_{role}"
            each = [layers[f"{name}.{e}"] for e in range(4)]
            assert sum(layer.tokens or 0 for layer in each) == layers[name].tokens == 2 * ids.size
            for layer in each:
                assert layer.error is not None and layer.error_after is not None and layer.error_before is not None
                assert layer.error_after <= layer.error_before and layer.seconds is not None
            assert min(layer.error_after or 0.0 for layer in each) <= (layers[name].error_after or 0.0)
            assert layers[name].error == made.manifest.tensors[name].error
    assert layers["layers.0.q"].tokens is None


def test_an_expert_that_no_token_chose_is_named(tmp_path: Path, ids: Ids, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeq.quantize.run_block import BlockRunner

    chosen = BlockRunner.routed
    # Whoever chose the last expert is taken to have chosen the first.
    monkeypatch.setattr(
        BlockRunner, "routed", lambda self, t, x: chosen(self, t, x).masked_fill(chosen(self, t, x) == 3, 0)
    )
    made = run(Held(), tmp_path / "q", ids)
    layers = {layer.name: layer for layer in told(made).layers}
    for role in ("gate", "up", "down"):
        layer = layers[f"layers.1.experts_{role}.3"]
        assert layer.tokens == 0 and (layer.fallback or "").startswith("only 0 tokens reached it")
        assert layer.error_after is not None and layer.error_after <= (layer.error_before or 0.0)
        assert layers[f"layers.1.experts_{role}"].fallback == "1 of 4 experts fell back, see the report"


AT = ("layers.0.q", "layers.0.experts_gate.2", "layers.1.experts_down.3", "head")


@pytest.mark.parametrize("method", ["gptq", "qronos"])
def test_an_interrupted_run_ends_in_the_same_bytes(method: str, tmp_path: Path, ids: Ids, contents: Contents) -> None:
    source = Held("qwen2_moe")
    recipe = Recipe("m", method=method, bits=3)
    whole = contents(quantize(source, recipe, tmp_path / "whole", tokens=ids[:10]).path)

    class StopError(Exception):
        pass

    for at in AT if method == "gptq" else AT[2:3]:

        def stop(done: int, total: int, what: str, at: str = at) -> None:
            if what == at:
                raise StopError

        with pytest.raises(StopError):
            quantize(source, recipe, tmp_path / at, tokens=ids[:10], progress=stop)
        assert not (tmp_path / at).exists()
        for states in (tmp_path / f"{at}.partial").glob("hidden-*.npy"):  # made again from the shards
            if at == AT[2]:
                states.unlink()
        assert contents(quantize(source, recipe, tmp_path / at, tokens=ids[:10]).path) == whole


@pytest.mark.parametrize(
    ("method", "fields", "why"),
    [
        ("mixed", {}, "sensitivity"),
        ("smoothquant", {"activations": "dynamic"}, "smooths"),
        ("gptq", {"activations": "static"}, "static grid"),
        ("rotate+gptq", {}, "rotations"),
    ],
)
def test_what_is_refused_says_why(method: str, fields: dict[str, Any], why: str, tmp_path: Path, ids: Ids) -> None:
    with pytest.raises(EdgeqError, match=why):
        run(Held(), tmp_path / "q", ids, method, **fields)
    assert not (tmp_path / "q").exists()
