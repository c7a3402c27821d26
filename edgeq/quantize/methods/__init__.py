"""The named methods, each a composition in one short file, and their free combinations (`awq+gptq`)."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from importlib import import_module

from edgeq.errors import EdgeqError
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.solvers.rtn import round_to_nearest

# name -> module in this package, attribute. Imported only when asked for: most need torch.
NAMED: dict[str, tuple[str, str]] = {
    "rtn": ("rtn", "rtn"),
    "minmax": ("rtn", "minmax"),
    "hqq": ("hqq", "hqq"),
    "nf4": ("nf4", "nf4"),
    "ternary": ("ternary", "ternary"),
    "absmean": ("ternary", "absmean"),
    "gptq": ("gptq", "gptq"),
    "qronos": ("qronos", "qronos"),
    "sparsegpt": ("sparsegpt", "sparsegpt"),
    "sparsegpt-2:4": ("sparsegpt", "sparsegpt_2_4"),
    "awq": ("awq", "awq"),
    "smoothquant": ("smoothquant", "smoothquant"),
    "rotate": ("rotation", "rotate"),
    "autoround": ("autoround", "autoround"),
    "autoround-light": ("autoround", "autoround_light"),
    "autoround-best": ("autoround", "autoround_best"),
    "mixed": ("mixed", "mixed"),
    "omq": ("mixed", "omq"),
}


def check_method(name: str) -> None:
    """Raise an EdgeqError unless there is a method of that name; imports none."""
    parts = name.split("+")
    unknown = [p for p in parts if p not in NAMED and name != "none"]
    if unknown:
        raise EdgeqError(
            f"no quantization method {unknown[0]!r}",
            hint=f"There is: {', '.join(NAMED)}; joined by + where they go together (awq+gptq)",
        )
    if len(set(parts)) < len(parts):
        raise EdgeqError(f"the method {name} names a part twice")


def find_method(name: str) -> Method:
    """The method of that name, or the combination of the names that `+` joins.

    Raises:
        EdgeqError: there is none, or two parts want the same place (two solvers).
    """
    check_method(name)
    if name == "none":  # of a recipe that keeps half precision: there is nothing it could be asked for
        name = "rtn"
    parts = [_named(p) for p in name.split("+")]
    return replace(reduce(_joined, parts), name=name)


def all_methods() -> list[Method]:
    """Every named method."""
    return [_named(name) for name in NAMED]


def _named(name: str) -> Method:
    module, attribute = NAMED[name]
    found: Method = getattr(import_module(f"{__name__}.{module}"), attribute)
    return found


def _joined(a: Method, b: Method) -> Method:
    """Two methods as one: transforms in order, and of everything else what either brings."""
    from edgeq.quantize.grids import find

    def only(place: str, first: object, second: object, default: object) -> object:
        if first is not default and second is not default and first is not second:
            raise EdgeqError(f"{a.name} and {b.name} can't be joined: both bring a {place}")
        return second if first is default else first

    return Method(
        f"{a.name}+{b.name}",
        solver=only("solver", a.solver, b.solver, round_to_nearest),  # type: ignore[arg-type]
        search=only("grid search", a.search, b.search, find),  # type: ignore[arg-type]
        transforms=a.transforms + tuple(t for t in b.transforms if t not in a.transforms),
        rotate=a.rotate or b.rotate,
        refine=only("refinement", a.refine, b.refine, None),  # type: ignore[arg-type]
        needs=a.needs | b.needs,
        refuses=only("refusal", a.refuses, b.refuses, None),  # type: ignore[arg-type]
        allocation=only("allocation", a.allocation, b.allocation, None),  # type: ignore[arg-type]
        weigh=only("weighing of tokens", a.weigh, b.weigh, None),  # type: ignore[arg-type]
    )
