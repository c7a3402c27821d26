"""Short and varied texts (prose, code, dialogue, JSON, arithmetic, languages) that come with edgeq, or a user's own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from edgeq.errors import EdgeqError

SEPARATOR = "\n===\n"


def built_in_texts() -> list[str]:
    """The passages that come with edgeq, about 600 tokens together."""
    return (files("edgeq.model") / "texts.txt").read_text("utf-8").strip().split(SEPARATOR)


def read_text(path: Path) -> str:
    """A user's text.

    Raises:
        EdgeqError: it can't be read, is not UTF-8, or is empty.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise EdgeqError(f"cannot read the text: {error.strerror or error}", where=path) from error
    except UnicodeDecodeError as error:
        raise EdgeqError("the text is not UTF-8", where=path, hint="Convert it first") from error
    if not text.strip():
        raise EdgeqError("the text is empty", where=path)
    return text
