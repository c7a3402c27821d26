"""What onnxruntime takes beside the stored weights: against measured processes, and in the right direction."""

from __future__ import annotations

import pytest

from edgeq.estimate import footprint
from edgeq.estimate.runtime import resident_weight_bytes, runtime_overhead
from edgeq.model.spec import MLP, Attention, Layer, ModelSpec, Rope
from edgeq.scheme import Scheme, int_grid

TARGET = "onnxruntime/cpu"
MIB = 1 << 20


def llama(
    layers: int, hidden: int, mlp: int, heads: int, kv_heads: int, vocab: int = 49152, tied: bool = True
) -> ModelSpec:
    layer = Layer(Attention(heads, kv_heads, 64, 0.125, Rope(1e5, 64)), MLP(mlp))
    return ModelSpec("m", "llama", hidden, vocab, (layer,) * layers, tied, 8192)


SMALL, LARGE = llama(30, 576, 1536, 9, 3), llama(16, 2048, 5632, 32, 8)
INT4 = Scheme("rtn-int4-g32", "rtn", int_grid(4, 32), int_grid(8, 32))


@pytest.mark.parametrize(
    ("spec", "context", "peak_mib"),
    [(SMALL, 80, 258.7), (SMALL, 520, 290.1), (LARGE, 80, 974.1), (LARGE, 520, 1029.5)],
)
def test_measured_peaks_are_met_within_a_tenth(spec: ModelSpec, context: int, peak_mib: float) -> None:
    """Peak resident memory of a process that loads the artifact and generates; onnxruntime 1.31.1, Linux, x86-64."""
    total = footprint(spec, INT4, TARGET, context, kv_dtype="f32").total
    assert total / MIB == pytest.approx(peak_mib, rel=0.1)


def test_other_targets_were_not_measured() -> None:
    assert runtime_overhead(SMALL, INT4, "llamacpp/cpu", 512) is None
    assert runtime_overhead(SMALL, INT4, "onnxruntime/cuda", 512) is None


def test_overhead_grows_with_vocabulary_and_context() -> None:
    base = runtime_overhead(SMALL, INT4, TARGET, 512)
    assert base is not None and base > 40 * MIB
    for spec, context in ((SMALL, 4096), (llama(30, 576, 1536, 9, 3, vocab=98304), 512)):
        more = runtime_overhead(spec, INT4, TARGET, context)
        assert more is not None and more > base


def test_larger_groups_and_fewer_bits_are_packed_smaller() -> None:
    def resident(bits: int, group: int) -> int:
        grid = int_grid(bits, group)
        return resident_weight_bytes(LARGE, Scheme("s", "rtn", grid, grid))

    assert resident(4, 128) < resident(4, 64) < resident(4, 32) < resident(8, 32)


def test_an_untied_head_is_packed_as_a_matrix_of_its_own() -> None:
    tied, untied = (resident_weight_bytes(llama(2, 512, 1024, 8, 2, tied=t), INT4) for t in (True, False))
    assert abs(untied - tied) < 0.2 * tied
