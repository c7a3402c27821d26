"""What it takes a model to write its own calibration text. Arithmetic on the spec; imports no torch."""

from __future__ import annotations

from edgeq.model.spec import Attention, ModelSpec
from edgeq.model.tensors import parameters
from edgeq.recipe import Recipe

CACHE_BYTES = 2 << 30  # keys and values of one batch
ROWS = 64  # sequences of one batch at most
EFFICIENCY = 0.4  # of a matrix product's rate, with a few dozen rows; assumed
PROCESS = 330_000_000  # with torch loaded; measured
LOGIT_COPIES = 5  # of a step's logits: float32, probabilities and their sums in double precision


def shape_of(spec: ModelSpec, recipe: Recipe) -> tuple[int, int]:
    """Sequences and their length."""
    length = min(recipe.calibration_length, spec.max_positions)
    return max(1, recipe.calibration_tokens // length), length


def rows_of(spec: ModelSpec, length: int, itemsize: int = 4) -> int:
    """Sequences that are written together: a batch reads the weights once a token. Decided by the model alone."""
    return max(1, min(ROWS, CACHE_BYTES // max(1, cache_bytes(spec, itemsize) * length)))


def cache_bytes(spec: ModelSpec, itemsize: int = 4) -> int:
    """Keys and values of one token."""
    mixers = [x.mixer for x in spec.layers]
    return itemsize * sum(2 * m.kv_heads * m.head_dim for m in mixers if isinstance(m, Attention))


def own_text_needs(spec: ModelSpec, recipe: Recipe, flop_rate: float) -> tuple[float, int]:
    """Seconds, and bytes of memory at the peak: the whole model in single precision, unlike in the run itself.

    Args:
        flop_rate: of a matrix product on this machine.
    """
    sequences, length = shape_of(spec, recipe)
    rows = min(sequences, rows_of(spec, length))
    memory = 4 * parameters(spec) + rows * (cache_bytes(spec) * length + 4 * LOGIT_COPIES * spec.vocab_size)
    return 2 * parameters(spec) * sequences * length / (EFFICIENCY * flop_rate), PROCESS + memory
