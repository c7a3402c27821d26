"""A text as a literal of a language, quotes included: whatever a folder is called, it stays one string."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

_SHORT = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_SEPARATORS = "\x7f\x85\u2028\u2029"  # that some compilers take for the end of a line


def python(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else repr(text)


def csharp(text: str) -> str:
    return _escaped(text, lambda code: f"\\u{code:04x}")


def kotlin(text: str) -> str:
    """A dollar sign begins a template there."""
    return _escaped(text, lambda code: f"\\u{code:04x}", {"$": "\\$"})


def swift(text: str) -> str:
    return _escaped(text, lambda code: f"\\u{{{code:x}}}")


def c(text: str) -> str:
    """For C, C++ and Objective-C. Octal escapes end after three digits, hexadecimal ones would swallow what follows;
    they are UTF-8's bytes. No two question marks stand together: old compilers see trigraphs."""

    def octal(code: int) -> str:
        return "".join(f"\\{byte:03o}" for byte in chr(code).encode())

    return _escaped(text, octal, {"?": "\\?"})


def shell(text: str) -> str:
    """For sh and its kin."""
    return shlex.quote(text)


QUOTES: dict[str, Callable[[str], str]] = {
    "python": python,
    "csharp": csharp,
    "kotlin": kotlin,
    "swift": swift,
    "cpp": c,
    "objective-c": c,
    "bash": shell,
}


def _escaped(text: str, code: Callable[[int], str], more: dict[str, str] | None = None) -> str:
    table = _SHORT | (more or {})

    def one(char: str) -> str:
        if char in table:
            return table[char]
        return code(ord(char)) if char < " " or char in _SEPARATORS else char

    return f'"{"".join(map(one, text))}"'
