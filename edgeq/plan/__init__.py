"""From a device and a model to ranked candidates."""

from edgeq.callable_package import make_callable
from edgeq.plan.candidate import Candidate
from edgeq.plan.plan import Plan, make_plan
from edgeq.plan.request import OBJECTIVES, Request, parse_size

__all__ = ["OBJECTIVES", "Candidate", "Plan", "Request", "make_plan", "parse_size"]

make_callable(__name__)  # edgeq.plan("7B")
