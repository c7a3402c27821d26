"""The rows of the quality benchmark: whose method, with which options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from quality_run import Bench

TYPES = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_1", "Q4_0", "IQ4_XS", "Q3_K_M", "Q2_K")
IMATRIX_CHUNKS = 64
LLAMA, MATMUL = "llama.cpp", "MatMulNBits"
ANY = f"{MATMUL}, OpenVINO"


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
    return [*_llama_cpp(), *_references(bench), *_genai(), *_edgeq(bench)]


def _llama_cpp() -> Iterator[Row]:
    for kind in TYPES:
        yield Row("llama.cpp", kind, {"type": kind, "imatrix_chunks": IMATRIX_CHUNKS}, LLAMA)


def _references(bench: Bench) -> Iterator[Row]:
    """Peers whose methods ours must equal; they keep the embedding in 16 bits."""
    samples = {"samples": bench.samples, "seqlen": bench.seqlen}
    for size in (32, 64):
        grid = {"bits": 4, "group_size": size, "symmetric": False, **samples}
        tuned = {"iters": bench.iters, "batch_size": 8, "seed": 42}
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


def _edgeq(bench: Bench) -> Iterator[Row]:
    text = {"calibration": "text", "calibration_tokens": bench.samples * bench.seqlen}
    text |= {"calibration_length": bench.seqlen, "seed": bench.seed}
    float_embed = {"embed_bits": 16}
    q8 = {"embed_grid": "q8_0"}
    for size in (32, 64):
        grid: dict[str, Any] = {"bits": 4, "group_size": size}
        bar = (f"int4-g{size}",)
        yield Row("edgeq", f"rtn int4 g{size}", {"method": "rtn", **grid}, ANY, bar)
        yield Row("edgeq", f"hqq int4 g{size}", {"method": "hqq", **grid}, ANY, bar)
        for method in ("awq+gptq", "awq+qronos", "autoround", "awq+autoround"):
            yield Row("edgeq", f"{method} int4 g{size}", {"method": method, **grid, **text}, ANY, bar)
        for method in ("autoround", "gptq", "awq"):
            label = f"{method} int4 g{size}, float embedding"
            yield Row("edgeq", label, {"method": method, **grid, **float_embed, **text}, MATMUL, (f"{method}-g{size}",))
        for method in ("gptq", "qronos"):
            name = "Q4_1's form" if size == 32 else "affine"
            runs_on = LLAMA if size == 32 else ""
            options = {"method": method, "grid": "affine", **grid, **q8, **text}
            yield Row("edgeq", f"{method} affine4 g{size} ({name})", options, runs_on)
    for grid_name in ("q4_0", "iq4_nl", "iq4_xs", "q4_k", "q3_k", "q2_k"):
        options = {"method": "gptq", "grid": grid_name, **q8, **text}
        yield Row("edgeq", f"gptq {grid_name}", options, LLAMA)
    for bits in (3, 2):
        options = {"method": "gptq", "grid": "affine", "bits": bits, "group_size": 32, **q8, **text}
        yield Row("edgeq", f"gptq affine{bits} g32", options)
    for activations in ("dynamic", "static"):
        options = {"method": "smoothquant", "bits": 8, "group_size": -1, "symmetric": True}
        options |= {"activations": activations, **text}
        yield Row("edgeq", f"smoothquant w8a8 {activations}", options, "", (f"w8a8-{activations}",))
    yield Row("edgeq", "nf4 g64", {"method": "rtn", "grid": "nf4", "group_size": 64})
    yield Row("edgeq", "mixed 4.25 bpw", {"method": "mixed", "budget": "4.25", **text}, MATMUL, ("mixed",))
    yield Row("edgeq", "omq 4.25 bpw", {"method": "omq", "budget": "4.25", **text}, MATMUL)
