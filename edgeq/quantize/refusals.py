"""What is refused before anything is written: grids a method can't use, and models it would have to run and can't."""

from __future__ import annotations

from edgeq.errors import EdgeqError
from edgeq.model.spec import ModelSpec
from edgeq.quantize.layout import shards
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.moe import refuse_mixture
from edgeq.recipe import Recipe


def refuse_unsupported(spec: ModelSpec, recipe: Recipe, method: Method) -> None:
    """Refuse before anything is written: grids a method can't use, and models that it would have to run and can't.

    Raises:
        EdgeqError: one of these.
    """
    if method.refuses is not None:
        for item in (i for items in shards(spec, recipe.scheme).values() for i in items):
            why = None if item.grid.kind == "float" else method.refuses(item.grid, item.stored.matrix[1])
            if why is not None:
                raise EdgeqError(f"{method.name} can't quantize {item.tensor.name}: {why}", hint="Choose another grid")
    if not method.needs:
        if recipe.activations == "static":
            hint = "Choose one that reads text, e.g. smoothquant or gptq, or --activations dynamic"
            raise EdgeqError(f"{method.name} reads no text, from which static activations are found", hint=hint)
        return
    from edgeq.decoder.decoder import check_supported
    from edgeq.decoder.torch_ops import ABLE

    try:
        check_supported(spec, ABLE)
    except EdgeqError as error:
        hint = "Methods that need no calibration text, rtn and hqq, quantize it all the same"
        raise EdgeqError(f"{method.name} can't run this model: {error.what}", where=error.where, hint=hint) from error
    refuse_mixture(spec, recipe, method)
