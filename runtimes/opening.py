"""What every runtime asks of an artifact before it opens it: its context, the tokens that end an answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    from edgeq.artifact import Artifact

DEFAULT_CONTEXT = 4096


def check_known(runtime: str, options: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raises an EdgeqError naming an option that the runtime does not have."""
    names = list(known)
    for name in sorted(set(options) - set(names)):
        raise EdgeqError(f"the {runtime} runtime has no option {name!r}", hint=f"Known: {', '.join(names)}")


def context_of(artifact: Artifact, asked: int | None) -> int:
    """How many tokens a session may have: what was asked for, else 4096 or less where the model's limit is lower or
    its longer sequences use other rotary frequencies (LongRoPE), which would change short ones, too.

    Raises:
        EdgeqError: more than the model knows.
    """
    limit = positive(artifact.model.get("max_positions")) or DEFAULT_CONTEXT
    if asked is not None and asked > limit:
        raise EdgeqError(f"the model knows {limit} positions, a context of {asked} is too long")
    return asked or min(limit, switch_of(artifact) or limit, DEFAULT_CONTEXT)


def switch_of(artifact: Artifact) -> int | None:
    """The length beyond which LongRoPE uses other frequencies."""
    return positive(artifact.model.get("rope_switch"))


def eos_ids(artifact: Artifact) -> list[int]:
    value = artifact.model.get("eos_ids")
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, int)]


def positive(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
