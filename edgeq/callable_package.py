"""`edgeq.plan` and `edgeq.quantize` are packages and, for applications, functions: so the packages can be called."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package that passes a call on to the function of its name in `edgeq.api`.

    The import system binds a package to its name in `edgeq` as soon as anything below it is imported, so a function of
    the same name there would last only until then.
    """

    def __call__(self, *args: Any, **options: Any) -> Any:
        return getattr(import_module("edgeq.api"), self.__name__.rpartition(".")[2])(*args, **options)


def make_callable(name: str) -> None:
    """Called by a package with its own `__name__`."""
    sys.modules[name].__class__ = CallablePackage
