"""A tiny model that talks on and on, its artifact, and waiting for what a chat says."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tiny_llama import write_llama, write_words

from edgeq.exporters.onnx.export import export
from edgeq.jobs.chat import Chat, News
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe

TEMPLATE = "{% for m in messages %}<s> {{ m['content'] }} {% endfor %}"
POSITIONS = 131072  # an answer of so many tokens takes longer than any test waits before it acts


def write_model(folder: Path, template: str | None = TEMPLATE) -> Path:
    write_llama(folder, max_position_embeddings=POSITIONS)
    write_words(folder, template)
    return folder


def write_artifact(model: Path) -> Path:
    made = quantize(open_source(str(model)), Recipe(str(model)), model.with_name(f"{model.name}-int4"), threads=1)
    return export(made, model.with_name(f"{model.name}-int4-onnx")).path


def hear(chat: Chat, until: Callable[[list[News]], bool], seconds: float = 60) -> list[News]:
    """What it says until it is so."""
    end, said = time.monotonic() + seconds, []
    while not until(said):
        assert time.monotonic() < end, said[-3:]
        said += chat.news()
        time.sleep(0.01)
    return said
