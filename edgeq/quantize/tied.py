"""The embedding that is the output head as well: what the head reads decides how its rows are rounded.

The quantized model's last hidden states are not known when the embedding is quantized, which comes first, so the
unquantized model runs once over the calibration text. To the head's second moments a part of the identity is added,
because the same rows are looked up at the input, where every channel counts alike.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from edgeq.checkpoint.weights import Weights, dense
from edgeq.quantize.block import aligned, load_block
from edgeq.quantize.hidden import HiddenStates, float_name, write_hidden
from edgeq.quantize.layout import Plan, shard_name
from edgeq.quantize.replay import float_embedding
from edgeq.quantize.run_block import BlockRunner, normed
from edgeq.quantize.statistics import InputStatistics
from edgeq.quantize.sums import Sums
from edgeq.registry import Progress

# Share of the mean second moment: 0.1 leaves the input's error where rounding to nearest has it (SmolLM2-135M).
INPUT_SHARE = 0.1


@torch.no_grad()
def tied_statistics(
    source: Weights, plan: Plan, tokens: npt.NDArray[np.int64], folder: Path, report: Progress
) -> InputStatistics:
    """Of what the head reads in the unquantized model, with the input's share."""
    spec = source.spec
    shape = (*tokens.shape, spec.hidden_size)
    item = plan[shard_name(None, "embed")][0]
    total = sum(t.tensor.numel for items in plan.values() for t in items)
    write_hidden(folder / float_name(0), shape, float_embedding(spec, source, item, tokens))
    for i in range(spec.n_layers):
        report(0, total, f"the head's input: layer {i}")
        items = plan[shard_name(i)]
        block, runner = load_block(source, i, [t.tensor for t in items], {}, copy=False), BlockRunner(spec, i)
        states = HiddenStates(folder / float_name(i))
        write_hidden(folder / float_name(i + 1), shape, (runner(block.original, x) for x in states.batches()))
        (folder / float_name(i)).unlink()
    last = folder / float_name(spec.n_layers)
    norm, sums = aligned(dense(source.load("final_norm"))), Sums()
    for batch in HiddenStates(last).batches():
        sums.add(normed(spec, norm, batch))
    last.unlink()
    return with_input_share(sums.result())


def with_input_share(head: InputStatistics) -> InputStatistics:
    """The head's statistics with the part of the identity that stands for the input, added in place."""
    head.gram.diagonal().add_(INPUT_SHARE * float(head.gram.diagonal().mean()))
    return head
