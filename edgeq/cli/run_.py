"""`edgeq run`: chat with an artifact, or answer one prompt."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from edgeq.errors import EdgeqError

_HELP = "/reset forgets the conversation, /stats tells the speed, /quit (or Ctrl-D) leaves, Ctrl-C stops an answer"

DEVICE_HELP = "onnxruntime: cpu [default], cuda, directml or auto; torch: cpu or cuda."


def command(
    artifact: Path = typer.Argument(
        ..., help="A folder that `edgeq export` wrote, a GGUF file, or a checkpoint with artifacts beside it."
    ),
    prompt: str | None = typer.Argument(None, help="Answer this and leave. Without it: the piped input, or a chat."),
    max_tokens: int = typer.Option(512, "--max-tokens", help="Most tokens of an answer."),
    temperature: float = typer.Option(0.0, "--temperature", help="0: always the best token."),
    top_k: int = typer.Option(0, "--top-k", help="Choose among the k best tokens; 0: all."),
    top_p: float = typer.Option(1.0, "--top-p", help="Choose among the best tokens that make up this probability."),
    min_p: float = typer.Option(0.0, "--min-p", help="Leave out tokens less probable than this share of the best."),
    repetition_penalty: float = typer.Option(1.0, "--repetition-penalty", help="Above 1: discourage tokens seen."),
    seed: int | None = typer.Option(None, "--seed", help="Same seed, same answer."),
    stop: list[str] = typer.Option([], "--stop", help="End the answer before this text; may be repeated."),
    system: str | None = typer.Option(None, "--system", help="The system message."),
    raw: bool = typer.Option(False, "--raw", help="Continue the text as it is, without the chat template."),
    threads: int | None = typer.Option(
        None, "--threads", help="Threads; default: what `edgeq bench --threads auto` found, or the physical cores."
    ),
    context: int | None = typer.Option(None, "--context", help="Most tokens of prompt and answer together."),
    runtime: str = typer.Option("auto", "--runtime", help="Open it with this runtime."),
    device: str | None = typer.Option(None, "--device", help=DEVICE_HELP),
    option: list[str] = typer.Option(
        [], "--option", "-O", help="An option of the runtime, as kv_dtype=q8_0 or device=cuda; may be repeated."
    ),
    stats: bool = typer.Option(False, "--stats", help="Tell tokens and speed afterwards."),
) -> None:
    """Chat with an artifact, or answer one prompt.

    With PROMPT, or text piped in, prints the answer and leaves. Otherwise opens a chat. Of a checkpoint, the artifact
    beside it is opened that `edgeq bench` found to be the fastest.
    """
    from edgeq.api import load
    from edgeq.measure.fastest import choose

    if prompt is None and not sys.stdin.isatty():
        prompt = _piped()
    elif prompt is not None:
        prompt = _argument(prompt)
    chosen = choose(artifact, runtime_name=runtime)
    if stats or (artifact.is_dir() and chosen.artifact.path.resolve() != artifact.resolve()):
        print(f"opening {chosen.words}", file=sys.stderr)
    own = chosen.threads if runtime in ("auto", chosen.artifact.runtime) else None
    asked = {"threads": own if threads is None else threads, "context": context, "device": device}
    given = runtime_options(option) | {k: v for k, v in asked.items() if v is not None}
    session: Any = load(chosen.artifact.path, runtime=runtime, **given)
    options: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "stop": tuple(stop),
    }
    with session:
        if prompt is not None:
            _answer_one(session, prompt, system, raw, options)
            if stats:
                _tell(session.stats)
        elif raw:
            raise EdgeqError("--raw needs a text to continue", hint="Give it as PROMPT or pipe it in")
        else:
            _Chat(session, system, options, stats).run()


def runtime_options(given: Sequence[str]) -> dict[str, Any]:
    """`name=value` texts as keywords; numbers, true and false are read as what they are.

    Raises:
        EdgeqError: one without a name or a value.
    """
    words = {"true": True, "false": False}
    found: dict[str, Any] = {}
    for text in given:
        name, _, value = text.partition("=")
        if not name or not value:
            raise EdgeqError(f"--option {text!r}", hint="Give name=value, such as kv_dtype=q8_0")
        found[name.replace("-", "_")] = int(value) if value.isdecimal() else words.get(value, value)
    return found


def _utf8(text: str) -> str:
    """What a terminal of another encoding handed over as undecodable bytes, read as UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8")


def _argument(text: str) -> str:
    try:
        return _utf8(text)
    except UnicodeError as error:
        raise EdgeqError("the prompt is not UTF-8", hint="Convert it first") from error


def _piped() -> str:
    try:
        text = _utf8(sys.stdin.read())
    except UnicodeError as error:
        raise EdgeqError("the piped text is not UTF-8", where="standard input") from error
    if not text.strip():
        raise EdgeqError("no prompt", where="standard input", hint="Give a PROMPT or pipe a text in")
    return text


def _answer_one(session: Any, prompt: str, system: str | None, raw: bool, options: dict[str, Any]) -> None:
    """Print one answer as it comes. A model without a chat template (a base model) continues the text instead."""
    chat = not raw and session.tokenizer.template is not None
    if not chat and system:
        raise EdgeqError("--system needs a chat template, which raw text or this model does not have")
    if not chat and not raw:
        print("note: this model has no chat template, so it continues the text (--raw)", file=sys.stderr)
    _show(session.stream(prompt, chat=chat, system=system, **options))


def _show(pieces: Iterator[str]) -> None:
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
        print(flush=True)
    except BrokenPipeError:  # `edgeq run ... | head`: the reader has enough
        sys.stdout = None
        raise typer.Exit(0) from None


class _Chat:
    """The conversation at a terminal."""

    def __init__(self, session: Any, system: str | None, options: dict[str, Any], stats: bool) -> None:
        session.tokenizer.render([{"role": "user", "content": "Hello"}])  # says early when there is no chat template
        self._session = session
        self._options = options
        self._stats = stats
        self._first = [{"role": "system", "content": system}] if system else []

    def run(self) -> None:
        print(f"{self._session.name}: {_HELP}", file=sys.stderr)
        while (line := self._read()) is not None:
            if line in ("/quit", "/exit", "/bye"):
                return
            if line == "/reset":
                self._session.reset()
            elif line == "/stats":
                _tell(self._session.stats)
            elif line.startswith("/"):
                print(_HELP, file=sys.stderr)
            elif line:
                self._turn(line)

    def _read(self) -> str | None:
        """A line from the person, None at the end of input. Ctrl-C at the prompt discards the line."""
        try:
            return input("> ").strip()
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            print()
            return ""

    def _turn(self, line: str) -> None:
        said = self._session.messages or self._first
        try:
            _show(self._session.stream_chat([*said, {"role": "user", "content": line}], **self._options))
        except KeyboardInterrupt:
            self._session.cancel()
            print(" [stopped]")
        except EdgeqError as error:  # this message does not fit or the template refuses it; the chat goes on
            print(f"error: {error.line}", file=sys.stderr)
        if self._stats:
            _tell(self._session.stats)


def _tell(stats: Any) -> None:
    print(
        f"{stats.prompt_tokens} prompt tokens ({stats.reused_tokens} reused), first token after {stats.ttft_s:.2f} s, "
        f"prefill {stats.prefill_tps:.0f} tok/s; {stats.new_tokens} tokens at {stats.decode_tps:.1f} tok/s",
        file=sys.stderr,
    )
