"""Ways out as they are taken here: what errors say in the command line's words, in those of keys and fields."""

from __future__ import annotations

import re

from edgeq.errors import EdgeqError

# A hint as the core words it -> what a person does in the application. The first that matches all of it.
_KEYS: tuple[tuple[str, str], ...] = (
    (r"Free space or choose another --out", "Free space, or choose another folder"),
    (r"Free space, set EDGEQ_HOME, or add --no-store", "Free space on the disk, then try again"),
    (r"Choose another name or add --force", "Choose another folder, or replace it by pressing r"),
    (r"Give more text, or a smaller --calibration-length", "Press o and give a longer text"),
    (r"Give a text with --calibration FILE\.txt; (.+)", r"Press o and give a file as text; \1"),
    (r"Run `edgeq profile`, or give bytes", "Press 1, then m: it is measured"),
    (r"edgeq export --to (\w+) makes .+", r"Press 5 and choose \1"),
    (r"Make (?:one|an artifact) with `edgeq export`|edgeq export .+", "Press 5 to export one"),
    (r"Export it again", "Press 5 to export it again"),
    (r"Try other threads: edgeq bench .+", "Try other threads: press a, then o"),
    (r"Make one with `edgeq quantize`", "Press 4 to make one"),
    (r"`edgeq export` takes it", "Press 2 and choose the model that it was made of"),
    (r"Start from its float original.+", "Press 2 and choose its float original"),
    (
        r"Give a folder that `edgeq export` made|This runtime opens what `edgeq export` writes for it",
        "Press 5 to export",
    ),
    (r"See `edgeq doctor`", "In a terminal, `edgeq doctor` says what is missing"),
    (r"`edgeq profile --list` shows all; (.+)", r"Press 1, then o: all are listed; \1"),
    (r"`edgeq tui --list` shows them", "Start edgeq without a name: it lists them"),
    (r"Leave --(\S+) or --(\S+) out", r"Leave --\1 or --\2 at its default"),
    (r"Leave --(\S+) out, or --(\S+)", r"Leave --\1 or --\2 at its default"),
    (r"Leave --(\S+) out(.*)", r"Leave --\1 at its default\2"),
    (r"Add --(\S+) (\S+)", r"Choose \2 as --\1"),
)
# Options of commands -> the labels of the fields that are asked for the same here.
_FIELDS = {
    "out": "folder",
    "group-size": "group",
    "symmetric": "the range symmetric",
    "embed-bits": "embedding bits",
    "calibration": "text",
    "calibration-tokens": "tokens of text",
    "batch": "sequences",
    "max-memory": "memory limit",
    "min-tps": "least tok/s",
    "objective": "best is",
    "target": "runtime",
    "grid": "the grid",
}
_OPTION = re.compile(r"`[^`]+`|(?<![\w/-])--([a-z][a-z-]*)")  # not those in a command, which is for a terminal
_COMMAND = re.compile(r"`edgeq [^`]+`")


def in_app(said: str) -> str:
    """The same for somebody who sees no command line: keys and fields in place of options.

    A command that the application has nothing for stays one, to be typed in a terminal.
    """
    for pattern, words in _KEYS:
        if (found := re.fullmatch(pattern, said)) is not None:
            said = found.expand(words)
            break
    named = _OPTION.sub(_named, said)
    return f"In a terminal: {named}" if _COMMAND.search(named) and "terminal" not in named else named


def _named(option: re.Match[str]) -> str:
    return option[0] if option[1] is None else _FIELDS.get(option[1], option[1].replace("-", " "))


def error_line(error: EdgeqError) -> str:
    """What is wrong and the way out, in a line beside a field."""
    return ". ".join(in_app(part) for part in (error.what, error.hint) if part)
