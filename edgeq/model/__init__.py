"""ModelSpec and its readers. Names are imported on first use, so that importing one file stays cheap.

The list of tensors is `edgeq.model.tensors.tensors`: here its name belongs to the module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeq.model.catalog import known_models, size_classes
    from edgeq.model.read import read_model
    from edgeq.model.spec import ModelSpec
    from edgeq.model.tensors import active_parameters, by_role, parameters

_HOME = {
    "ModelSpec": "spec",
    "active_parameters": "tensors",
    "by_role": "tensors",
    "known_models": "catalog",
    "parameters": "tensors",
    "read_model": "read",
    "size_classes": "catalog",
}
__all__ = [
    "ModelSpec",
    "active_parameters",
    "by_role",
    "known_models",
    "parameters",
    "read_model",
    "size_classes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
