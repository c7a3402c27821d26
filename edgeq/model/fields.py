"""Reading numbers out of an untrusted config: right type, finite, in a sane range, or one clear error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError

MAX_LAYERS = 4096
MAX_SIZE = 1 << 26  # the widest dimension any field may state; real ones stay below 2**21
HUGE = 1e30  # no honest scale, base or factor is larger, or smaller than its inverse
MAX_JSON_BYTES = 64 << 20


def load_json(path: Path) -> Any:
    """The contents of a small JSON file.

    Raises:
        EdgeqError: it can't be read, is absurdly large, or is not JSON (also when nested too deeply).
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise EdgeqError("the file is too large for a configuration", where=path)
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EdgeqError(f"cannot read: {error.strerror or error}", where=path) from error
    except RecursionError as error:
        raise EdgeqError("the JSON is nested too deeply", where=path) from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError and integers of thousands of digits
        reason = str(error).splitlines()[0][:120]
        raise EdgeqError(f"not valid JSON: {reason}", where=path, hint="Download the file again") from error


class Fields:
    """A mapping from an untrusted file, read field by field.

    Args:
        data: what the file held; anything but an object is an error.
        where: the file, for messages.
        path: the name of this object inside the file, for messages.
    """

    def __init__(self, data: Any, where: object, path: str = "") -> None:
        if not isinstance(data, Mapping):
            raise EdgeqError(f"{path or 'the configuration'} should be an object", where=where)
        self.data: Mapping[str, Any] = data
        self.where = where
        self.path = path

    def has(self, name: str) -> bool:
        """The field is there and not null."""
        return self.data.get(name) is not None

    def first(self, *names: str) -> str:
        """The first of several spellings that is present, else the first."""
        return next((n for n in names if self.has(n)), names[0])

    def wrong(self, name: str, expected: str) -> EdgeqError:
        label = f"{self.path}.{name}" if self.path else name
        if not self.has(name):
            return EdgeqError(f"{label} is missing", where=self.where, hint="Add it, or use a complete configuration")
        shown = repr(self.data[name])
        shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
        return EdgeqError(f"{label} is {shown}, expected {expected}", where=self.where)

    def integer(self, name: str, default: int | None = None, *, low: int = 1, high: int = MAX_SIZE) -> int:
        """A whole number in [low, high]; `default` when absent, an error when there is none."""
        value = self.data.get(name)
        if value is None:
            if default is None:
                raise self.wrong(name, "a whole number")
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(name, f"a whole number from {low} to {high}")
        return value

    def optional_integer(self, name: str, *, low: int = 0, high: int = MAX_SIZE) -> int | None:
        return self.integer(name, low=low, high=high) if self.has(name) else None

    def number(self, name: str, default: float | None = None, *, positive: bool = True) -> float:
        """A finite number, above zero unless `positive` is off."""
        value = self.data.get(name)
        if value is None:
            if default is None:
                raise self.wrong(name, "a number")
            return default
        made = _finite(value)
        if made is None or abs(made) > HUGE or (positive and made < 1 / HUGE):
            raise self.wrong(name, "a finite number above zero" if positive else "a finite number")
        return made

    def optional_number(self, name: str) -> float | None:
        return self.number(name) if self.has(name) else None

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.data.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value = self.data.get(name)
        if value is None:
            if default is None:
                raise self.wrong(name, "a string")
            return default
        if not isinstance(value, str) or len(value) > 200:
            raise self.wrong(name, "a short string")
        return value

    def items(self, name: str) -> list[Any] | None:
        """A list of at most 65,536 entries, None when absent."""
        value = self.data.get(name)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or len(value) > 1 << 16:
            raise self.wrong(name, "a list")
        return list(value)

    def numbers(self, name: str) -> tuple[float, ...] | None:
        values = self.items(name)
        if values is None:
            return None
        made = [_finite(v) for v in values]
        if any(v is None for v in made):
            raise self.wrong(name, "a list of finite numbers")
        return tuple(v for v in made if v is not None)

    def integers(self, name: str) -> list[int] | None:
        values = self.items(name)
        if values is None:
            return None
        if any(isinstance(v, bool) or not isinstance(v, int) or abs(v) > MAX_SIZE for v in values):
            raise self.wrong(name, "a list of whole numbers")
        return values

    def texts(self, name: str) -> list[str] | None:
        values = self.items(name)
        if values is None:
            return None
        if any(not isinstance(v, str) for v in values):
            raise self.wrong(name, "a list of strings")
        return values

    def ids(self, name: str) -> tuple[int, ...]:
        """Token ids: one number or a list of them; negative ones mean none."""
        value = self.data.get(name)
        if value is None:
            return ()
        found = self.integers(name) if isinstance(value, (list, tuple)) else [self.integer(name, low=-1)]
        return tuple(dict.fromkeys(v for v in found or () if v >= 0))

    def child(self, name: str) -> Fields | None:
        """A nested object, None when absent."""
        if not self.has(name):
            return None
        return Fields(self.data[name], self.where, f"{self.path}.{name}" if self.path else name)


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        made = float(value)
    except OverflowError:
        return None
    return made if math.isfinite(made) else None
