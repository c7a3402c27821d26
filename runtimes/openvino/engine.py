"""One sequence on one inference request: what is common to both ways of keeping its keys and values."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from edgeq.device.cpu import probe_cpu
from edgeq.device.isa import int8_sums_overflow
from edgeq.device.spec import Cpu
from edgeq.errors import EdgeqError
from edgeq.runtimes.openvino.model import LOGITS_FROM, read_model, read_paged_model, short, vocabulary
from edgeq.runtimes.pages import collapse_in_background, mappings

Row = npt.NDArray[np.float32]
_CHUNK = 512  # prompt tokens per inference
_LOGITS_BYTES = 64 << 20  # most memory for the logits of one inference
_PAGING = {"x86_64", "amd64", "aarch64", "arm64"}  # processors whose plugin has PagedAttention


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
    paged: bool | None = None,
    huge_pages: bool = True,
    rounded_inputs: bool = False,
) -> OpenVinoEngine:
    """Load a model and its weights.

    Args:
        device: `cpu` or `gpu`, refused where it is not; None: `wanted_device` where it is, else the CPU.
        precision: `f32`, `bf16` or `f16` for what is not compressed; None: f32 on the CPU, else the plugin's
            choice.
        long: the sequence may fill the whole context; see `edgeq.runtimes.openvino.model.read_model`.
        paged: attention over blocks in the place of that over the model's state; None: on a CPU, where it can be.
        rounded_inputs: some products have 8-bit inputs on a grid that the model fixes.

    Raises:
        EdgeqError: no such file, damaged, not a model this runtime knows, or no such device; `paged` where it can't be.
    """
    from edgeq.runtimes.openvino.paged import PagedEngine
    from edgeq.runtimes.openvino.stateful import StatefulEngine

    core = ov.Core()
    place = _place(core, device, wanted_device)
    # Decoding is bound by memory reads: a second hardware thread of the same core only costs synchronisation.
    threads = threads or probe_cpu().cores
    properties = _properties(place, threads, precision)
    if rounded_inputs and place == "CPU":
        properties |= exact_products(probe_cpu())
    kind: type[OpenVinoEngine] = PagedEngine
    able = place == "CPU" and platform.machine().lower() in _PAGING
    model = read_paged_model(core, path, long=long) if paged or (paged is None and able) else None
    if model is None:
        if paged:
            raise EdgeqError("this model's attention can't be paged", where=path, hint="Leave out paged")
        kind, model = StatefulEngine, read_model(core, path, long=long)
    try:
        compiled = core.compile_model(model, place, properties)
    except Exception as error:  # openvino's errors share no other base
        raise EdgeqError(f"OpenVINO cannot compile the model: {short(error)}", where=path) from error
    engine = kind(compiled, vocabulary(model), context=context, chunk=chunk, threads=threads, device=place)
    if huge_pages and place == "CPU":
        before = mappings()  # the cache is among them: it should take memory as it fills
        engine.decode(0)  # the plugin packs weights at the first inference, which then isn't the user's
        engine.rewind(0)
        collapse_in_background(before)
    return engine


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


def exact_products(cpu: Cpu) -> dict[str, str]:
    """The property with which this processor computes products of 8-bit inputs as they are meant.

    Where sums of int8 products would overflow (logits 3 to 6 % off for one layer's, OpenVINO 2026.4), inputs are
    rounded to their grid and multiplied in float32.
    """
    return {"LP_TRANSFORMS_MODE": "OFF"} if int8_sums_overflow(cpu.arch, cpu.isa) else {}


class OpenVinoEngine:
    """Follows `edgeq.runtimes.generation.Engine`, but for `rewind`.

    Attributes:
        device: the plugin that runs it: `CPU`, `GPU`.
        token_shape: of the inputs `input_ids` and `position_ids`, -1 for the number of tokens.
    """

    token_shape: tuple[int, ...]

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
        self.chunk = min(chunk or _CHUNK, context)
        self._rows = max(1, _LOGITS_BYTES // (4 * vocab_size))  # logits wanted of one inference
        self._vocab_size = vocab_size
        self._request: Any = compiled.create_infer_request()
        self._position = 0
        # Bound by address: these arrays live as long as the tensors over them do.
        self._token, self._place = (np.zeros(1, np.int64).reshape(self.token_shape) for _ in range(2))
        self._from = np.zeros(1, np.int64)
        self._one = shared(self._token), shared(self._place)
        self._fed_tensor: ov.Tensor | None = None
        self._request.set_tensor(LOGITS_FROM, shared(self._from))

    @property
    def position(self) -> int:
        return self._position

    def decode(self, token: int) -> Row:
        self._check((token,))
        self._token[...], self._place[...], self._from[0] = token, self._position, 0
        last: Row = self._run((token,), *self._one)[0]
        return last

    def prefill(self, ids: Sequence[int]) -> Row:
        if len(ids) == 1:
            return self.decode(ids[0])
        last: Row = self._forward(ids, len(ids) - 1)[-1]
        return last

    def logits(self, ids: Sequence[int]) -> Row:
        parts = [ids[at : at + self._rows] for at in range(0, len(ids), self._rows)]
        rows = [np.array(self._forward(part, 0)) for part in parts]
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def rewind(self, position: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Free the weights and the cache; the engine is of no use after."""
        self._request = None

    def _bind(self, request: Any, count: int) -> None:
        """Tell the request what else depends on where `count` more tokens begin and end."""
        raise NotImplementedError

    def _forward(self, ids: Sequence[int], start: int) -> Row:
        """Append `ids`; the logits of those from `start` on."""
        self._check(ids)
        self._from[0] = start
        places = np.arange(self._position, self._position + len(ids), dtype=np.int64)
        tokens, at = (ov.Tensor(x.reshape(self.token_shape)) for x in (np.array(ids, np.int64), places))
        return self._run(ids, tokens, at)

    def _run(self, ids: Sequence[int], tokens: ov.Tensor, places: ov.Tensor) -> Row:
        """One inference that appends `ids`: the request's own logits, float32 (wanted, vocab)."""
        request = self._open()
        end = self._position + len(ids)
        if end > self.context:
            raise EdgeqError(f"{end} tokens do not fit into the context of {self.context}")
        if tokens is not self._fed_tensor:  # a request keeps what it was given, so decoding binds once
            request.set_tensor("input_ids", tokens)
            request.set_tensor("position_ids", places)
            self._fed_tensor = tokens
        self._bind(request, len(ids))
        try:
            request.infer(share_outputs=True)
        except Exception as error:  # openvino's errors share no other base
            raise EdgeqError(f"OpenVINO failed to run the model: {short(error)}") from error
        self._position = end
        rows: Row = request.get_output_tensor(0).data.reshape(-1, self._vocab_size)
        return rows

    def _open(self) -> Any:
        if self._request is None:
            raise EdgeqError("the session is closed", hint="Open the artifact again with edgeq.load")
        return self._request

    def _check(self, ids: Sequence[int]) -> None:
        for token in ids:
            if not 0 <= token < self._vocab_size:
                raise EdgeqError(f"token {token} is not in the model's vocabulary of {self._vocab_size}")


def shared(array: npt.NDArray[Any]) -> ov.Tensor:
    """A tensor over an array's memory; the array must outlive it."""
    return ov.Tensor(array, shared_memory=True)
