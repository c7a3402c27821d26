"""How each row's model is made and measured: llama.cpp, AutoRound, llm-compressor, onnxruntime-genai, edgeq.

A maker gets the bench and the row's options and returns the row's figures: `file_bytes` (all that is needed to run but
a tokenizer in a file of its own), `weight_bytes` (tensors alone: a GGUF file carries its vocabulary), `seconds` (whole
processes, calibration included), `peak_bytes`, the harness's score, and `own`: what the peer's own program measures.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quality_run import HERE, Bench, Spent, spend

Figures = dict[str, Any]
Options = dict[str, Any]
PERPLEXITY_LINES = {  # of llama-perplexity --kl-divergence
    "mean_kl": r"Mean\s+KLD:\s+([-\d.]+)",
    "p99_kl": r"99\.0%\s+KLD:\s+([-\d.]+)",
    "top1": r"Same top p:\s+([-\d.]+)",
    "perplexity": r"Mean PPL\(Q\)\s*:\s+([-\d.]+)",
}


def llama_cpp(bench: Bench, options: Options) -> Figures:
    """A type of llama-quantize with an importance matrix, which is made once for all types."""
    bins, kind = bench.tool("llamacpp"), options["type"]
    source, importance = _f32_gguf(bench), _imatrix(bench, bins, options["imatrix_chunks"])
    base = _base(bench, bins, source)
    out = bench.work / f"{kind}.gguf"
    took = _timed(importance)
    made = spend(
        [bins / "llama-quantize", "--imatrix", importance, source, out, kind, str(bench.threads)], bench.threads
    )
    try:
        judged = spend([*_perplexity(bench, bins, out), "--kl-divergence-base", base, "--kl-divergence"], bench.threads)
        from edgeq.model.gguf_file import GgufFile

        file = GgufFile.open(out)
        return {
            "file_bytes": out.stat().st_size,
            "weight_bytes": out.stat().st_size - file.data_offset,
            "seconds": took["seconds"] + made.seconds,
            "cpu_seconds": took["cpu_seconds"] + made.cpu_seconds,
            "calibration_seconds": took["seconds"],
            "peak_bytes": max(made.peak_bytes, took["peak_bytes"]),
            "own": own_figures(judged.output + judged.errors),
            **bench.score("weights", out),
        }
    finally:
        _drop(bench, out)


def own_figures(printed: str) -> Figures:
    """Mean and p99 KLD, top-1 (0..1) and perplexity from what llama-perplexity prints.

    Raises:
        RuntimeError: they are not there.
    """
    found = {name: re.search(line, printed) for name, line in PERPLEXITY_LINES.items()}
    if not all(found.values()):
        raise RuntimeError("llama-perplexity printed no KL divergence")
    figures = {name: float(match[1]) for name, match in found.items() if match}
    return figures | {"top1": figures["top1"] / 100}


def auto_round(bench: Bench, options: Options) -> Figures:
    """The `auto-round` package at the samples and iterations that edgeq's method gets."""
    out = bench.work / "auto-round"
    request = options | {"out": str(out), "ids": str(bench.ids(bench.calib, options["samples"], options["seqlen"]))}
    made = _in_venv(bench, "autoround", request)
    return _rounded(bench, options, made, out)


def llm_compressor(bench: Bench, options: Options) -> Figures:
    """GPTQ and AWQ of `llm-compressor`; its SmoothQuant is scored by the logits it computes itself."""
    smooth = options["method"] == "smoothquant"
    out = bench.work / ("llm-compressor.npy" if smooth else "llm-compressor")
    request = options | {"out": str(out), "ids": str(bench.ids(bench.calib, options["samples"], options["seqlen"]))}
    request["text_ids"] = str(bench.ids(bench.text, bench.chunks, bench.length))
    made = _in_venv(bench, "llmcompressor", request)
    return _rounded(bench, options, made, out, engine="logits" if smooth else "weights")


def genai(bench: Bench, options: Options) -> Figures:
    """onnxruntime-genai's builder. The harness runs its weights in float32; `own` is onnxruntime on the export."""
    out, floats = bench.work / "genai", bench.work / "genai-floats"
    wanted = [f"{name}={value}" for name, value in options["extra"].items()]
    command: list[str | Path] = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", bench.model, "-o", out]
    command += ["-p", "int4", "-e", "cpu", "-c", bench.work / "genai-cache", "--extra_options", *wanted]
    made = spend(command, bench.threads)
    try:
        size = sum(f.stat().st_size for f in out.glob("model.onnx*"))
        spend([sys.executable, HERE / "quality_genai.py", out, bench.model, floats], bench.threads)
        scored = bench.score("weights", floats)
        tables = _rope_tables(out)
        return {
            "file_bytes": size,
            "weight_bytes": size - tables,
            "seconds": made.seconds,
            "cpu_seconds": made.cpu_seconds,
            "peak_bytes": made.peak_bytes,
            "own": bench.score("onnx", out),
            **scored,
        }
    finally:
        _drop(bench, out, floats)


def edgeq(bench: Bench, options: Options) -> Figures:
    """`edgeq quantize --recipe` in a process of its own; the recipe calibrates on the same text as the peers."""
    out, file = bench.work / "edgeq-checkpoint", bench.work / "recipe.toml"
    fields = {"model": str(bench.model), **options}
    if fields.get("calibration") == "text":
        fields["calibration"] = str(bench.calib)
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items()))
    made = spend([sys.executable, "-m", "edgeq", "quantize", "--recipe", file, "-o", out, "--force"], bench.threads)
    try:
        from edgeq.checkpoint.store import Checkpoint

        checkpoint = Checkpoint.open(out)
        return {
            "file_bytes": checkpoint.total_bytes - sum(_size(f) for f in checkpoint.tokenizer_files().values()),
            "weight_bytes": gguf_bytes(checkpoint) or checkpoint.weight_bytes,
            "seconds": made.seconds,
            "cpu_seconds": made.cpu_seconds,
            "peak_bytes": made.peak_bytes,
            **bench.score("weights", out),
        }
    finally:
        _drop(bench, out)


def gguf_bytes(checkpoint: Any) -> int | None:
    """What the tensors take as llama.cpp's blocks, vectors as float32; None where a grid is no block type."""
    from edgeq.model.ggml import GGML_TYPES

    blocks, total = {t.name: t for t in GGML_TYPES.values()}, 0
    for entry in checkpoint.manifest.tensors.values():
        numel, kind = math.prod(entry.shape), entry.grid.ggml_type
        if entry.grid.kind == "float":
            total += numel * (4 if len(entry.shape) == 1 else entry.grid.bits // 8)
        elif kind is None:
            return None
        else:
            total += numel // blocks[kind].elements * blocks[kind].block_bytes
    return total


MAKERS: dict[str, Callable[[Bench, Options], Figures]] = {
    "llama.cpp": llama_cpp,
    "auto-round": auto_round,
    "llm-compressor": llm_compressor,
    "onnxruntime-genai": genai,
    "edgeq": edgeq,
}


def packed_bytes(bench: Bench, options: Options) -> int:
    """What the usual packed formats (AutoGPTQ's and compressed-tensors') take: codes of `bits`, a float16 scale a
    group and an integer zero point of `bits` where asymmetric; all else 16 bits."""
    from edgeq.model.read import read_model
    from edgeq.model.tensors import tensors

    total = 0.0
    for t in tensors(read_model(str(bench.model))):
        if not t.linear or t.role == "head":
            total += t.numel * 2
            continue
        rows, columns = t.shape
        size = options.get("group_size", -1)
        groups = rows * (1 if size == -1 else -(-columns // size))
        zero = 0.0 if options["symmetric"] else options["bits"] / 8
        total += t.numel * options["bits"] / 8 + groups * (2 + zero)
    return round(total)


def _rounded(bench: Bench, options: Options, made: Spent, out: Path, engine: str = "weights") -> Figures:
    try:
        size = packed_bytes(bench, options)
        return {
            "file_bytes": size,
            "weight_bytes": size,
            "seconds": made.seconds,
            "cpu_seconds": made.cpu_seconds,
            "inner_seconds": made.answer["seconds"],
            "version": made.answer["version"],
            "peak_bytes": made.peak_bytes,
            **bench.score(engine, out),
        }
    finally:
        _drop(bench, out)


def _in_venv(bench: Bench, name: str, request: Options) -> Spent:
    whole = request | {"model": str(bench.model), "threads": bench.threads}
    return spend([bench.tool(name), HERE / f"quality_{name}.py", json.dumps(whole)], bench.threads)


def _f32_gguf(bench: Bench) -> Path:
    out = bench.once("f32.gguf", "F32")
    if not out.exists():
        sys.path.insert(0, str(HERE))
        from shapes import write_gguf

        write_gguf(bench.model, out.with_suffix(".part"), "F32", "F32").rename(out)
    return out


def _imatrix(bench: Bench, bins: Path, chunks: int) -> Path:
    out = bench.once("imatrix.gguf", [chunks, 512])
    if not out.exists():
        part = out.with_name(f"part-{out.name}")
        command: list[str | Path] = [bins / "llama-imatrix", "-m", _f32_gguf(bench), "-f", bench.calib, "-o", part]
        command += ["-c", "512", "--chunks", str(chunks), "-t", str(bench.threads), "--no-ppl"]
        spent = spend(command, bench.threads)
        _note(out, spent)
        part.rename(out)
    return out


def _base(bench: Bench, bins: Path, source: Path) -> Path:
    """llama-perplexity's log-probabilities of its own F32 model."""
    out = bench.once("base.bin", "F32")
    if not out.exists():
        part = out.with_suffix(".part")
        spend([*_perplexity(bench, bins, source), "--kl-divergence-base", part], bench.threads)
        part.rename(out)
    return out


def _perplexity(bench: Bench, bins: Path, model: Path) -> list[str | Path]:
    sizes = ["-c", str(bench.length), "--chunks", str(bench.chunks), "-t", str(bench.threads)]
    return [bins / "llama-perplexity", "-m", model, "-f", bench.text, *sizes]


def _note(file: Path, spent: Spent) -> None:
    figures = {name: getattr(spent, name) for name in ("seconds", "cpu_seconds", "peak_bytes")}
    file.with_suffix(".json").write_text(json.dumps(figures))


def _timed(file: Path) -> Figures:
    figures: Figures = json.loads(file.with_suffix(".json").read_text())
    return figures


def _rope_tables(export: Path) -> int:
    """Bytes of the rotary tables, which the export stores and others compute."""
    import onnx

    graph = onnx.load(export / "model.onnx", load_external_data=False).graph
    tables = [t for t in graph.initializer if t.name in ("cos_cache", "sin_cache")]
    sizes = {onnx.TensorProto.FLOAT: 4, onnx.TensorProto.FLOAT16: 2}
    return sum(t.dims[0] * t.dims[1] * sizes.get(t.data_type, 0) for t in tables)


def _size(file: Path | bytes) -> int:
    return len(file) if isinstance(file, bytes) else file.stat().st_size


def _drop(bench: Bench, *made: Path) -> None:
    for path in made if not bench.keep else ():
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
