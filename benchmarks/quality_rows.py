"""The rows of the quality benchmark: whose method, with which options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from quality_run import Bench

from edgeq.estimate.gguf_header import file_bytes
from edgeq.model.read import read_model

TYPES = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_1", "Q4_0", "IQ4_XS", "Q3_K_M", "Q2_K")
IMATRIX_CHUNKS = 64
EFFORTS = {50: "autoround-light", 200: "autoround", 1000: "autoround-best"}  # edgeq's names, by iterations
LIGHT_RATE = 5e-3  # of auto-round's own recipe for 50 iterations
LLAMA, MATMUL = "llama.cpp", "MatMulNBits"
ANY = f"{MATMUL}, OpenVINO"

Options = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        runs_on: the runtimes that execute its grid.
        bars: names of the comparisons it is a candidate for (quality_bars).
    """

    who: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    runs_on: str = ""
    bars: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.who} {self.method}"

    def matches(self, pattern: str) -> bool:
        """A pattern with * or ? is of the whole label, another of a part; `,` separates several."""
        return any(
            fnmatch(self.label, p) if set(p) & set("*?") else p.lower() in self.label.lower()
            for p in pattern.split(",")
        )


def rows(bench: Bench) -> list[Row]:
    return [
        *_llama_cpp(),
        *_references(bench),
        *_genai(),
        *_integers(bench),
        *_pairs(bench),
        *_block_types(bench),
        *_others(bench),
    ]


def _llama_cpp() -> Iterator[Row]:
    for kind in TYPES:
        yield Row("llama.cpp", kind, {"type": kind, "imatrix_chunks": IMATRIX_CHUNKS}, LLAMA)


def _references(bench: Bench) -> Iterator[Row]:
    """Peers whose methods ours must equal; they keep the embedding in 16 bits."""
    samples = {"samples": bench.samples, "seqlen": bench.seqlen}
    for size in (32, 64):
        grid: Options = {"bits": 4, "group_size": size, "symmetric": False, **samples}
        tuned: Options = {
            "iters": bench.iters,
            "lr": LIGHT_RATE if bench.iters == 50 else None,
            "batch_size": 8,
            "seed": 42,
        }
        tuned |= {"samples": bench.tuning_samples, "seqlen": bench.tuning_seqlen}
        yield Row("auto-round", f"int4 g{size} {bench.iters} it", grid | tuned, MATMUL)
        for method in ("gptq", "awq"):
            yield Row("llm-compressor", f"{method} int4 g{size}", {"method": method, **grid}, MATMUL)
    for activations in ("dynamic", "static"):
        grid = {"method": "smoothquant", "bits": 8, "symmetric": True, "activations": activations, **samples}
        yield Row("llm-compressor", f"smoothquant w8a8 {activations}", grid)


def _genai() -> Iterator[Row]:
    for size in (32, 64):
        extra = {"int4_accuracy_level": 4, "int4_block_size": size}
        yield Row("onnxruntime-genai", f"int4 g{size}", {"extra": extra}, MATMUL)


def _integers(bench: Bench) -> Iterator[Row]:
    """Integer zero points, the embedding at 8 bits: what MatMulNBits and OpenVINO execute."""
    for size in (32, 64):
        grid: Options = {"bits": 4, "group_size": size}
        for method in ("rtn", "hqq"):
            yield Row("edgeq", f"{method} int4 g{size}", {"method": method, **grid}, ANY, (f"int4-g{size}",))
        for method in ("gptq", "awq+gptq", "awq+qronos"):
            options = {"method": method, **grid, **_text(bench)}
            yield Row("edgeq", f"{method} int4 g{size}", options, ANY, (f"int4-g{size}",))
        tuner = f"awq+{_tuner(bench)}"
        options = {"method": tuner, **grid, **_tuning_text(bench)}
        yield Row("edgeq", f"{tuner} int4 g{size}", options, ANY, (f"int4-g{size}",))


def _pairs(bench: Bench) -> Iterator[Row]:
    """What the references are held against: their method, grid and samples, the embedding in 16 bits."""
    for size in (32, 64):
        grid: Options = {"bits": 4, "group_size": size, "embed_bits": 16}
        for method, learns in (
            ("gptq", _text(bench)),
            ("awq", _text(bench)),
            (_tuner(bench), _tuning_text(bench)),
        ):
            bars = (f"{method.partition('-')[0]}-g{size}",)
            label = f"{method} int4 g{size} (16-bit embedding)"
            yield Row("edgeq", label, {"method": method, **grid, **learns}, MATMUL, bars)


def _block_types(bench: Bench) -> Iterator[Row]:
    """llama.cpp's file types, mixed as it mixes them, and grids beside them with the embedding in Q8_0."""
    for kind in ("Q4_1", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K"):
        for method in ("gptq", "qronos"):
            options = {"method": method, "grid": f"gguf-{kind.lower()}", **_text(bench)}
            yield Row("edgeq", f"{method} {kind}", options, LLAMA)
    spec = read_model(str(bench.model))
    for kind in ("Q4_K_M", "Q4_1", "Q3_K_M", "IQ4_XS", "Q2_K"):
        budget = f"{file_bytes(spec, kind, True) // 10_000 / 100}MB"
        options = {"method": "mixed+gptq", "target": "gguf", "grid": "q4_1", "embed_grid": "q4_1", "budget": budget}
        yield Row("edgeq", f"mixed+gptq of {kind}'s bytes", options | _text(bench), LLAMA)
    common = {"embed_grid": "q8_0", **_text(bench)}
    yield Row("edgeq", "gptq IQ4_NL", {"method": "gptq", "grid": "iq4_nl", **common}, LLAMA)
    for bits, size in ((4, 64), (3, 32), (2, 32)):
        options = {"method": "gptq", "grid": "affine", "bits": bits, "group_size": size, **common}
        yield Row("edgeq", f"gptq affine{bits} g{size}", options)


def _others(bench: Bench) -> Iterator[Row]:
    for activations in ("dynamic", "static"):
        options: Options = {"method": "smoothquant", "bits": 8, "group_size": -1, "symmetric": True}
        options |= {"activations": activations, **_text(bench)}
        yield Row("edgeq", f"smoothquant w8a8 {activations}", options, "", (f"w8a8-{activations}",))
    yield Row("edgeq", "nf4 g64", {"method": "nf4", "grid": "nf4", "group_size": 64})
    uniform: Options = {"bits": 4, "group_size": 64, "symmetric": True, "embed_bits": 4, "embed_group_size": 64}
    uniform |= {"embed_symmetric": True, "method": "gptq", **_text(bench)}
    yield Row("edgeq", "gptq int4 g64 all over (4.25 bpw)", uniform, MATMUL, ("uniform",))
    for method in ("mixed+gptq", "omq+gptq"):
        options = {"method": method, "budget": "4.25", "group_size": 64, "embed_group_size": 64, **_text(bench)}
        yield Row("edgeq", f"{method} 4.25 bpw", options, MATMUL, ("mixed",))


def _text(bench: Bench) -> Options:
    tokens = bench.samples * bench.seqlen
    return {"calibration": "text", "calibration_tokens": tokens, "calibration_length": bench.seqlen, "seed": bench.seed}


def _tuning_text(bench: Bench) -> Options:
    tokens = bench.tuning_samples * bench.tuning_seqlen
    return _text(bench) | {"calibration_tokens": tokens, "calibration_length": bench.tuning_seqlen}


def _tuner(bench: Bench) -> str:
    return EFFORTS.get(bench.iters, "autoround")
