"""Dataclasses to JSON and back, by their type annotations.

A union of dataclasses needs no tag: every field is written, so the field names tell the members apart.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from edgeq.errors import EdgeqError

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Plain dicts, lists, strings and numbers, ready for `json.dumps`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value


def from_json(cls: type[T], data: Any, where: object = None) -> T:
    """Build `cls` from what `to_json` gave.

    Raises:
        EdgeqError: a field is missing, unknown or of the wrong type; the message names its path.
    """
    try:
        made: T = _read(cls, data, cls.__name__)
    except (TypeError, ValueError, RecursionError) as error:
        raise EdgeqError(f"not a valid {cls.__name__}: {error}", where=where) from error
    return made


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _read(kind: Any, data: Any, path: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return data
    if origin is typing.Literal:
        if data not in args:
            raise ValueError(f"{path} is {data!r}, expected one of {', '.join(map(repr, args))}")
        return data
    if origin in (typing.Union, types.UnionType):
        return _read_union(args, data, path)
    if origin is tuple:
        return _read_tuple(args, data, path)
    if origin in (list, dict):
        return _read_container(origin, args, data, path)
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, data, path)
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if kind is None or kind is type(None):
        if data is not None:
            raise ValueError(f"{path} should be null")
        return None
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise ValueError(f"{path} should be {kind.__name__}, found {type(data).__name__}")
    return data


def _read_dataclass(kind: Any, data: Any, path: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{path} should be an object, found {type(data).__name__}")
    hints = _hints(kind)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise ValueError(f"{path} has unknown field {unknown[0]!r}")
    required = {f.name for f in dataclasses.fields(kind) if _required(f)}
    missing = sorted(required - set(data))
    if missing:
        raise ValueError(f"{path} lacks {missing[0]!r}")
    return kind(**{name: _read(hints[name], value, f"{path}.{name}") for name, value in data.items()})


def _required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _read_union(args: tuple[Any, ...], data: Any, path: str) -> Any:
    problems = []
    for option in args:
        try:
            return _read(option, data, path)
        except (TypeError, ValueError) as error:
            problems.append(str(error))
    raise ValueError(problems[0])


def _read_tuple(args: tuple[Any, ...], data: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(data, (list, tuple)):
        raise ValueError(f"{path} should be a list, found {type(data).__name__}")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_read(args[0], v, f"{path}[{i}]") for i, v in enumerate(data))
    if len(args) != len(data):
        raise ValueError(f"{path} should have {len(args)} entries, found {len(data)}")
    return tuple(_read(a, v, f"{path}[{i}]") for i, (a, v) in enumerate(zip(args, data, strict=True)))


def _read_container(origin: Any, args: tuple[Any, ...], data: Any, path: str) -> Any:
    if not isinstance(data, origin):
        raise ValueError(f"{path} should be {origin.__name__}, found {type(data).__name__}")
    if origin is list:
        return [_read(args[0], v, f"{path}[{i}]") for i, v in enumerate(data)]
    return {k: _read(args[1], v, f"{path}.{k}") for k, v in data.items()}
