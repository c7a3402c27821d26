"""Python's collector kept from stopping the window.

A full collection looks at every object there is, in the middle of whatever goes on: with all that the steps import, a
fifth of a second each few seconds. So what a step has loaded once is set aside, and Textual is kept from holding the
drawn lines of widgets that are gone.
"""

from __future__ import annotations

import gc
from functools import lru_cache
from typing import Any

from textual._styles_cache import StylesCache

AFTER_S = 2.0  # by then a step's screen has loaded what it needs
_settled: set[str] = set()


def settle(name: str) -> None:
    """Set aside all that is there now, once a name: the collector looks no more at it, and never frees it.

    Once, because this holds the screen that is shown; what it imported is most of it.
    """
    if name not in _settled:
        _settled.add(name)
        gc.collect()
        gc.freeze()


def mend_styles_cache() -> None:
    """Have a widget's cache of drawn lines end with the widget.

    Textual caches a method together with the object that it is called on, the last 1024 of them; it needs none.
    """
    kind: Any = StylesCache
    method = kind.__dict__.get("get_inner_outer")
    plain: Any = getattr(method, "__wrapped__", None)
    if plain is not None and not isinstance(method, classmethod):
        cached: Any = lru_cache(1024)(plain)
        kind.get_inner_outer = classmethod(cached)
