"""A `Modelfile`, with which Ollama takes the file in: `ollama create NAME -f Modelfile`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgeq.model.spec import ModelSpec


def modelfile(file: str, keys: Mapping[str, Any], spec: ModelSpec) -> str:
    """Where the weights are and which texts end an answer. Ollama reads the chat template out of the GGUF; where that
    has none, the prompt is to be continued as it is.

    Args:
        keys: of the GGUF, for the tokens' texts and the template.
    """
    return "\n".join(_lines(file, keys, spec)) + "\n"


def _lines(file: str, keys: Mapping[str, Any], spec: ModelSpec) -> Iterator[str]:
    yield f"FROM ./{file}"
    if "tokenizer.chat_template" not in keys:
        yield 'TEMPLATE "{{ .Prompt }}"'
    tokens = keys["tokenizer.ggml.tokens"]
    for i in spec.eos_ids:
        if '"' not in tokens[i]:
            yield f'PARAMETER stop "{tokens[i]}"'
