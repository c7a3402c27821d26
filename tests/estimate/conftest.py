"""Architectures written by hand from their published config.json: no reader stands between a fact and its test."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgeq.model.spec import MLP, Attention, GatedDelta, LatentAttention, Layer, Mamba, ModelSpec, MoE, Rope

Specs = Callable[[str], ModelSpec]


def dense(
    family: str,
    layers: int,
    hidden: int,
    mlp: int,
    vocab: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    *,
    tied: bool = False,
    rope: Rope | None = None,
    qk_norm: str = "none",
    max_positions: int = 4096,
) -> ModelSpec:
    mixer = Attention(
        heads,
        kv_heads,
        head_dim,
        head_dim**-0.5,
        rope or Rope(1e4, head_dim),
        qk_norm=qk_norm,  # type: ignore[arg-type]
    )
    return ModelSpec(family, family, hidden, vocab, (Layer(mixer, MLP(mlp)),) * layers, tied, max_positions)


def gemma_3_12b() -> ModelSpec:
    def layer(i: int) -> Layer:
        window = None if i % 6 == 5 else 1024
        return Layer(
            Attention(16, 8, 256, 1 / 16, Rope(1e6, 256), window=window, qk_norm="head"), MLP(15360, "gelu_tanh")
        )

    layers = tuple(layer(i) for i in range(48))
    return ModelSpec("gemma-3-12b", "gemma3_text", 3840, 262208, layers, True, 131072, norm_layout="sandwich")


def deepseek_v2_lite() -> ModelSpec:
    mixer = LatentAttention(16, 512, None, 128, 64, 128, 192**-0.5, Rope(1e4, 64))
    moe = MoE(64, 6, 1408, shared_intermediate=2816)
    layers = (Layer(mixer, MLP(10944)), *(Layer(mixer, moe),) * 26)
    return ModelSpec("deepseek-v2-lite", "deepseek_v2", 2048, 102400, layers, False, 163840)


def qwen3_30b_a3b() -> ModelSpec:
    layer = Layer(Attention(32, 4, 128, 128**-0.5, Rope(1e6, 128), qk_norm="head"), MoE(128, 8, 768))
    return ModelSpec("qwen3-30b-a3b", "qwen3_moe", 2048, 151936, (layer,) * 48, False, 40960)


def mixtral_8x7b() -> ModelSpec:
    layer = Layer(Attention(32, 8, 128, 128**-0.5, Rope(1e6, 128)), MoE(8, 2, 14336))
    return ModelSpec("mixtral-8x7b", "mixtral", 4096, 32000, (layer,) * 32, False, 32768)


def hybrid() -> ModelSpec:
    linear = Layer(GatedDelta(16, 32, 128, 128, 4), MLP(5120))
    full = Layer(Attention(16, 2, 256, 1 / 16, Rope(1e7, 64), gated=True), MLP(5120))
    return ModelSpec("hybrid", "qwen3_next", 2048, 151936, (linear, linear, linear, full) * 4, False, 262144)


def mamba() -> ModelSpec:
    layer = Layer(Mamba(2, 5120, 128, 4, groups=1, heads=80))
    return ModelSpec("mamba2", "mamba2", 2560, 50288, (layer,) * 64, True, 1 << 20)


def named(name: str) -> ModelSpec:
    llama3 = Rope(5e5, 128, "llama3", (("factor", 8.0),))
    made: dict[str, Callable[[], ModelSpec]] = {
        "llama-2-7b": lambda: dense("llama", 32, 4096, 11008, 32000, 32, 32, 128),
        "llama-3.1-8b": lambda: dense("llama", 32, 4096, 14336, 128256, 32, 8, 128, rope=llama3, max_positions=131072),
        "llama-70b": lambda: dense("llama", 80, 8192, 28672, 32000, 64, 8, 128),
        "qwen3-0.6b": lambda: dense(
            "qwen3", 28, 1024, 3072, 151936, 16, 8, 128, tied=True, qk_norm="head", max_positions=40960
        ),
        "qwen2.5-7b": lambda: dense("qwen2", 28, 3584, 18944, 152064, 28, 4, 128, max_positions=32768),
        "qwen2.5-32b": lambda: dense("qwen2", 64, 5120, 27648, 152064, 40, 8, 128, max_positions=32768),
        "smollm2-135m": lambda: dense("llama", 30, 576, 1536, 49152, 9, 3, 64, tied=True, max_positions=8192),
        "gemma-3-12b": gemma_3_12b,
        "deepseek-v2-lite": deepseek_v2_lite,
        "qwen3-30b-a3b": qwen3_30b_a3b,
        "mixtral-8x7b": mixtral_8x7b,
        "hybrid": hybrid,
        "mamba": mamba,
    }
    return made[name]()


@pytest.fixture
def spec_of() -> Specs:
    return named
