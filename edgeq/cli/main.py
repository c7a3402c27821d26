"""The command line: one file a command, each imported only when it is called."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from typing import Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from edgeq import __version__
from edgeq.cli.panels import PanelCommand, with_help
from edgeq.errors import EdgeqError

# name -> (module with a `command` function, one-line help). Modules are imported when the command is called.
COMMANDS = {
    "tui": "The guided road, in the terminal or a browser: opens by itself without a command.",
    "profile": "Measure this machine: memory bandwidth, cores, accelerators.",
    "inspect": "What a model is made of: layers, parameters per role, KV cache per token.",
    "plan": "What fits this device, how fast it can go, and the next command.",
    "quantize": "Quantize a model into a neutral checkpoint.",
    "convert": "Read a quantized model of another tool's into a checkpoint, without loss.",
    "export": "Turn a checkpoint into a runtime's artifact, and verify it.",
    "verify": "Compare an artifact's logits with its checkpoint's.",
    "eval": "What a quantized model lost: KL divergence and perplexity against the original.",
    "report": "Bits, error and time of a checkpoint's layers: table, JSON, picture.",
    "run": "Chat with an artifact, or answer one prompt.",
    "bench": "Measure an artifact beside what the plan promised.",
    "deliver": "Where an artifact lies, programs that load it, and a report.",
    "jobs": "Long work that the application began: list, pause, resume, cancel.",
    "demo": "The whole road on SmolLM2-135M.",
    "doctor": "What is installed, what is missing, what each missing thing would give.",
}


INTERRUPTED = 130


class LazyGroup(TyperGroup):
    """Lists commands from the table above and imports a command's module only to run it."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        return _command(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The overview comes from the table, so that `edgeq --help` imports no command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _command(name: str) -> Any:
    module = import_module(f"edgeq.cli.{name}_")
    one = typer.Typer(add_completion=False, rich_markup_mode=None)
    one.command(name, cls=PanelCommand)(module.command)
    return with_help(typer.main.get_command(one), module.command)


app = typer.Typer(cls=LazyGroup, no_args_is_help=False, add_completion=False, rich_markup_mode=None)


def _version(value: bool) -> None:
    if value:
        print(f"edgeq {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """From "will this model run here?" to "it runs, here is how well".

    Without a command, in a terminal: the guided road.
    """
    if ctx.invoked_subcommand is None and not _open_road():
        print(ctx.get_help())


def _open_road() -> bool:
    """Open the application where it can be shown; whether it could."""
    from importlib.util import find_spec

    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()) or find_spec("textual") is None:
        return False
    from edgeq.tui.launch import open_app

    open_app()
    return True


def main(argv: list[str] | None = None) -> None:
    """Run one command. Exit codes: 0 done, 1 a fault of edgeq's, 2 a problem with the input, 130 interrupted."""
    arguments = sys.argv[1:] if argv is None else argv
    debug = "--debug" in arguments
    _plain_where_needed(sys.stdout)
    if argv is None:  # the process is ours
        signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app([a for a in arguments if a != "--debug"], standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a full disk or a closed pipe can still be told
    except BrokenPipeError:  # `edgeq plan ... | head -1`: the reader has enough
        _discard_output()
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        _fail(*_explain(error))
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:  # typer turns most interrupts into this code
        _fail("interrupted", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _terminate(*_: object) -> NoReturn:
    """Leave as after Ctrl-C: what is half-written is removed on the way out."""
    raise KeyboardInterrupt


def _plain_where_needed(stream: TextIO | None) -> None:
    """On a terminal that can't show a character, print `?` for it instead of failing."""
    if isinstance(stream, TextIOWrapper) and stream.encoding.lower().replace("-", "") != "utf8":
        stream.reconfigure(errors="replace")


def _discard_output() -> None:
    """Nobody reads on: what is still buffered goes nowhere, so that leaving does not fail on it."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _explain(error: Exception) -> tuple[str, int]:
    if isinstance(error, EdgeqError):
        return error.line, 2
    if isinstance(error, MemoryError):
        return "out of memory. Choose a smaller model, context or group of layers", 2
    if isinstance(error, OSError) and error.strerror:
        # Where no part knew better: a folder without permission, a disk that filled up, a file that went away.
        return EdgeqError(f"the system says: {error.strerror}", where=error.filename).line, 2
    if type(error).__name__ == "Abort":
        return "interrupted", INTERRUPTED
    # A usage error of the option parser: typer carries its own copy of click, so go by what it can do.
    format_message = getattr(error, "format_message", None)
    if format_message is not None:
        return f"{format_message()} Try --help", 2
    return f"unexpected {type(error).__name__}: {error}. Run it again with --debug and report it", 1


def _fail(line: str, code: int) -> NoReturn:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        _discard_output()  # what can't be printed now can't be printed at the end
    print(f"error: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(code)
