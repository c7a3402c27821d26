"""One sequence on llama.cpp: tokens in, logits out, the KV cache inside."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.device.cpu import probe_cpu
from edgeq.errors import EdgeqError
from edgeq.runtimes.llamacpp.library import ERRORS, FLASH, FLASH_ATTENTION, GGML_TYPES, Batch, library
from edgeq.runtimes.pages import collapse_in_background, mappings

Row = npt.NDArray[np.float32]
_CHUNK = 512  # prompt tokens of one call: more gains nothing on a processor
_LOGITS_BYTES = 64 << 20  # most memory for the logits of a chunk


def open_engine(
    path: Path,
    *,
    context: int,
    threads: int | None = None,
    chunk: int | None = None,
    kv_dtype: str = "f16",
    spin: bool | None = None,
    huge_pages: bool = True,
    gpu_layers: int = 0,
) -> LlamaEngine:
    """Load a GGUF file. Its weights stay memory-mapped where llama.cpp does not repack them.

    Raises:
        EdgeqError: no such file, damaged, of an architecture llama.cpp does not know, or no memory for the cache;
            layers for a GPU that this library has no backend for.
    """
    if not path.is_file():
        raise EdgeqError("the artifact has no GGUF file", where=path, hint="Export it again")
    lib = library(spin)
    if gpu_layers and not lib.llama_supports_gpu_offload():
        what = f"gpu_layers is {gpu_layers}, but this llama.cpp was built for the CPU alone or found no GPU"
        hint = "Uninstall xllamacpp and put a llama-server with a GPU backend on the PATH, or leave gpu_layers out"
        raise EdgeqError(what, hint=hint)
    ERRORS.clear()
    params = lib.llama_model_default_params()
    params.n_gpu_layers = gpu_layers
    before = mappings()
    model = lib.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise EdgeqError(f"llama.cpp cannot load the model: {ERRORS.say()}", where=path)
    if huge_pages:  # of what was repacked; mapped weights stay as they are
        collapse_in_background(before)
    try:
        return LlamaEngine(
            lib,
            model,
            context=context,
            threads=threads or probe_cpu().cores,
            chunk=min(chunk or _CHUNK, context),
            kv_dtype=kv_dtype,
            offload=gpu_layers > 0,
        )
    except EdgeqError:
        lib.llama_model_free(model)
        raise


class LlamaEngine:
    """Follows `edgeq.runtimes.generation.Engine`; owns the model and its context.

    Attributes:
        threads: of the kernels.
        kv_dtype: of the KV cache.
    """

    def __init__(
        self, lib: Any, model: int, *, context: int, threads: int, chunk: int, kv_dtype: str, offload: bool = False
    ) -> None:
        self.context = context
        self.threads = threads
        self.chunk = chunk
        self.kv_dtype = kv_dtype
        self._offload = offload
        self._lib = lib
        self._vocab = int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model)))
        self._rows = max(1, min(chunk, _LOGITS_BYTES // (4 * self._vocab)))  # logits wanted of one call
        self._context: int | None = self._open(model)
        self._free = weakref.finalize(self, _free, lib, self._context, model)  # also of a session nobody closed
        self._memory = lib.llama_get_memory(self._context)
        self._tokens = (ctypes.c_int32 * chunk)()
        self._all = (ctypes.c_int8 * chunk)(*([1] * chunk))
        self._one = Batch(1, self._tokens, None, None, None, None, None)
        self._found: tuple[int | None, int, Row] = (None, 0, np.empty((0, self._vocab), np.float32))
        self._position = 0

    def _open(self, model: int) -> int:
        lib = self._lib
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = self.context, self.chunk, self.chunk
        params.n_outputs_max, params.n_outputs_max_per_seq = self._rows, 0
        params.n_threads = params.n_threads_batch = self.threads
        params.type_k = params.type_v = GGML_TYPES[self.kv_dtype]
        if self.kv_dtype in FLASH:
            params.flash_attn_type = FLASH_ATTENTION[FLASH[self.kv_dtype]]
        params.offload_kqv = params.op_offload = self._offload
        ERRORS.clear()
        made = lib.llama_init_from_model(model, params)
        if not made:
            what = f"llama.cpp cannot open a context of {self.context} tokens with a {self.kv_dtype} cache"
            raise EdgeqError(f"{what}: {ERRORS.say()}", hint="Ask for a smaller --context or another kv_dtype")
        if lib.llama_n_ctx(made) < self.context or lib.llama_n_threads(made) != self.threads:
            lib.llama_free(made)
            raise EdgeqError("llama.cpp did not take the parameters it was given", hint="Install another xllamacpp")
        return int(made)

    @property
    def position(self) -> int:
        return self._position

    def prefill(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        row: Row = self._run(ids, wanted=1)[0]
        return row

    def decode(self, token: int) -> npt.NDArray[np.float32]:
        row: Row = self._run((token,), wanted=1)[0]
        return row

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        parts = [ids[at : at + self._rows] for at in range(0, len(ids), self._rows)]
        rows = [self._run(part, wanted=len(part)).copy() for part in parts]  # each call overwrites the last one's
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def rewind(self, position: int) -> None:
        if not 0 <= position <= self._position:
            raise ValueError(f"cannot rewind to {position}, the cache holds {self._position} tokens")
        if position < self._position and not self._lib.llama_memory_seq_rm(self._memory, 0, position, -1):
            raise EdgeqError("this model's state can't be taken back to an earlier token", hint="Use reuse=False")
        self._position = position

    def close(self) -> None:
        self._context = None
        self._free()

    def _run(self, ids: Sequence[int], *, wanted: int) -> npt.NDArray[np.float32]:
        """Append tokens; float32 (wanted, vocab), of the last or of all of them, valid until the next call."""
        count = len(ids)
        self._check(ids)
        if count == 1:  # what is allocated for each token shows beside a small model's few milliseconds
            self._tokens[0], batch = ids[0], self._one
        else:
            self._tokens[:count] = list(ids)
            batch = Batch(count, self._tokens, None, None, None, None, self._all if wanted == count else None)
        code = self._lib.llama_decode(self._context, batch)
        if code:
            self._position = int(self._lib.llama_memory_seq_pos_max(self._memory, 0)) + 1
            raise EdgeqError(f"llama.cpp failed on {count} tokens ({code}): {ERRORS.say()}")
        self._position += count
        return self._logits_at(self._lib.llama_get_logits(self._context), wanted)

    def _logits_at(self, address: int, rows: int) -> Row:
        """float32 (rows, vocab) over llama.cpp's own buffer, which is where it was at the last token, mostly."""
        if self._found[:2] != (address, rows):
            at = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
            self._found = address, rows, np.ctypeslib.as_array(at, (rows, self._vocab))
        return self._found[2]

    def _check(self, ids: Sequence[int]) -> None:
        """llama.cpp's own answer to a bad token or a full cache is a number."""
        if self._context is None:
            raise EdgeqError("the session is closed", hint="Open the artifact again with edgeq.load")
        if not 1 <= len(ids) <= self.chunk:
            raise ValueError(f"{len(ids)} tokens at once, at most {self.chunk}")
        if self._position + len(ids) > self.context:
            end = self._position + len(ids)
            raise EdgeqError(f"{end} tokens do not fit into the context of {self.context}")
        for token in ids:
            if not 0 <= token < self._vocab:
                raise EdgeqError(f"token {token} is not in the model's vocabulary of {self._vocab}")


def _free(lib: Any, context: int, model: int) -> None:
    lib.llama_free(context)
    lib.llama_model_free(model)
