"""Special tokens that a GGUF file names."""

from __future__ import annotations

from typing import Any

from edgeq.model.gguf_file import GgufFile

_END_TEXTS = {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|return|>", "<|call|>"}


def token_id(file: GgufFile, name: str) -> int | None:
    """The id of a special token (`bos`, `eos`, `unknown`, `padding`, ...); None when the file names no such token."""
    value = file.metadata.get(f"tokenizer.ggml.{name}_token_id")
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value < len(_vocabulary(file)) else None


def _vocabulary(file: GgufFile) -> list[Any]:
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    return tokens if isinstance(tokens, list) else []


def end_ids(file: GgufFile) -> tuple[int, ...]:
    """The tokens that end an answer: those the file names, then the vocabulary's own ends of a turn.

    Files often name one of several; llama.cpp goes by the texts, too.
    """
    named = [token_id(file, n) for n in ("eos", "eot", "eom")]
    by_text = {text: i for i, text in enumerate(_vocabulary(file)) if isinstance(text, str) and text in _END_TEXTS}
    if "<|return|>" in by_text:  # gpt-oss: `<|end|>` closes a message there, not the answer
        by_text.pop("<|end|>", None)
    return tuple(dict.fromkeys(i for i in [*named, *by_text.values()] if i is not None))
