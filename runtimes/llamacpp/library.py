"""llama.cpp's C interface, called through ctypes from the library inside the `xllamacpp` wheel.

Only few functions are used, but two of them take structures by value whose fields change between releases. Their
layout here is that of `llama.h` of llama.cpp 0.6 (October 2026). Before either is passed, the library is asked for its
own defaults: each field must hold the value that it has in that header. A release that moved a field is refused in
words instead of being called with garbage. Room at the end of both takes what later releases append.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import POINTER, Structure, c_bool, c_char_p, c_float, c_int8, c_int32, c_size_t, c_uint8, c_uint32, c_void_p
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgeq.device.load import OthersLoad
from edgeq.errors import EdgeqError

PACKAGE = "xllamacpp"
KNOWN = "2026.10.11549"  # the release whose header the structures are taken from
GGML_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}  # of the KV cache
FLASH_ATTENTION = {"off": 0, "on": 1}  # -1: llama.cpp chooses
# Flash attention where a cache needs it or can't have it. A quantized V is read in no other way, and an f32 cache is
# cast to f16 by it: it would take twice the memory to give what f16 gives.
FLASH = {"q4_0": "on", "q8_0": "on", "f32": "off"}
_OPENMP = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
_BUSY = 0.25  # share of the machine that others take now, above which threads should sleep while they wait
_LOOK = 0.1  # seconds that they are watched; a load average would count this program's own last minute
_ROOM = 256  # bytes for fields that later releases append
_ERROR = 4  # ggml_log_level

Fields = Sequence[tuple[str, Any, Any]]  # name, type, the library's own default

_MODEL: Fields = (
    ("devices", c_void_p, None),
    ("tensor_buft_overrides", c_void_p, None),
    ("n_gpu_layers", c_int32, -1),
    ("split_mode", c_int32, 1),
    ("load_mode", c_int32, -1),
    ("lazy_mode", c_int32, 1),
    ("main_gpu", c_int32, 0),
    ("tensor_split", c_void_p, None),
    ("progress_callback", c_void_p, None),
    ("progress_callback_user_data", c_void_p, None),
    ("kv_overrides", c_void_p, None),
    ("vocab_only", c_bool, False),
    ("check_tensors", c_bool, False),
    ("use_extra_bufts", c_bool, True),
    ("no_host", c_bool, False),
    ("no_alloc", c_bool, False),
    ("load_mtp", c_bool, False),
)
_CONTEXT: Fields = (
    ("n_ctx", c_uint32, 512),
    ("n_batch", c_uint32, 2048),
    ("n_ubatch", c_uint32, 512),
    ("n_seq_max", c_uint32, 1),
    ("n_rs_seq", c_uint32, 0),
    ("n_outputs_max", c_uint32, 0),
    ("n_outputs_max_per_seq", c_uint32, 1),
    ("n_threads", c_int32, 4),
    ("n_threads_batch", c_int32, 4),
    ("ctx_type", c_int32, 0),
    ("rope_scaling_type", c_int32, -1),
    ("pooling_type", c_int32, -1),
    ("attention_type", c_int32, -1),
    ("flash_attn_type", c_int32, -1),
    ("rope_freq_base", c_float, 0.0),
    ("rope_freq_scale", c_float, 0.0),
    ("yarn_ext_factor", c_float, -1.0),
    ("yarn_attn_factor", c_float, -1.0),
    ("yarn_beta_fast", c_float, -1.0),
    ("yarn_beta_slow", c_float, -1.0),
    ("yarn_orig_ctx", c_uint32, 0),
    ("defrag_thold", c_float, -1.0),
    ("cb_eval", c_void_p, None),
    ("cb_eval_user_data", c_void_p, None),
    ("type_k", c_int32, 1),
    ("type_v", c_int32, 1),
    ("moe_cache_size", c_size_t, 0),
    ("abort_callback", c_void_p, None),
    ("abort_callback_data", c_void_p, None),
    ("embeddings", c_bool, False),
    ("offload_kqv", c_bool, True),
    ("no_perf", c_bool, True),
    ("op_offload", c_bool, True),
    ("swa_full", c_bool, True),
    ("kv_unified", c_bool, False),
    ("samplers", c_void_p, None),
    ("n_samplers", c_size_t, 0),
    ("ctx_other", c_void_p, None),
)


def _structure(name: str, fields: Fields) -> type[Structure]:
    room = ("room", c_uint8 * _ROOM)
    return type(name, (Structure,), {"_fields_": [*((n, kind) for n, kind, _ in fields), room]})


ModelParams = _structure("ModelParams", _MODEL)
ContextParams = _structure("ContextParams", _CONTEXT)


class Batch(Structure):
    """Tokens of one sequence, which llama.cpp puts after what its cache holds; `logits` marks rows that are wanted,
    without it the last one is."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    )


_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "llama_backend_init": (None, ()),
    "llama_model_default_params": (ModelParams, ()),
    "llama_context_default_params": (ContextParams, ()),
    "llama_model_load_from_file": (c_void_p, (c_char_p, ModelParams)),
    "llama_model_free": (None, (c_void_p,)),
    "llama_init_from_model": (c_void_p, (c_void_p, ContextParams)),
    "llama_free": (None, (c_void_p,)),
    "llama_model_get_vocab": (c_void_p, (c_void_p,)),
    "llama_vocab_n_tokens": (c_int32, (c_void_p,)),
    "llama_supports_gpu_offload": (c_bool, ()),
    "llama_n_ctx": (c_uint32, (c_void_p,)),
    "llama_n_batch": (c_uint32, (c_void_p,)),
    "llama_n_ubatch": (c_uint32, (c_void_p,)),
    "llama_n_threads": (c_int32, (c_void_p,)),
    "llama_decode": (c_int32, (c_void_p, Batch)),
    "llama_get_logits": (c_void_p, (c_void_p,)),
    "llama_get_memory": (c_void_p, (c_void_p,)),
    "llama_memory_seq_rm": (c_bool, (c_void_p, c_int32, c_int32, c_int32)),
    "llama_memory_seq_pos_max": (c_int32, (c_void_p, c_int32)),
    "llama_log_set": (None, (c_void_p, c_void_p)),
}
_LOG = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)


class Errors:
    """What llama.cpp logged as errors since the last `clear`; all else it says is dropped."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.callback = _LOG(self._hear)

    def _hear(self, level: int, text: bytes | None, _: Any) -> None:
        if level == _ERROR and text:
            self.lines.append(text.decode("utf-8", "replace").strip())

    def clear(self) -> None:
        self.lines.clear()

    def say(self) -> str:
        """The first line, which says what went wrong; later ones what that led to. Without the function's name."""
        first = next((line for line in self.lines if line), "it gives no reason")
        return first.partition(": ")[2][:300] or first[:300]


ERRORS = Errors()


def package_version() -> str | None:
    """The installed release of the package that brings the library, None where there is none."""
    try:
        return version(PACKAGE) if find_spec(PACKAGE) else None
    except PackageNotFoundError:
        return "of unknown release"


def library(spin: bool | None = None) -> Any:
    """The loaded library, with its functions typed; loaded once.

    Args:
        spin: whether its threads wait for each other by spinning, which is faster as long as each has a core, and ten
            times slower and more where they do not; None: unless the machine is busy now. Only the first load of a
            process decides.

    Raises:
        EdgeqError: the package is missing, exports no C functions, or has structures of another release.
    """
    with waiting(spin):
        return _library()


@contextmanager
def waiting(spin: bool | None) -> Iterator[None]:
    """OpenMP's policy as its library reads it when it is loaded; what the user has set stays."""
    if spin is None:
        with OthersLoad() as others:
            time.sleep(_LOOK)
        spin = others.share < _BUSY
    if spin or any(name in os.environ for name in _OPENMP):
        yield
        return
    os.environ[_OPENMP[0]] = "PASSIVE"
    try:
        yield
    finally:
        del os.environ[_OPENMP[0]]


@cache
def _library() -> Any:
    path = _file()
    try:
        found = ctypes.CDLL(str(path))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(found, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise EdgeqError(f"llama.cpp's library can't be called: {error}", where=path, hint=_HINT) from error
    for name, fields in (("llama_model_default_params", _MODEL), ("llama_context_default_params", _CONTEXT)):
        check_layout(getattr(found, name)(), fields, path)
    found.llama_log_set(ctypes.cast(ERRORS.callback, c_void_p), None)
    found.llama_backend_init()
    return found


_HINT = f"pip install {PACKAGE}=={KNOWN}"


def _file() -> Path:
    spec = find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(folder).glob(f"{PACKAGE}*")):
            if file.suffix in (".so", ".pyd", ".dylib"):
                return file
    raise EdgeqError(f"running a GGUF needs {PACKAGE}", hint="pip install 'edgeq[llamacpp]'")


def check_layout(defaults: Structure, fields: Fields, where: Path) -> None:
    """Raises an EdgeqError when the library's defaults are not those of the header this module is written for."""
    for name, _, expected in fields:
        if getattr(defaults, name) != expected:
            raise EdgeqError(
                f"this release of llama.cpp ({package_version()}) passes its parameters in another way than edgeq knows"
                f" ({name} is {getattr(defaults, name)!r}, not {expected!r})",
                where=where,
                hint=_HINT,
            )
