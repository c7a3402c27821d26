"""From a source model and a recipe to a neutral checkpoint."""

from edgeq.callable_package import make_callable

make_callable(__name__)  # edgeq.quantize("model", "out")
