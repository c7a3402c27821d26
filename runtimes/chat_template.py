"""Chat templates: jinja2 in its sandbox, with the names that published templates expect.

Templates come with models from anywhere, so they run in an immutable sandbox: no attribute starting with an
underscore, no changing of the values passed in. The names they may use (`tojson`, `raise_exception`,
`strftime_now`, loop controls, `generation` blocks) are those transformers documents for template writers:
https://huggingface.co/docs/transformers/chat_templating_writing
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError

Message = Mapping[str, Any]


class ChatTemplate:
    """One compiled template."""

    def __init__(self, source: str, tokens: Mapping[str, str], where: object = None) -> None:
        """`tokens` are the special tokens a template may name: `bos_token`, `eos_token`, ...

        Raises:
            EdgeqError: the template is not valid jinja2, or jinja2 is not installed.
        """
        self._tokens = dict(tokens)
        self._where = where
        try:
            import jinja2
        except ImportError as error:
            raise EdgeqError("chat needs a package that is not installed: jinja2", hint="pip install jinja2") from error
        self._template_error = jinja2.TemplateError
        try:
            self._template = _environment().from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise EdgeqError(f"the chat template is not valid: {error}", where=where) from error

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True, **names: Any) -> str:
        """The conversation as the one text the model was trained to continue.

        Args:
            messages: each with `role` (system, user, assistant) and `content`.
            add_generation_prompt: end with the opening of the assistant's answer.
            names: further names for the template (`tools`, `enable_thinking`, ...).

        Raises:
            EdgeqError: the template refuses these messages or fails on them.
        """
        known = {"tools": None, "documents": None, **self._tokens, **names}
        try:
            known["messages"] = [dict(m) for m in messages]
            text: str = self._template.render(add_generation_prompt=add_generation_prompt, **known)
        except self._template_error as error:
            raise EdgeqError(f"the chat template refuses this conversation: {error}", where=self._where) from error
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise EdgeqError(
                f"the chat template fails on this conversation: {error}",
                where=self._where,
                hint="Each message needs a role and a content",
            ) from error
        return text


def find_template(folder: Path | None, config: Mapping[str, Any]) -> tuple[str, Path | None] | None:
    """The template's source and where it was found: `chat_template.jinja`, else `tokenizer_config.json`.

    In the configuration it is one text, or a list of `{"name", "template"}` (or a mapping), of which `default` is
    taken, or the only one.
    """
    file = None if folder is None else folder / "chat_template.jinja"
    if file is not None and file.is_file():
        try:
            return file.read_text("utf-8"), file
        except (OSError, UnicodeDecodeError) as error:
            raise EdgeqError("the chat template cannot be read", where=file) from error
    source = _one_of(config.get("chat_template"))
    return None if source is None else (source, folder and folder / "tokenizer_config.json")


def _one_of(value: Any) -> str | None:
    if isinstance(value, list):
        value = {str(v.get("name")): v.get("template") for v in value if isinstance(v, Mapping)}
    if isinstance(value, Mapping):
        value = next(iter(value.values())) if len(value) == 1 else value.get("default")
    return value if isinstance(value, str) else None


def _environment() -> Any:
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks the assistant's tokens for training; here only its content counts."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as an instance attribute

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def to_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        # jinja2's own filter escapes <, > and &, which a model has never seen in its prompts.
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(form: str) -> str:
        return datetime.now().strftime(form)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = to_json
    made.globals.update(raise_exception=raise_exception, strftime_now=strftime_now)
    return made
