"""Codebooks: tables of the values that a code stands for, before its group's scale.

Values ascend, so that the nearest one is found by bisection; codes beyond a table's end are never used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CODEBOOKS: dict[str, tuple[float, ...]] = {
    # QLoRA (arXiv 2305.14314), appendix E: quantiles of a normal distribution, zero among them.
    "nf4": (
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ),
    # OCP Microscaling formats 1.0: E2M1.
    "fp4": (-6.0, -4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0),
    # ggml-common.h, kvalues_iq4nl.
    "iq4_nl": (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113),
    # BitNet b1.58 (arXiv 2402.17764).
    "ternary": (-1.0, 0.0, 1.0),
}


def codebook(name: str) -> npt.NDArray[np.float32]:
    """The table of that name: float32 (entries,), ascending.

    Raises:
        EdgeqError: there is none.
    """
    if name not in CODEBOOKS:
        raise EdgeqError(f"no codebook {name!r}", hint=f"There is: {', '.join(CODEBOOKS)}")
    import numpy as np  # here: planning reads the tables and loads no numpy

    return np.array(CODEBOOKS[name], np.float32)
