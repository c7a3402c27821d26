"""What a run will take: memory, disk, time, by the arithmetic of `edgeq.estimate.needs` on what exactly it will do.

Its rate is measured here in a fifth of a second, where the plan has the device's.
"""

from __future__ import annotations

import time
from functools import cache

import numpy as np

from edgeq.estimate.effort import Effort
from edgeq.estimate.effort import effort as named_effort
from edgeq.estimate.needs import Part, arithmetic, peak_ram, state_bytes
from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import parameters
from edgeq.quantize.allocate import budget_bytes, candidates
from edgeq.quantize.calibrate_needs import own_text_needs
from edgeq.quantize.layout import Needs, Plan, disk_bytes, shards, stored_bytes
from edgeq.quantize.methods import find_method
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.mixtures import mixture_of
from edgeq.quantize.solvers.rtn import round_to_nearest
from edgeq.quantize.threads import threads_now
from edgeq.recipe import Recipe


def predicted(spec: ModelSpec, recipe: Recipe, threads: int | None = None, *, method: Method | None = None) -> Needs:
    """What quantizing a model by a recipe will take, allocation and the writing of calibration text left out.

    Args:
        threads: as `edgeq.quantize.engine.quantize` takes them.
        method: the recipe's, where it is at hand.
    """
    method, threads = method or find_method(recipe.method), threads or threads_now()
    plan = shards(spec, recipe.scheme, mixture_of(recipe, spec))
    disk = disk_bytes(plan)
    if method.allocation is not None:  # which spends what it may
        disk = budget_bytes(spec, recipe, candidates(spec, recipe))
    length = min(recipe.calibration_length, spec.max_positions)
    tokens = max(1, recipe.calibration_tokens // length) * length if method.needs else 0
    cost, found = effort_of(method), parts(spec, plan)
    seconds = arithmetic(found, cost, tokens, length) / flop_rate(threads)
    return Needs(
        disk, peak_ram(spec, found, cost, threads), parameters(spec), work_bytes(spec, method, tokens), seconds
    )


def writing_needs(recipe: Recipe, spec: ModelSpec, threads: int | None = None) -> tuple[float, int] | None:
    """Seconds and bytes that the model takes to write its own calibration text; None where it need not."""
    if recipe.calibration != "self" or not find_method(recipe.method).needs:
        return None
    return own_text_needs(spec, recipe, flop_rate(threads or threads_now()))


def effort_of(method: Method) -> Effort:
    """What of a method costs. The steps of a refinement are its name's: a function says nothing of them."""
    return Effort(
        text=bool(method.needs),
        solves=method.solver is not round_to_nearest,
        transforms=len(method.transforms),
        steps=named_effort(method.name).steps if method.refine is not None else 0,
        float_stream="float_stream" in method.needs,
        cross="cross" in method.needs,
    )


def parts(spec: ModelSpec, plan: Plan) -> list[Part]:
    """The plan's tensors as the estimator sees them."""
    return [Part.of(spec, x.tensor, x.grid, stored_bytes(x.stored)) for shard in plan.values() for x in shard]


def work_bytes(spec: ModelSpec, method: Method, tokens: int) -> int:
    """Bytes of hidden states at their most: what a block reads and gives, and what its passes put down."""
    return state_bytes(spec, effort_of(method), tokens)


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
