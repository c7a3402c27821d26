"""What a run will take: memory, disk, time. Arithmetic on the spec, and a fifth of a second to see how fast this is."""

from __future__ import annotations

from edgeq.model.spec import ModelSpec
from edgeq.quantize.layout import Needs, needs, shards
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.threads import threads_now
from edgeq.recipe import Recipe


def work_bytes(spec: ModelSpec, method: Method, tokens: int) -> int:
    return 0


def predicted(spec: ModelSpec, recipe: Recipe, threads: int | None = None) -> Needs:
    return needs(shards(spec, recipe.scheme), threads or threads_now())
