"""The KV cache: bytes per token, per sequence, by architecture, dtype and runtime."""

from __future__ import annotations

from edgeq.errors import EdgeqError
from edgeq.estimate.formats import runtime_of
from edgeq.model.spec import Attention, GatedDelta, LatentAttention, Mamba, ModelSpec

KV_DTYPES = ("f32", "f16", "bf16", "fp8", "int8", "q8_0", "int4", "q4_0")
_WHOLE = {"f32": 4, "f16": 2, "bf16": 2, "fp8": 1}
# int8 and int4 caches keep a float16 scale and zero point with every head's vector (OpenVINO's u8 and u4 caches);
# fp8 is scaled per tensor, which weighs nothing. ONNX Runtime's scales are constants of the graph, a float32 a channel.
_SCALES = 4
_FIXED_SCALES = {("onnxruntime", "int8"), ("onnxruntime", "int4")}
_LLAMACPP_UBATCH = 512  # n_ubatch: tokens of one physical batch
_LLAMACPP_PAD = 256

# Where sliding layers keep only their window. The others allocate or grow the whole context for every layer.
_WINDOWED = {None, "llamacpp", "torch"}
# Where latent attention is absorbed: the cache holds the compressed vector. The others cache every head in full.
_ABSORBED = {None, "llamacpp"}


def vector_bytes(n: int, kv_dtype: str) -> int:
    """Bytes of one cached vector of `n` values.

    Raises:
        EdgeqError: unknown dtype.
    """
    if kv_dtype in _WHOLE:
        return n * _WHOLE[kv_dtype]
    if kv_dtype == "int8":
        return n + _SCALES
    if kv_dtype == "int4":
        return -(-n // 2) + _SCALES
    if kv_dtype in {"q8_0", "q4_0"}:
        return -(-n // 32) * {"q8_0": 34, "q4_0": 18}[kv_dtype]
    raise EdgeqError(f"unknown KV cache dtype {kv_dtype!r}", hint=f"Known: {', '.join(KV_DTYPES)}")


def kv_bytes_per_token(spec: ModelSpec, *, kv_dtype: str = "f16", target: str | None = None) -> int:
    """Bytes that one more token adds while no window is full.

    GQA, MQA: 2 * kv_heads * head_dim values a layer (Ainslie et al. 2023, arXiv 2305.13245; head_dim is the
    model's own, not hidden / heads). MLA absorbed: kv_lora_rank + rope_dim a layer (DeepSeek-V2,
    arXiv 2405.04434); in full: heads * (nope + rope + v) values. Recurrent layers add nothing.
    """
    return sum(_token_bytes(layer.mixer, kv_dtype, runtime_of(target)) for layer in spec.layers)


def _token_bytes(mixer: object, kv_dtype: str, runtime: str | None) -> int:
    if isinstance(mixer, Attention):
        own = _SCALES if (runtime, kv_dtype) in _FIXED_SCALES else 0
        return 2 * mixer.kv_heads * (vector_bytes(mixer.head_dim, kv_dtype) - own)
    if isinstance(mixer, LatentAttention):
        if runtime in _ABSORBED:
            return vector_bytes(mixer.kv_lora_rank + mixer.qk_rope_dim, kv_dtype)
        key, value = mixer.qk_nope_dim + mixer.qk_rope_dim, mixer.v_dim
        return mixer.heads * (vector_bytes(key, kv_dtype) + vector_bytes(value, kv_dtype))
    return 0


def state_bytes(spec: ModelSpec) -> int:
    """Bytes of recurrent state per sequence, float32, whatever the context.

    A layer keeps the last (kernel - 1) inputs of its convolution and one state matrix:
    4 * ((conv - 1) * (d_inner + 2 * groups * d_state) + d_state * d_inner) (Mamba-2, arXiv 2405.21060; llama.cpp's
    recurrent cache); Mamba-1 convolves d_inner alone; gated delta: d_inner = value width, groups * d_state = key width.
    """
    return sum(_state(layer.mixer) for layer in spec.layers)


def _state(mixer: object) -> int:
    if isinstance(mixer, GatedDelta):
        keys, values = mixer.key_heads * mixer.key_dim, mixer.value_heads * mixer.value_dim
        return 4 * ((mixer.conv_kernel - 1) * (values + 2 * keys) + mixer.key_dim * values)
    if isinstance(mixer, Mamba):
        grouped = 2 * mixer.groups * mixer.d_state if mixer.version == 2 else 0
        return 4 * ((mixer.conv_kernel - 1) * (mixer.d_inner + grouped) + mixer.d_state * mixer.d_inner)
    return 0


def kv_cache_bytes(
    spec: ModelSpec, context: int, *, batch: int = 1, kv_dtype: str = "f16", target: str | None = None
) -> int:
    """Bytes of the cache and recurrent state that `batch` concurrent sequences of `context` tokens need.

    Sliding layers hold min(context, window) where the runtime drops what left the window; llama.cpp holds
    pad256(min(context, window * sequences + n_ubatch)) and pads a full layer's context to 256 too. The other
    runtimes keep the whole context. `target` None: the least the architecture allows.

    Raises:
        EdgeqError: a context or batch below 1, or an unknown dtype.
    """
    if context < 1 or batch < 1:
        raise EdgeqError("context and batch must be at least 1", where=f"context {context}, batch {batch}")
    runtime = runtime_of(target)
    total = batch * state_bytes(spec) + fixed_scale_bytes(spec, kv_dtype, runtime)
    for layer in spec.layers:
        window = layer.mixer.window if isinstance(layer.mixer, Attention) else None
        total += _token_bytes(layer.mixer, kv_dtype, runtime) * _cells(context, batch, window, runtime)
    return total


def fixed_scale_bytes(spec: ModelSpec, kv_dtype: str, runtime: str | None) -> int:
    """Bytes of scales that don't grow with the context."""
    if (runtime, kv_dtype) not in _FIXED_SCALES:
        return 0
    mixers = [layer.mixer for layer in spec.layers]
    return sum(2 * 4 * m.kv_heads * m.head_dim for m in mixers if isinstance(m, Attention))


def _cells(context: int, batch: int, window: int | None, runtime: str | None) -> int:
    """Tokens that one layer holds for all sequences together."""
    windowed = window is not None and runtime in _WINDOWED
    if runtime == "llamacpp":
        cells = context * batch
        if windowed and window is not None:
            cells = min(cells, window * batch + _LLAMACPP_UBATCH)
        return -(-cells // _LLAMACPP_PAD) * _LLAMACPP_PAD
    return batch * (min(context, window) if windowed and window is not None else context)


def kv_read_bytes(spec: ModelSpec, filled: int, *, kv_dtype: str = "f16", target: str | None = None) -> int:
    """Bytes read to decode one token of one sequence with `filled` tokens before it: windows limit what is read
    whatever the runtime holds, and recurrent state is read whole."""
    runtime = runtime_of(target)
    total = state_bytes(spec)
    for layer in spec.layers:
        window = layer.mixer.window if isinstance(layer.mixer, Attention) else None
        total += _token_bytes(layer.mixer, kv_dtype, runtime) * min(filled, window or filled)
    return total
