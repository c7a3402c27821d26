"""Whether a model's original can be opened beside its quantized form: what it needs, and what there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    from edgeq.model.spec import ModelSpec

CONTEXT = 4096  # tokens of the conversation, as the runtimes have it where nobody says otherwise
_TARGET = "torch/cpu"
_SCHEMES = {"bf16": ("bf16", "f16"), "f16": ("fp16", "f16")}  # dtype -> scheme and cache


@dataclass(frozen=True, slots=True)
class Original:
    """A source model as torch would run it.

    Attributes:
        model: what opens it.
        dtype: of its weights then.
        context: tokens of the conversation.
        needs: bytes of memory, by the estimate.
    """

    model: str
    dtype: str
    context: int
    needs: int


def original_of(model: str, spec: ModelSpec) -> Original:
    """What it takes to chat with the original. Reads nothing."""
    from edgeq.estimate.footprint import footprint
    from edgeq.jobs.chat_worker import original_dtype
    from edgeq.scheme import named_scheme

    dtype = original_dtype(spec.source_dtype)
    scheme, cache = _SCHEMES.get(dtype, ("fp32", "f32"))
    context = min(spec.max_positions, CONTEXT)
    needs = footprint(spec, named_scheme(scheme), _TARGET, context, kv_dtype=cache).total
    return Original(model, dtype, context, needs)


def check_room(original: Original, free: int | None = None, beside: int = 0) -> None:
    """Refuse what would not fit.

    Args:
        free: bytes of memory that can be had now; None: as this machine says.
        beside: bytes that the quantized model will yet take of them; 0 when it is loaded.

    Raises:
        EdgeqError: torch is missing, or the memory is not enough.
    """
    from edgeq.amounts import amount
    from edgeq.device.memory import probe_memory
    from edgeq.registry import runtime

    absent = runtime("torch").missing()
    if absent:
        raise EdgeqError(
            f"the original runs with {absent}, which is not installed",
            hint="pip install 'edgeq[quantize]'; the quantized model chats without it",
        )
    here = probe_memory().available_bytes if free is None else free
    if original.needs + beside > here:
        also = f" and the quantized model {amount(beside)}" if beside else ""
        raise EdgeqError(
            f"the original ({original.dtype}) needs about {amount(original.needs)} of memory{also}, "
            f"{amount(here)} is free",
            hint="Close other programs and try again, or go on with the quantized model alone",
        )
