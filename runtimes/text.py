"""Text to tokens and back: a model's own `tokenizer.json` through the `tokenizers` library, and its chat template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.runtimes.chat_template import ChatTemplate, Message, find_template

_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


class Tokenizer:
    """What a session needs of a tokenizer.

    `tokenizer.json` decides everything; from `tokenizer_config.json` come the names of the special tokens,
    `add_bos_token` (which overrides the post-processor when it is given, as in transformers 5) and the chat template.
    """

    def __init__(self, inner: Any, config: dict[str, Any] | None = None, folder: Path | None = None) -> None:
        """`inner` is a `tokenizers.Tokenizer`; padding and truncation stored in it are switched off."""
        inner.no_padding()
        inner.no_truncation()
        self.inner = inner
        self._config = config or {}
        self._folder = folder
        self.tokens = {name: text for name in _NAMED if (text := _token_text(self._config.get(name)))}

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Read `tokenizer.json` and, if there, `tokenizer_config.json`.

        Raises:
            EdgeqError: a file is missing or damaged, or `tokenizers` is not installed.
        """
        try:
            import tokenizers
        except ImportError as error:
            what = "text needs a package that is not installed: tokenizers"
            raise EdgeqError(what, hint="pip install tokenizers") from error
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise EdgeqError("the artifact has no tokenizer.json", where=folder, hint="Export it again")
        try:
            inner = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise EdgeqError(f"the tokenizer cannot be read: {error}", where=file, hint="Export it again") from error
        return cls(inner, _read_config(folder / "tokenizer_config.json"), folder)

    @property
    def vocab_size(self) -> int:
        size: int = self.inner.get_vocab_size()
        return size

    def token_id(self, text: str) -> int | None:
        """The id of one token written out, such as `<|im_end|>`."""
        found: int | None = self.inner.token_to_id(text)
        return found

    @property
    def eos_id(self) -> int | None:
        return self.token_id(self.tokens["eos_token"]) if "eos_token" in self.tokens else None

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text. `special` adds what the model expects at a text's beginning (BOS), if anything.

        Special tokens written in the text are read as themselves. An EOS is added only if the post-processor in
        `tokenizer.json` adds one.
        """
        rule = self._config.get("add_bos_token")
        follow = special and rule is None
        try:
            ids: list[int] = self.inner.encode(text, add_special_tokens=follow).ids
        except TypeError as error:  # lone surrogates, which stand for bytes that were not UTF-8
            raise EdgeqError("this is not a text in UTF-8", hint="Convert it to UTF-8 first") from error
        if special and rule is True and "bos_token" in self.tokens:
            bos = self.token_id(self.tokens["bos_token"])
            return ids if bos is None else [bos, *ids]
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        text: str = self.inner.decode(list(ids), skip_special_tokens=skip_special)
        return text

    @cached_property
    def template(self) -> ChatTemplate | None:
        """The model's chat template, or None when it came with none."""
        found = find_template(self._folder, self._config)
        return None if found is None else ChatTemplate(found[0], self.tokens, found[1])

    def render(self, messages: Sequence[Message], **names: Any) -> str:
        """A conversation as one text, ready for the assistant's answer; see `ChatTemplate.render`.

        Raises:
            EdgeqError: the model has no chat template, or it refuses these messages.
        """
        if self.template is None:
            raise EdgeqError(
                "this model has no chat template",
                where=self._folder,
                hint="Complete plain text with generate() or `edgeq run --raw`, or add a chat_template.jinja",
            )
        return self.template.render(messages, **names)

    def encode_chat(self, messages: Sequence[Message], **names: Any) -> list[int]:
        """Token ids of a conversation. The template writes the special tokens itself, so none are added."""
        return self.encode(self.render(messages, **names), special=False)


def _token_text(value: Any) -> str | None:
    """A special token is stored as its text, or as an object that holds it."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def _read_config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EdgeqError("the tokenizer's configuration is damaged", where=file, hint="Export it again") from error
    if not isinstance(value, dict):
        raise EdgeqError("the tokenizer's configuration is not an object", where=file, hint="Export it again")
    return value
