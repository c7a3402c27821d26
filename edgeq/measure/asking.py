"""What is measured, as a person types it: a field at a time, and as the options of `edgeq bench`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from edgeq.errors import EdgeqError
from edgeq.measure.bench import Workload

Field = Literal["prompt_tokens", "tokens", "reps", "threads"]


def typed(work: Workload, name: Field) -> str:
    """A field's value as text: `32,128,512`, `128`; empty: the runtime's own threads."""
    if name == "prompt_tokens":
        return ",".join(map(str, work.prompt_tokens))
    value = getattr(work, name)
    return "" if value is None else str(value)


def changed(work: Workload, name: Field, text: str) -> Workload:
    """The work with another value of a field.

    Raises:
        EdgeqError: it is no number above 0, or none is given where one is needed.
    """
    text = text.strip()
    if name == "threads" and not text:
        return replace(work, threads=None)
    parts = text.split(",") if name == "prompt_tokens" else [text]
    numbers = [int(part) for part in parts if part.strip().isdecimal()]
    if len(numbers) != len(parts) or min(numbers) < 1:
        what = "prompt lengths" if name == "prompt_tokens" else "a number"
        hint = "Give numbers with commas: 32,128,512" if name == "prompt_tokens" else "Give 1 or more"
        raise EdgeqError(f"not {what}: {text!r}", hint=hint)
    if name == "prompt_tokens":
        return replace(work, prompt_tokens=tuple(numbers))
    value = numbers[0]
    if name == "tokens":
        return of_tokens(work, value)
    return replace(work, reps=value) if name == "reps" else replace(work, threads=value)


def of_tokens(work: Workload, tokens: int) -> Workload:
    """With so many new tokens, after a prompt that is no longer than they are."""
    return replace(work, tokens=tokens, context=min(Workload().context, tokens))


def options(work: Workload) -> Sequence[str]:
    """Of `edgeq bench`, where the work is not the usual."""
    usual, fields = Workload(), ("prompt_tokens", "tokens", "reps", "threads")
    given = [name for name in fields if getattr(work, name) != getattr(usual, name)]
    return [word for name in given for word in (f"--{name.replace('_', '-')}", typed(work, name))]  # type: ignore[arg-type]
