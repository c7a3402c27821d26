"""The KV cache in place, the bindings, and as little as possible for each token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edgeq.device.cpu import probe_cpu
from edgeq.device.isa import int8_sums_overflow
from edgeq.device.spec import Cpu
from edgeq.errors import EdgeqError
from edgeq.runtimes.onnxruntime.graph import LOGITS_FROM, Graph, read_graph
from edgeq.runtimes.onnxruntime.providers import CPU, PROVIDERS, Provider, candidates
from edgeq.runtimes.pages import collapse_in_background, mappings

_FIRST_CAPACITY = 256  # tokens the KV cache holds at first
_SMALL_STEP = 64  # and grows by at least where the graph reads all of it
_MASK_STEP = 64  # the decode mask grows by so many tokens at a time, see OnnxEngine.decode
_CHUNK = 128  # prompt tokens per run; 4-bit kernels gain nothing from more
_LOGITS_BYTES = 64 << 20  # most memory for the logits of a chunk


def open_engine(
    path: Path,
    *,
    context: int,
    head_dim: int | None = None,
    threads: int | None = None,
    chunk: int | None = None,
    spin: bool = True,
    long: bool = False,
    huge_pages: bool = True,
    accuracy_level: int = 4,
    device: str = "cpu",
    rounded_inputs: bool = False,
) -> OnnxEngine:
    """Load a graph and its weights; `head_dim` is needed only where the graph leaves the caches' width open.

    `long` tells the graph from the first token on that the sequence may fill the whole context: LongRoPE chooses its
    frequencies by the mask's length, and keys turned by one set do not fit queries turned by the other.
    `accuracy_level` is that of products which onnxruntime fuses at load; others say it themselves. `device` is one of
    `edgeq.runtimes.onnxruntime.providers.DEVICES`. `rounded_inputs`: some products have 8-bit inputs.

    Raises:
        EdgeqError: no such file, damaged, not a graph this runtime knows, or no such device here.
    """
    if not path.is_file():
        raise EdgeqError(f"the artifact has no {path.name}", where=path.parent, hint="Export it again")
    # Decoding is bound by memory reads: a second hardware thread of the same core only costs synchronisation.
    cpu = probe_cpu()
    threads = threads or cpu.cores
    before = mappings()
    tried = candidates(device, ort.get_available_providers())
    for chosen in tried:
        options = _session_options(cpu, threads, spin, accuracy_level, host=chosen == "cpu", rounded=rounded_inputs)
        session = _start(path, options, PROVIDERS[chosen])
        if session is not None:
            break
    else:
        what = f"onnxruntime has the {PROVIDERS[device].name} but it did not start"
        raise EdgeqError(what, hint="Are the device's driver and libraries installed? --device cpu works without")
    graph = read_graph(session, path, head_dim)
    if huge_pages and chosen == "cpu":
        collapse_in_background(before)
    memory = PROVIDERS[chosen].memory
    sizes: dict[str, Any] = {"context": context, "chunk": chunk, "threads": threads, "long": long}
    if graph.growing:
        from edgeq.runtimes.onnxruntime.growing import GrowingEngine

        return GrowingEngine(session, graph, **sizes)
    if memory is not None:
        from edgeq.runtimes.onnxruntime.on_device import DeviceEngine

        return DeviceEngine(session, graph, memory=memory, **sizes)
    return OnnxEngine(session, graph, **sizes)


def _start(path: Path, options: ort.SessionOptions, provider: Provider) -> ort.InferenceSession | None:
    """The model loaded, or None where onnxruntime left the provider out: it goes on with the CPU by itself.

    Raises:
        EdgeqError: onnxruntime cannot load the model.
    """
    try:
        wanted = [CPU] if provider.name == CPU else [(provider.name, provider.options), CPU]
        session = ort.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:  # onnxruntime's errors share no other base
        raise EdgeqError(f"onnxruntime cannot load the model: {_short(error)}", where=path) from error
    return session if provider.name in session.get_providers() else None


def _session_options(
    cpu: Cpu, threads: int, spin: bool, accuracy_level: int = 4, *, host: bool = True, rounded: bool = False
) -> ort.SessionOptions:
    """`host`: all of the graph runs on the CPU; what only its kernels read is not set for others. `rounded`: some
    products have 8-bit inputs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # onnxruntime keeps one memory pattern per input shape, and a decoder meets a new shape every few tokens.
    options.enable_mem_pattern = False
    options.log_severity_level = 4  # what goes wrong arrives as an exception
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    if host:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", str(accuracy_level))
    if host and rounded and int8_sums_overflow(cpu.arch, cpu.isa):
        # Stores int8 weights as uint8. Not for all graphs: it breaks a blocked DequantizeLinear of int8 (1.31).
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


class OnnxEngine:
    """One sequence on one session. Follows `edgeq.runtimes.generation.Engine`.

    Past and present of each layer are the same buffer [1, kv_heads, capacity, width], so a step appends in place and
    nothing is copied. When the sequence outgrows them they double, or grow by a sixteenth where the graph reads all
    of them, up to `context`.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        graph: Graph,
        *,
        context: int,
        chunk: int | None = None,
        threads: int = 0,
        long: bool = False,
    ) -> None:
        self.graph = graph
        self.context = context
        self.threads = threads
        self.chunk = min(chunk or _default_chunk(graph), context)
        self._session: ort.InferenceSession | None = session
        self._long = long
        self._position = 0
        self._capacity = 0
        self._caches: dict[str, tuple[npt.NDArray[Any], ort.OrtValue]] = {}
        # Bound by address: these arrays live as long as the bindings do.
        self._token = np.zeros((1, 1), np.int64)
        self._mask = np.zeros(context, np.int64)  # 1 up to `position`
        self._row = np.zeros((1, graph.vocab_size), graph.logits_dtype)
        self._rows = np.zeros((0, graph.vocab_size), graph.logits_dtype)
        self._from = np.zeros(1, np.int64)
        self._masked = 0  # length of the mask the decode binding has
        self._one = session.io_binding()
        self._many = session.io_binding()
        self._bind_fixed()
        self._grow(context if long else self._room(1) if graph.reads_all else min(_FIRST_CAPACITY, context))

    @property
    def position(self) -> int:
        return self._position

    @property
    def cache_bytes(self) -> int:
        """Bytes of the KV cache at its present capacity."""
        return sum(c.bytes(self._capacity) for c in self.graph.caches)

    def decode(self, token: int) -> npt.NDArray[np.float32]:
        self._check((token,))
        end = self._reserve(1)
        self._token[0, 0] = token
        self._mask[end - 1] = 1
        if end > self._masked:
            # Length and contents of the mask are separate facts to the graph: total_sequence_length, the most of any
            # row, comes from its shape, and this row's own length from its sum. So it may be longer than needed,
            # and is bound anew once in 64 tokens instead of at each.
            self._masked = self.context if self._long else min(-(-end // _MASK_STEP) * _MASK_STEP, self._capacity)
            bind_input(self._one, "attention_mask", self._mask, (1, self._masked))
        self._run(self._one)
        self._position = end
        return _as_float(self._row[0])

    def prefill(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        if len(ids) == 1:
            return self.decode(ids[0])
        count = len(ids)
        if self.graph.has_logits_from:
            self._from[0] = count - 1
            rows = self._row
        else:
            if len(self._rows) < count:
                self._rows = np.zeros((max(count, self.chunk), self.graph.vocab_size), self.graph.logits_dtype)
            rows = self._rows[:count]
        self._forward(ids, rows)
        return _as_float(rows[-1])

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        rows = np.empty((len(ids), self.graph.vocab_size), self.graph.logits_dtype)
        self._from[0] = 0
        self._forward(ids, rows)
        return _as_float(rows)

    def rewind(self, position: int) -> None:
        if not 0 <= position <= self._position:
            raise ValueError(f"cannot rewind to {position}, the cache holds {self._position} tokens")
        self._mask[position:] = 0  # all of it: an interrupt (Ctrl-C) may have left more than `position` says
        self._position = position

    def close(self) -> None:
        """Free the weights and the cache; the engine is of no use after."""
        self._session = None
        self._caches.clear()
        del self._one, self._many

    def _forward(self, ids: Sequence[int], rows: npt.NDArray[Any]) -> None:
        """Append `ids` and write the last logits into `rows` [n, vocab]: of all ids, or from `logits_from` on."""
        self._check(ids)
        end = self._reserve(len(ids))
        tokens = np.array([ids], np.int64)
        self._mask[self._position : end] = 1
        # For a first prompt the operator compares total length and number of tokens: the mask's length is exact here.
        bind_input(self._many, "input_ids", tokens, tokens.shape)
        bind_input(self._many, "attention_mask", self._mask, (1, self.context if self._long else end))
        _output(self._many, "logits", rows)
        self._run(self._many)
        self._position = end

    def _run(self, binding: ort.IOBinding) -> None:
        session = self._session
        if session is None:
            raise EdgeqError("the session is closed", hint="Open the artifact again with edgeq.load")
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime's errors share no other base
            raise EdgeqError(f"onnxruntime failed to run the model: {_short(error)}") from error

    def _check(self, ids: Sequence[int]) -> None:
        vocab = self.graph.vocab_size
        for token in ids:
            if not 0 <= token < vocab:
                raise EdgeqError(f"token {token} is not in the model's vocabulary of {vocab}")

    def _reserve(self, count: int) -> int:
        """Room for `count` more tokens; the length of the sequence with them."""
        end = self._position + count
        if end > self.context:
            raise EdgeqError(f"{end} tokens do not fit into the context of {self.context}")
        if end > self._capacity or (self.graph.reads_all and self._capacity > 2 * self._room(end)):
            self._grow(self._room(end))
        return end

    def _room(self, end: int) -> int:
        """Tokens to have room for when there are `end`."""
        if self.graph.reads_all:
            step = max(_SMALL_STEP, end // 16)
            return min(-(-end // step) * step, self.context)
        capacity = self._capacity
        while capacity < end:
            capacity *= 2
        return min(capacity, self.context)

    def _grow(self, capacity: int) -> None:
        """Larger buffers, one at a time, with what the old ones held, bound as past and present."""
        used = self._position
        for cache in self.graph.caches:
            # Zeros, not garbage: a NaN beyond the end would survive a multiplication by a zero weight.
            array = np.zeros((1, cache.kv_heads, capacity, cache.width), cache.dtype)
            if used:
                array[:, :, :used] = self._caches[cache.past][0][:, :, :used]
            value = ort.OrtValue.ortvalue_from_numpy(array)
            for binding in (self._one, self._many):
                binding.bind_ortvalue_input(cache.past, value)
                binding.bind_ortvalue_output(cache.present, value)
            self._caches[cache.past] = (array, value)
        self._capacity = capacity

    def _bind_fixed(self) -> None:
        bind_input(self._one, "input_ids", self._token, (1, 1))
        _output(self._one, "logits", self._row)
        if self.graph.has_logits_from:
            bind_input(self._many, LOGITS_FROM, self._from, (1,))


def _default_chunk(graph: Graph) -> int:
    """As many tokens as their logits have room for, a power of two between 16 and 128."""
    if graph.has_logits_from:
        return _CHUNK
    row = graph.vocab_size * np.dtype(graph.logits_dtype).itemsize
    chunk = _CHUNK
    while chunk > 16 and chunk * row > _LOGITS_BYTES:
        chunk //= 2
    return chunk


def _as_float(rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    same: npt.NDArray[np.float32] = rows.astype(np.float32, copy=False)
    return same


def bind_input(binding: ort.IOBinding, name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    """Bind the beginning of an array as an input of this shape, by its address."""
    binding.bind_input(name, "cpu", 0, array.dtype.type, shape, array.ctypes.data)


def _output(binding: ort.IOBinding, name: str, rows: npt.NDArray[Any]) -> None:
    """Bind [n, vocab] rows as the output [1, n, vocab], by their address."""
    binding.bind_output(name, "cpu", 0, rows.dtype.type, (1, *rows.shape), rows.ctypes.data)
