"""A request as a person types it, field by field."""

from __future__ import annotations

import re
from dataclasses import replace

from edgeq.errors import EdgeqError
from edgeq.plan.request import Request, parse_size

_WHOLE = re.compile(r"\d{1,3}([, _]\d{3})+|\d+")
_LONGEST = 20  # characters of a figure: more is a slip of the hand


def typed(request: Request, name: str) -> str:
    """A field's value as it would be typed; nothing where the default is none."""
    value = getattr(request, name)
    if name == "max_memory" and value is not None:
        return f"{value / 1e9:g}GB" if value % 10**6 == 0 else str(value)
    if name == "targets":
        return ",".join(value)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def changed(request: Request, name: str, text: str) -> Request:
    """With another value of a field; nothing typed means the default where that is none.

    Raises:
        EdgeqError: a value that makes no sense.
    """
    text = text.strip()
    if len(text) > _LONGEST and name not in ("targets", "objective"):
        raise EdgeqError(f"too long: {text[:_LONGEST]!r} ...", hint="Give a figure")
    if name == "context":
        return replace(request, context=_whole(text, "a context", "Give a number of tokens, e.g. 8192"))
    if name == "batch":
        return replace(request, batch=_whole(text, "sequences", "Give how many run at once, e.g. 1"))
    if name == "min_tps":
        return replace(request, min_tps=_number(text))
    if name == "max_memory":
        return replace(request, max_memory=parse_size(text) if text else None)
    if name == "kv_dtype":
        return replace(request, kv_dtype=text or None)
    if name == "targets":
        return replace(request, targets=tuple(text.split(",")) if text else ())
    return replace(request, objective=text)


def _whole(text: str, what: str, hint: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise EdgeqError(f"not a number: {text!r}" if text else f"{what} must be given", hint=hint)
    return int(re.sub("[, _]", "", text))


def _number(text: str) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise EdgeqError(f"not a number: {text!r}", hint="Give tokens a second, e.g. 10, or nothing") from None
