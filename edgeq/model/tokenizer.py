"""The tokenizer that a model brought along, opened from its files, whether they lie in a folder or in a GGUF."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.registry import runtime

NEEDED = "tokenizer.json"


def open_tokenizer(files: Mapping[str, Path | bytes], where: object = None) -> Any:
    """A tokenizer as sessions have it: `encode(text, special=True)`, `decode(ids)`, `render(messages)`, `eos_id`.

    Args:
        files: what `Weights.tokenizer_files` gives.
        where: the model, for the message.

    Raises:
        EdgeqError: there is no tokenizer, it is damaged, or `tokenizers` is not installed.
    """
    if NEEDED not in files:
        hint = "Give a model folder that holds tokenizer.json, or a GGUF file"
        raise EdgeqError("the model has no tokenizer.json, so no text can be read", where=where, hint=hint)
    folder, temporary = _together(files)
    reader: Any = runtime("torch")  # registered by edgeq itself; the core imports no runtime by name
    try:
        made = reader.tokenizer(folder)
    except EdgeqError as error:
        missing = error.__cause__ if isinstance(error.__cause__, ImportError) else None
        way_out = error.hint if missing else "Fetch the model's tokenizer again"
        raise EdgeqError(error.what, where=where or error.where, hint=way_out) from error
    if temporary:
        weakref.finalize(made, shutil.rmtree, folder, True)  # the chat template is read from it when first asked for
    return made


def prefix(tokenizer: Any) -> list[int]:
    """The tokens that the model expects before a text (its BOS), empty for most models of today."""
    plain, marked = tokenizer.encode("a", special=False), tokenizer.encode("a")
    return next((marked[:at] for at in range(len(marked)) if marked[at : at + len(plain)] == plain), [])


def _together(files: Mapping[str, Path | bytes]) -> tuple[Path, bool]:
    """One folder that holds the files, and whether it was made for them."""
    paths = [f for f in files.values() if isinstance(f, Path)]
    if len(paths) == len(files) and len({p.parent for p in paths}) == 1:
        return paths[0].parent, False
    folder = Path(tempfile.mkdtemp(prefix="edgeq-tokenizer-"))
    for name, content in files.items():
        (folder / Path(name).name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return folder, True
