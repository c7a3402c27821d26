"""edgeq: from "will it run on this device?" to "it runs, here is how well".

The application's API. Every name is imported on first use, so `import edgeq` costs nothing and
an app that only runs a model loads only its runtime::

    session = edgeq.load("smollm2-onnx")
    print(session.generate("The capital of France is"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["EdgeqError", "__version__", "convert", "inspect", "load", "plan", "profile", "quantize"]

if TYPE_CHECKING:
    from edgeq.api import convert, inspect, load, plan, profile, quantize
    from edgeq.errors import EdgeqError


def __getattr__(name: str) -> Any:
    if name == "EdgeqError":
        from edgeq.errors import EdgeqError

        return EdgeqError
    if name in ("plan", "quantize"):  # packages that can be called, see edgeq.callable_package
        from importlib import import_module

        return import_module(f"edgeq.{name}")
    if name in __all__:
        from edgeq import api

        return getattr(api, name)
    raise AttributeError(f"module 'edgeq' has no attribute {name!r}")
