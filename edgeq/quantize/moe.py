"""What methods can't do with mixtures of experts yet, each with its reason."""

from __future__ import annotations

from edgeq.errors import EdgeqError
from edgeq.model.spec import ModelSpec, MoE
from edgeq.quantize.methods.composition import Method
from edgeq.recipe import Recipe


def refuse_mixture(spec: ModelSpec, recipe: Recipe, method: Method) -> None:
    """Raise an EdgeqError where a method with text can't quantize experts."""
    if not any(isinstance(x.ffn, MoE) for x in spec.layers):
        return
    why, hint = _why(recipe, method)
    if why is not None:
        raise EdgeqError(f"{method.name} can't quantize experts: {why}", where=spec.location or spec.name, hint=hint)


def _why(recipe: Recipe, method: Method) -> tuple[str | None, str]:
    if method.allocation == "measured":
        return "the sensitivity of an expert is not measured", "omq allots bits without text"
    if recipe.activations == "static":
        return "one static grid would have to fit what all of them read", "Try --activations dynamic"
    if recipe.activations == "dynamic" and "smoothquant" in method.name.split("+"):
        return "it smooths what all of a layer's tokens have in common", "Try gptq or awq with --activations dynamic"
    return None, ""
