"""From a device and a model to ranked candidates. What plans is imported when it is first asked for: a `Request` alone,
as the application's start needs it, costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeq.callable_package import make_callable
from edgeq.plan.request import OBJECTIVES, Request, parse_size

if TYPE_CHECKING:
    from edgeq.plan.candidate import Candidate
    from edgeq.plan.plan import Plan, make_plan

__all__ = ["OBJECTIVES", "Candidate", "Plan", "Request", "make_plan", "parse_size"]


def __getattr__(name: str) -> Any:
    if name == "Candidate":
        from edgeq.plan.candidate import Candidate

        return Candidate
    if name in ("Plan", "make_plan"):
        from importlib import import_module

        return getattr(import_module("edgeq.plan.plan"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


make_callable(__name__)  # edgeq.plan("7B")
