"""What a run will take: memory, disk, time. Arithmetic on the spec, and a fifth of a second to see how fast this is.

Costs are in floating-point operations at the rate of a matrix product on this machine, measured once for each part on
one core of a server (95 GFLOP/s in single precision): an estimate to within a factor of two, not a promise.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache

import numpy as np

from edgeq.model.spec import MLP, Attention, ModelSpec, MoE
from edgeq.quantize.allocate import budget_bytes, candidates
from edgeq.quantize.layout import Item, Needs, Plan, needs, shards
from edgeq.quantize.methods import find_method
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.mixtures import mixture_of
from edgeq.quantize.solvers.rtn import round_to_nearest
from edgeq.quantize.threads import threads_now
from edgeq.recipe import Recipe

TOKENS_AT_ONCE = 2048  # of a batch, as edgeq.quantize.hidden has it, which needs torch
TORCH_RAM = 330_000_000  # resident after torch is imported and has computed; measured
GRAM_COPIES = 5, 3  # of a group's gram matrix while it is factored, up to 4096 channels (in double) and beyond
EXPERT_GRAMS = 1 << 28  # bytes of gram matrices of experts at once, as edgeq.quantize.gather_experts has it
MATRIX_COPIES = 4  # float32 matrices of a solver beside the weight; measured
SEARCH_FLOP = {"int": 19_000, "affine": 33_000, "codebook": 43_000, "super": 52_000}  # of a weight; measured
SOLVE_FLOP = 60  # of a weight and input channel, for error-compensating solvers; measured
GUARD_FLOP = 6  # of a weight and input channel: three quadratic forms
FORWARD_FLOP = 2 / 0.5  # of a weight and token: a block reaches half of a matrix product's rate; measured
PASSES = 1.3  # through a block for its groups' inputs and its output
REFINE_PASSES = 200 * 8 * 3  # of one sequence: steps, sequences of a step, forward and backward


def predicted(spec: ModelSpec, recipe: Recipe, threads: int | None = None, *, method: Method | None = None) -> Needs:
    """What quantizing a model by a recipe will take, allocation and the writing of calibration text left out.

    Args:
        threads: as `edgeq.quantize.engine.quantize` takes them.
        method: the recipe's, where it is at hand.
    """
    method, threads = method or find_method(recipe.method), threads or threads_now()
    plan = shards(spec, recipe.scheme, mixture_of(recipe, spec))
    base = needs(plan, threads)
    if method.allocation is not None:  # which spends what it may
        base = replace(base, disk_bytes=budget_bytes(spec, recipe, candidates(spec, recipe)))
    length = min(recipe.calibration_length, spec.max_positions)
    tokens = max(1, recipe.calibration_tokens // length) * length if method.needs else 0
    ram = base.ram_bytes if not method.needs else _block_ram(spec, plan, method)
    seconds = _flop(spec, plan, method, tokens, length) / flop_rate(threads)
    return Needs(base.disk_bytes, ram, base.weights, work_bytes(spec, method, tokens), seconds)


def work_bytes(spec: ModelSpec, method: Method, tokens: int) -> int:
    """Bytes of hidden states at their most: what a block reads and gives, and what its passes put down."""
    if not method.needs:
        return 0
    streams = 2 if method.needs & {"float_stream", "cross"} or method.refine is not None else 1
    taps = 2 if "cross" in method.needs else 1
    widest = max(_widths(spec, i) for i in range(spec.n_layers))
    return 4 * tokens * (2 * streams * spec.hidden_size + taps * widest)


@cache
def flop_rate(threads: int) -> float:
    """Floating-point operations a second of a matrix product in single precision on so many threads."""
    a = np.ones((512, 512), np.float32)
    a @ a
    # Processor time, so that what else runs here counts as little for the prediction as for what comes after it.
    begun, started, products = time.perf_counter(), time.process_time(), 0
    while products == 0 or (time.process_time() - started < 0.2 and time.perf_counter() - begun < 0.5):
        a @ a
        products += 1
    return threads * products * 2 * 512**3 / max(1e-6, time.process_time() - started)


def _block_ram(spec: ModelSpec, plan: Plan, method: Method) -> int:
    """At the peak: a block as floats, once or more; a group's gram matrices; activations; codes."""
    kept = 1 + bool(method.transforms) + bool(method.refine is not None or "cross" in method.needs)
    peak = 0
    for i in range(spec.n_layers):
        items = [x for x in _layers(plan)[i] if len(x.tensor.shape) >= 2]
        weights = sum(x.tensor.numel for x in items)
        columns = max(x.tensor.shape[-1] for x in items)
        largest = max(x.tensor.numel // _experts(x) for x in items)
        gram = 4 * columns**2 * (GRAM_COPIES[columns > 4096] + ("cross" in method.needs))
        gram += min(EXPERT_GRAMS, sum(4 * x.tensor.shape[0] * columns**2 for x in items if x.tensor.expert))
        activations = 4 * TOKENS_AT_ONCE * 3 * _widths(spec, i)
        peak = max(peak, 4 * weights * kept + 2 * weights + gram + 4 * MATRIX_COPIES * largest + activations)
    return TORCH_RAM + peak


def _flop(spec: ModelSpec, plan: Plan, method: Method, tokens: int, length: int) -> float:
    items = [x for shard in plan.values() for x in shard if x.grid.kind != "float"]
    total = float(sum(x.tensor.numel * SEARCH_FLOP[_kind(x)] for x in items))
    if not method.needs:
        return total
    sides = 2 if "cross" in method.needs else 1
    passes = PASSES * sides + bool(method.needs & {"float_stream", "cross"} or method.refine) + len(method.transforms)
    if method.refine is not None:
        passes += REFINE_PASSES * length / tokens
    for layer in _layers(plan):
        matrices = [x for x in layer if len(x.tensor.shape) >= 2]
        inputs = {(x.tensor.shape[-1], x.tensor.expert): _share(spec, x) for x in matrices}
        total += passes * FORWARD_FLOP * tokens * sum(x.tensor.numel / _experts(x) * _share(spec, x) for x in matrices)
        total += sides * 2 * tokens * sum(k**2 * share for (k, _), share in inputs.items())
        per_column = GUARD_FLOP + (SOLVE_FLOP if method.solver is not round_to_nearest else 0)
        total += per_column * sum(x.tensor.numel * x.tensor.shape[-1] for x in matrices if x.grid.kind != "float")
    return total


def _experts(item: Item) -> int:
    """Matrices in a tensor."""
    return item.tensor.shape[0] if item.tensor.expert else 1


def _share(spec: ModelSpec, item: Item) -> int:
    """How many of a tensor's matrices a token goes through."""
    ffn = spec.layers[item.tensor.layer or 0].ffn
    return ffn.active if item.tensor.expert and isinstance(ffn, MoE) else 1


def _layers(plan: Plan) -> list[list[Item]]:
    return [items for items in plan.values() if items[0].tensor.layer is not None]


def _kind(item: Item) -> str:
    if item.grid.super_size is not None:
        return "super"
    if item.grid.codebook is not None:
        return "codebook"
    return "affine" if item.grid.zero == "float" else "int"


def _widths(spec: ModelSpec, i: int) -> int:
    """Values a token has in the inputs of `o` and of `down`."""
    layer = spec.layers[i]
    attention = layer.mixer.heads * layer.mixer.head_dim if isinstance(layer.mixer, Attention) else spec.hidden_size
    return attention + (layer.ffn.intermediate if isinstance(layer.ffn, MLP) else spec.hidden_size)
