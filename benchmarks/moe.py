"""A mixture of experts of real width through every exporter: decode tokens/s of edgeq's sessions and the runtimes' own.

    python benchmarks/moe.py [--layers 2] [--experts 128] [--tokens 48] [--rounds 3] [--folder SCRATCH] [--json]

The layers are those of Qwen3-30B-A3B (hidden 2,048, 128 experts of 768, 8 chosen a token, 32 heads on 4), few of them,
of random weights, at 4 bits in symmetric groups of 32, which every format holds: 1.4 billion weights in two layers, of
which a token reads 110 million and the head. Every engine is a process of its own; they take turns, on prompts that
none has seen. "To its own" is the median of the ratio within a round to the same runtime's own loop on the same file.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from big_model import INDEX, tokenizer, write_shard  # noqa: E402
from engines import Row, prompt_of, versions  # noqa: E402

HIDDEN, EXPERT, ACTIVE, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 2048, 768, 8, 32, 4, 128, 32000
RECIPE = 'model = "{model}"\nmethod = "rtn"\nsymmetric = true\nembed_symmetric = true\n'
EXPORTS = {
    "onnx": ("--to", "onnx"),
    "onnx-standard": ("--to", "onnx", "--dialect", "standard"),
    "openvino": ("--to", "openvino"),
    "gguf": ("--to", "gguf"),
}
# name -> engine of peers.py, export, the row that it is compared with
ROWS = {
    "edgeq on onnxruntime": ("edgeq", "onnx", "onnxruntime-genai"),
    "edgeq on onnxruntime, standard operators": ("edgeq", "onnx-standard", "onnxruntime-genai"),
    "edgeq on OpenVINO": ("edgeq", "openvino", "openvino-genai"),
    "edgeq on llama.cpp": ("edgeq", "gguf", "llama.cpp"),
    "onnxruntime-genai": ("genai", "onnx", ""),
    "openvino-genai": ("openvino", "openvino", ""),
    "llama.cpp": ("llamacpp", "gguf", ""),
}


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="edgeq-moe-", dir=options.folder) as scratch:
        rows = list(_made(Path(scratch), options))
        try:
            _measure(rows, options)
        finally:
            for row in rows:
                row.stop()
        found = {row.name: _figures(row, rows) for row in rows}
    if options.json:
        print(json.dumps({"versions": versions(), "rows": found}, indent=2))
    else:
        _show(found, options)


def write_model(folder: Path, layers: int, experts: int) -> Path:
    """A checkpoint of Qwen3-MoE with a tokenizer, a layer a file."""
    folder.mkdir(parents=True)
    parts = dict(_parts(layers, experts))
    for at, (name, sizes) in enumerate(parts.items()):
        write_shard(folder / name, sizes, np.random.default_rng([0, at]))
    config = {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "hidden_size": HIDDEN,
        "intermediate_size": 3 * HIDDEN,
        "moe_intermediate_size": EXPERT,
        "num_experts": experts,
        "num_experts_per_tok": min(ACTIVE, experts),
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": VOCAB,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    names = {tensor: file for file, sizes in parts.items() for tensor in sizes}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    return folder


def _parts(layers: int, experts: int) -> Any:
    """File name and, tensor by tensor, shapes."""
    yield "embed.safetensors", {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    q, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    block: dict[str, tuple[int, ...]] = {"self_attn.q_proj": (q, HIDDEN), "self_attn.o_proj": (HIDDEN, q)}
    block |= {"self_attn.k_proj": (kv, HIDDEN), "self_attn.v_proj": (kv, HIDDEN), "mlp.gate": (experts, HIDDEN)}
    block |= {"self_attn.q_norm": (HEAD_DIM,), "self_attn.k_norm": (HEAD_DIM,)}
    block |= {"input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,)}
    for e in range(experts):
        wide = {"gate_proj": (EXPERT, HIDDEN), "up_proj": (EXPERT, HIDDEN), "down_proj": (HIDDEN, EXPERT)}
        block |= {f"mlp.experts.{e}.{name}": size for name, size in wide.items()}
    for i in range(layers):
        yield f"layer-{i:02}.safetensors", {f"model.layers.{i}.{name}.weight": s for name, s in block.items()}
    yield "final.safetensors", {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}


def _made(place: Path, options: argparse.Namespace) -> Any:
    model = write_model(place / "model", options.layers, options.experts)
    recipe = place / "recipe.toml"
    recipe.write_text(RECIPE.format(model=model))
    _edgeq("quantize", "--recipe", recipe, "-o", place / "checkpoint")
    paths: dict[str, Path | None] = {}
    for name, (kind, export, peer) in ROWS.items():
        if export not in paths:
            paths[export] = place / export
            said = _edgeq("export", place / "checkpoint", *EXPORTS[export], "--no-verify", "-o", place / export)
            if said:
                print(f"{export}: {said}", file=sys.stderr)
                paths[export] = None
        path = paths[export]
        if path is not None and kind == "llamacpp":
            path = path / "model.gguf"
        yield Row(name, kind, path, peer, missing="" if path else "not exported")


def _edgeq(*arguments: str | Path) -> str:
    """What went wrong, empty where nothing did."""
    line = [sys.executable, "-m", "edgeq", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    return (done.stderr.strip() or done.stdout.strip())[-500:] if done.returncode else ""


def _measure(rows: list[Row], options: argparse.Namespace) -> None:
    order, context = random.Random(0), options.prompt + options.tokens + 2
    for row in rows:
        row.start(options.threads, context)
    for turn in range(options.rounds + 1):  # the first one warms up
        for row in order.sample(rows, len(rows)):
            if row.path and not row.missing:
                answer = row.ask(prompt_of(options.prompt, turn), options.tokens if turn else 8)
                if turn and not row.missing:
                    row.decode.append(answer["decoded"] / answer["decode_s"])
                    row.prefill.setdefault(options.prompt, []).append(options.prompt / answer["prefill_s"])


def _figures(row: Row, rows: list[Row]) -> dict[str, Any]:
    if not row.decode:
        return {"missing": row.missing or "nothing was measured"}
    peer = next((r for r in rows if r.name == row.peer and r.decode), None)
    tps = statistics.median(row.decode)
    ratio = peer and statistics.median(a / b for a, b in zip(row.decode, peer.decode, strict=False))
    return {
        "decode_tps": tps,
        "spread": (max(row.decode) - min(row.decode)) / 2 / tps,
        "prefill_tps": statistics.median(next(iter(row.prefill.values()))),
        "to_its_own": ratio,
        "bytes": row.bytes_read,
    }


def _show(found: dict[str, dict[str, Any]], options: argparse.Namespace) -> None:
    print(", ".join(f"{n} {v or 'not installed'}" for n, v in versions().items()))
    print(f"{options.layers} layers of {options.experts} experts, {options.prompt} + {options.tokens} tokens")
    print(f"{'engine':42} {'tok/s':>8} {'spread':>7} {'to its own':>11} {'prefill':>8} {'MB':>7}")
    for name, row in found.items():
        if "missing" in row:
            print(f"{name:42} {row['missing']}")
            continue
        ratio = f"{row['to_its_own']:.2f}" if row["to_its_own"] else ""
        figures = f"{row['decode_tps']:8.1f} {row['spread']:7.0%} {ratio:>11} {row['prefill_tps']:8.0f}"
        print(f"{name:42} {figures} {row['bytes'] / 1e6:7.0f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--experts", type=int, default=128)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="default: physical cores")
    parser.add_argument("--folder", type=Path, help="where the scratch folder is made; default: the system's")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.threads:
        from edgeq.device.cpu import probe_cpu

        options.threads = probe_cpu().cores
    return options


if __name__ == "__main__":
    main()
