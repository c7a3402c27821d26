"""The named methods: each a composition, one short file."""

from __future__ import annotations

from edgeq.errors import EdgeqError
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.methods.rtn import rtn

methods = {m.name: m for m in (rtn,)}
methods["none"] = rtn  # of a recipe that keeps half precision: there is nothing it could be asked for


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        EdgeqError: there is none.
    """
    if name not in methods:
        raise EdgeqError(
            f"no quantization method {name!r}", hint=f"There is: {', '.join(n for n in methods if n != 'none')}"
        )
    return methods[name]
