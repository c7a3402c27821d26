"""What runs where. Every way to quantize and every family goes through every exporter; no cell is left out.

Every file is read back tensor by tensor; a cell that edgeq has a runtime for is opened too, and must compute what the
checkpoint says; one that can't be must be refused with a reason. The outcome is `docs/support.md`, which these tests
hold to what happens: `EDGEQ_WRITE_SUPPORT=1 pytest tests/conformance` writes it anew.
"""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.artifact import Artifact
from edgeq.checkpoint.weights import Weights
from edgeq.decoder.torch_model import TorchModel
from edgeq.errors import EdgeqError
from edgeq.exporters.folder import rounded_inputs
from edgeq.measure.divergence import DivergenceMeter
from edgeq.measure.verify import FLOAT_LIMITS, INT8_LIMITS, activation_path
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe, with_presets
from edgeq.registry import exporter, names, runtime

GGUF_TESTS = runpy.run_path(str(Path(__file__).parents[1] / "exporters" / "gguf" / "conftest.py"))
FAMILIES: dict[str, Any] = GGUF_TESTS["FAMILIES"]
SUPPORT = Path(__file__).parents[2] / "docs" / "support.md"
IDS = np.random.default_rng(5).integers(3, 400, 24).tolist()
ANSWER = 8  # tokens of a greedy continuation
HALF = 1e-3  # of the logits' range: two tokens so near are one to float16, which has 11 bits

# column -> exporter, the options that make it compute in floats where it can
COLUMNS: dict[str, tuple[str, dict[str, Any]]] = {
    "ONNX Runtime": ("onnx", {"accuracy_level": 0}),
    "ONNX, standard operators": ("onnx", {"accuracy_level": 0, "dialect": "standard"}),
    "ONNX, float16": ("onnx", {"accuracy_level": 0, "dtype": "float16"}),
    "OpenVINO": ("openvino", {"dynamic_quantization": 0, "kv_dtype": "f32"}),
    "llama.cpp": ("gguf", {}),
    "compressed-tensors": ("compressed-tensors", {}),
    "GPTQ": ("gptq", {}),
    "AWQ": ("awq", {}),
}
SYMMETRIC = {"symmetric": True, "embed_symmetric": True}  # which every format holds
# row -> recipe; group sizes that the tiny models' rows of 256 hold
RECIPES: dict[str, dict[str, Any]] = {
    "unquantized": {},
    "rtn int4 g32": {"method": "rtn"},
    "rtn int4 g32 symmetric": {"method": "rtn", **SYMMETRIC},
    "rtn int4, a row": {"method": "rtn", "group_size": -1},
    "rtn int8 g32": {"method": "rtn", "bits": 8},
    "rtn int3 g32": {"method": "rtn", "bits": 3},
    "rtn int2 g32": {"method": "rtn", "bits": 2},
    "hqq int4 g64": {"method": "hqq", "group_size": 64},
    "gptq int4 g32": {"method": "gptq"},
    "qronos int4 g32": {"method": "qronos"},
    "awq+gptq int4 g32": {"method": "awq+gptq"},
    "rotate+gptq int4 g32": {"method": "rotate+gptq"},
    "autoround-light int4 g32": {"method": "autoround-light"},
    "sparsegpt-2:4 int4 g32": {"method": "sparsegpt-2:4"},
    "mixed+gptq 6 bits, for OpenVINO": {"method": "mixed+gptq", "budget": "6", "target": "openvino"},
    "smoothquant W8A8, dynamic": {"method": "smoothquant", "activations": "dynamic"},
    "smoothquant W8A8, static": {"method": "smoothquant", "activations": "static"},
    "affine int4 g32 (float minimum)": {"method": "gptq", "grid": "affine"},
    "nf4 g64": {"method": "nf4"},
    "ternary g256": {"method": "ternary"},
    "gptq Q4_0": {"method": "gptq", "grid": "q4_0"},
    "gptq Q4_1": {"method": "gptq", "grid": "q4_1"},
    "gptq Q8_0": {"method": "gptq", "grid": "q8_0"},
    "gptq IQ4_NL": {"method": "gptq", "grid": "iq4_nl"},
    "gptq Q4_K": {"method": "gptq", "grid": "q4_k"},
    "gptq Q3_K": {"method": "gptq", "grid": "q3_k"},
}


@dataclass(frozen=True, slots=True)
class Cell:
    """`mark`: float (computes in float32), half (in float16), int8 (its runtime rounds activations), stored, no."""

    mark: str
    why: str = ""
    kl: float | None = None
    wrong: tuple[str, ...] = field(default=())

    @property
    def symbol(self) -> str:
        return {"float": "✓", "half": "✓ f16", "int8": "✓ int8", "stored": "stored", "no": "–"}[self.mark]


def tried(weights: Weights, column: str, out: Path) -> Cell:
    name, options = COLUMNS[column]
    made = exporter(name)
    if rounded_inputs(weights):  # nothing computes them in floats
        options = {n: v for n, v in options.items() if n in ("dialect", "dtype")}
    try:
        artifact = made.export(weights, out, **options)
    except EdgeqError as refusal:
        assert not out.exists()
        return Cell("no", refusal.what)
    wrong = tuple(made.read_back(artifact, weights))  # type: ignore[attr-defined]
    cell = computed(artifact, weights) if artifact.runtime in names("edgeq.runtimes") else Cell("stored")
    return replace(cell, wrong=(*cell.wrong, *wrong))


def computed(artifact: Artifact, weights: Weights) -> Cell:
    """The session's logits and greedy answer beside the reference's."""
    reference, meter = TorchModel(weights), DivergenceMeter()
    path, half = activation_path(artifact), artifact.options.get("dtype") == "float16"
    with runtime(artifact.runtime).open(artifact, threads=1) as session:
        ids = IDS[: getattr(session, "context", len(IDS) + ANSWER) - ANSWER]  # LongRoPE's first part is short
        meter.add(reference.logits(ids), session.logits(ids))
        found, wrong = meter.result(), []
        behind = regret(session.logits, reference.logits, ids) if path == "float" else 0.0
    limit = FLOAT_LIMITS.mean_kl if path == "float" else INT8_LIMITS.random_kl
    if found.broken or found.mean_kl > limit:
        wrong.append(f"KL {found.mean_kl:.2g} over {limit:.2g}")
    if behind > (HALF if half else 0.0):
        wrong.append(f"another greedy answer, {behind:.2g} behind")
    return Cell("half" if half and path == "float" else path, kl=found.mean_kl, wrong=tuple(wrong))


def regret(ours: Callable[[list[int]], Any], reference: Callable[[list[int]], Any], ids: list[int]) -> float:
    """How far behind its best logit the reference puts our choice, at most over its greedy continuation and in parts of
    the logits' range; 0: the same answer."""
    made, worst = list(ids), 0.0
    for _ in range(ANSWER):
        row = reference(made)[-1]
        worst = max(worst, float(row.max() - row[int(np.argmax(ours(made)[-1]))]) / float(np.ptp(row)))
        made.append(int(np.argmax(row)))
    return worst


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[str, dict[str, Cell]]]:
    """Table -> row -> column -> cell, filled by the tests below and written down by the last."""
    return {"Ways to quantize": {}, "Families": {}}


@pytest.fixture(scope="module")
def wide(saved: Callable[..., Path]) -> Path:
    return saved("llama", hidden_size=256, intermediate_size=256, num_hidden_layers=1, tie_word_embeddings=True)


def row_of(weights: Weights, folder: Path) -> dict[str, Cell]:
    return {column: tried(weights, column, folder / column.replace(" ", "-")) for column in COLUMNS}


@pytest.mark.parametrize("name", RECIPES)
def test_a_way_to_quantize_runs_or_is_refused_with_a_reason(name, wide, outcomes, tmp_path: Path) -> None:
    fields: Mapping[str, Any] = RECIPES[name]
    source = open_source(wide)
    weights: Weights = source
    if fields:
        text = {"calibration_tokens": 1024, "calibration_length": 64}
        recipe = Recipe(**with_presets({"model": str(wide), **fields, **text}))
        tokens = np.random.default_rng(0).integers(3, 400, (16, 64))
        weights = quantize(source, recipe, tmp_path / "q", tokens=tokens)
    outcomes["Ways to quantize"][name] = check(row_of(weights, tmp_path))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_runs_or_is_refused_with_a_reason(name, saved, outcomes, tmp_path: Path) -> None:
    folder = saved(name)
    weights = quantize(open_source(folder), Recipe(str(folder), **SYMMETRIC), tmp_path / "q")
    outcomes["Families"][name] = check(row_of(weights, tmp_path))


def check(row: dict[str, Cell]) -> dict[str, Cell]:
    wrong = {column: cell.wrong for column, cell in row.items() if cell.wrong}
    assert not wrong
    assert all(cell.why for cell in row.values() if cell.mark == "no")
    return row


def test_every_exporter_has_a_column() -> None:
    assert {name for name, _ in COLUMNS.values()} == set(names("edgeq.exporters"))


def test_the_page_says_what_happened(outcomes) -> None:
    if len(outcomes["Ways to quantize"]) < len(RECIPES) or len(outcomes["Families"]) < len(FAMILIES):
        pytest.skip("needs the outcome of all the tests above")
    page = written(outcomes)
    if os.environ.get("EDGEQ_WRITE_SUPPORT"):
        SUPPORT.write_text(page, "utf-8")
    assert SUPPORT.read_text("utf-8") == page


def written(outcomes: Mapping[str, Mapping[str, Mapping[str, Cell]]]) -> str:
    lines = ["# What runs where", "", *INTRODUCTION]
    reasons: dict[str, int] = {}
    for title, rows in outcomes.items():
        lines += ["", f"## {title}", "", "| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
        for name, row in rows.items():
            cells = []
            for cell in row.values():
                note = f" [{reasons.setdefault(cell.why, len(reasons) + 1)}]" if cell.why else ""
                cells.append(cell.symbol + note)
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "## Why not", "", *(f"{n}. {why}" for why, n in reasons.items()), ""]
    return "\n".join(lines)


INTRODUCTION = (
    "Written by `tests/conformance/test_support.py`, which tries every cell on tiny random models: ✓ the runtime's",
    "logits are the checkpoint's (mean KL divergence below 1e-4) and so is its greedy answer; ✓ int8 likewise within",
    "what its 8-bit activations cost; ✓ f16 in float16: the same KL, and the same greedy answer but where two tokens",
    "are within a thousandth of the logits' range; stored: edgeq has no runtime for it; – it is refused, for the",
    "reason below. Every file, read back, holds the checkpoint's numbers bit for bit (in float16 the nearest ones).",
)
