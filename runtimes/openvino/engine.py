"""One sequence on one inference request, whose state is the key/value cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from edgeq.device.cpu import probe_cpu
from edgeq.errors import EdgeqError
from edgeq.runtimes.openvino.model import LOGITS_FROM, read_model, short, vocabulary

_CHUNK = 256  # prompt tokens per inference
_LOGITS_BYTES = 64 << 20  # most memory for the logits of a chunk


def open_engine(
    path: Path,
    *,
    context: int,
    threads: int | None = None,
    chunk: int | None = None,
    device: str | None = None,
    wanted_device: str = "cpu",
    precision: str | None = None,
    long: bool = False,
) -> OpenVinoEngine:
    """Load a model and its weights.

    Args:
        device: `cpu` or `gpu`, refused where it is not; None: `wanted_device` where it is, else the CPU.
        precision: `f32`, `bf16` or `f16` for what is not compressed; None: f32 on the CPU, else the plugin's
            choice.
        long: the sequence may fill the whole context; see `edgeq.runtimes.openvino.model.read_model`.

    Raises:
        EdgeqError: no such file, damaged, not a model this runtime knows, or no such device.
    """
    core = ov.Core()
    place = _place(core, device, wanted_device)
    model = read_model(core, path, long=long)
    # Decoding is bound by memory reads: a second hardware thread of the same core only costs synchronisation.
    threads = threads or probe_cpu().cores
    try:
        compiled = core.compile_model(model, place, _properties(place, threads, precision))
    except Exception as error:  # openvino's errors share no other base
        raise EdgeqError(f"OpenVINO cannot compile the model: {short(error)}", where=path) from error
    return OpenVinoEngine(compiled, vocabulary(model), context=context, chunk=chunk, threads=threads, device=place)


def _place(core: ov.Core, device: str | None, wanted: str) -> str:
    """The plugin's name. `GPU` also stands for the first of several, `GPU.0`."""
    there = {name.split(".")[0] for name in core.available_devices}
    asked = (device or wanted).upper()
    if asked in there:
        return asked
    if device is not None:
        raise EdgeqError(f"OpenVINO finds no {device} here", hint=f"It finds {', '.join(sorted(there)).lower()}")
    return "CPU"


def _properties(place: str, threads: int, precision: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if place == "CPU":
        found |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        precision = precision or "f32"
    return found if precision is None else found | {"INFERENCE_PRECISION_HINT": precision}


class OpenVinoEngine:
    """Follows `edgeq.runtimes.generation.Engine`.

    Attributes:
        device: the plugin that runs it: `CPU`, `GPU`.
    """

    def __init__(
        self,
        compiled: ov.CompiledModel,
        vocab_size: int,
        *,
        context: int,
        chunk: int | None = None,
        threads: int = 0,
        device: str = "CPU",
    ) -> None:
        self.context = context
        self.threads = threads
        self.device = device
        self.chunk = min(chunk or _default_chunk(vocab_size), context)
        self._vocab_size = vocab_size
        self._request: Any = compiled.create_infer_request()
        self._position = 0
        self._fed: list[int] = []
        self._trims = _can_trim(compiled)
        # Bound by address: these arrays live as long as the tensors over them do.
        self._token = np.zeros((1, 1), np.int64)
        self._place = np.zeros((1, 1), np.int64)
        self._from = np.zeros(1, np.int64)
        self._mask = np.ones((1, context), np.int64)
        self._positions = np.arange(context, dtype=np.int64)[None]
        self._request.set_tensor("beam_idx", ov.Tensor(np.zeros(1, np.int32)))
        self._request.set_tensor(LOGITS_FROM, ov.Tensor(self._from, shared_memory=True))
        self._one = (ov.Tensor(self._token, shared_memory=True), ov.Tensor(self._place, shared_memory=True))

    @property
    def position(self) -> int:
        return self._position

    def decode(self, token: int) -> npt.NDArray[np.float32]:
        self._check((token,))
        self._token[0, 0], self._place[0, 0], self._from[0] = token, self._position, 0
        last: npt.NDArray[np.float32] = self._run((token,), *self._one)[0]
        return last

    def prefill(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        if len(ids) == 1:
            return self.decode(ids[0])
        last: npt.NDArray[np.float32] = self._forward(ids, len(ids) - 1)[-1]
        return last

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        return np.array(self._forward(ids, 0))

    def rewind(self, position: int) -> None:
        if not 0 <= position <= self._position:
            raise ValueError(f"cannot rewind to {position}, the cache holds {self._position} tokens")
        if position == self._position == len(self._fed):  # an interrupt (Ctrl-C) may have left the two apart
            return
        if position == 0 or not self._trims:
            self._open().reset_state()
            again, self._position, self._fed = self._fed[:position], 0, []
            for at in range(0, position, self.chunk):
                self.prefill(again[at : at + self.chunk])
            return
        for state in self._open().query_state():
            state.state = ov.Tensor(np.ascontiguousarray(state.state.data[:, :, :position]))
        self._position, self._fed = position, self._fed[:position]

    def close(self) -> None:
        """Free the weights and the cache; the engine is of no use after."""
        self._request = None

    def _forward(self, ids: Sequence[int], start: int) -> npt.NDArray[np.float32]:
        """Append `ids`; the logits of those from `start` on."""
        self._check(ids)
        self._from[0] = start
        end = self._position + len(ids)
        tokens = np.array([ids], np.int64)
        places = np.ascontiguousarray(self._positions[:, self._position : end])
        return self._run(ids, ov.Tensor(tokens), ov.Tensor(places))

    def _run(self, ids: Sequence[int], tokens: ov.Tensor, places: ov.Tensor) -> npt.NDArray[np.float32]:
        """One inference that appends `ids`: the request's own logits, float32 (wanted, vocab)."""
        request = self._open()
        end = self._position + len(ids)
        if end > self.context:
            raise EdgeqError(f"{end} tokens do not fit into the context of {self.context}")
        request.set_tensor("input_ids", tokens)
        request.set_tensor("position_ids", places)
        request.set_tensor("attention_mask", ov.Tensor(self._mask[:, :end], shared_memory=True))
        try:
            request.infer(share_outputs=True)
        except Exception as error:  # openvino's errors share no other base
            raise EdgeqError(f"OpenVINO failed to run the model: {short(error)}") from error
        self._position = end
        self._fed.extend(ids)
        rows: npt.NDArray[np.float32] = request.get_output_tensor(0).data[0]
        return rows

    def _open(self) -> Any:
        if self._request is None:
            raise EdgeqError("the session is closed", hint="Open the artifact again with edgeq.load")
        return self._request

    def _check(self, ids: Sequence[int]) -> None:
        for token in ids:
            if not 0 <= token < self._vocab_size:
                raise EdgeqError(f"token {token} is not in the model's vocabulary of {self._vocab_size}")


def _can_trim(compiled: ov.CompiledModel) -> bool:
    """Whether the cache may be set to a part of itself.

    A 4-bit one may not: OpenVINO 2026.4 writes beyond its memory then. Its tokens are fed again instead.
    """
    try:
        kept: Any = compiled.get_property("KV_CACHE_PRECISION")
    except RuntimeError:  # a plugin without that choice
        return True
    return str(kept.get_type_name()) != "u4"


def _default_chunk(vocab_size: int) -> int:
    """As many tokens as their logits have room for, a power of two between 16 and `_CHUNK`."""
    chunk = _CHUNK
    while chunk > 16 and chunk * vocab_size * 4 > _LOGITS_BYTES:
        chunk //= 2
    return chunk
