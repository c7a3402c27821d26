"""Help of a command in sections: options that name a `rich_help_panel` stand under it, in plain text."""

from __future__ import annotations

from inspect import signature
from typing import Any

from typer.core import TyperCommand


class PanelCommand(TyperCommand):
    """Arguments, options of no panel, then panels in the order of their first option."""

    def format_arguments(self, ctx: Any, formatter: Any) -> None:
        """Nothing: click 8.5 would list arguments once more."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            name, text = record
            default = "Arguments" if param.param_type_name == "argument" else "Options"
            panel = getattr(param, "rich_help_panel", None) or default
            # Typer escapes brackets for rich, which does not print this.
            words = text.replace("\\[", "[")
            sections.setdefault(panel, []).append((name, words))
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def with_help(command: Any, function: Any) -> Any:
    """The command, its arguments with the help that their declarations have: click 8.5 drops what Typer 0.20 sets."""
    declared = signature(function).parameters
    for param in command.params:
        if param.param_type_name == "argument" and not param.help:
            param.help = getattr(declared[param.name].default, "help", None)
    return command
