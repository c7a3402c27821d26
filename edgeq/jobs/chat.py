"""A chat with a model in a process of its own: begun, asked, stopped and closed; what it says is taken when wanted.

The process ends with its input, so that it never outlives whoever began it, however that one ends.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

import psutil

from edgeq.errors import EdgeqError
from edgeq.jobs.process import tree
from edgeq.jsonable import from_json, to_json

WORKER = "edgeq.jobs.chat_worker"
MAX_TOKENS = 512  # of an answer, as `edgeq run` has it
_KILLED = (-9, 137)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How both sides choose their tokens. Greedy with temperature 0; else the same seed for each answer."""

    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = MAX_TOKENS

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 5:
            raise EdgeqError(f"the temperature is {self.temperature}", hint="Give 0 (always the likeliest) to 5")


@dataclass(frozen=True, slots=True)
class Ready:
    """Attributes:
    load_s: seconds from the order to the opened session, the imports of its runtime included.
    memory_bytes: resident then; 0 where that can't be told.
    template: whether the model has a chat template; without one it continues text.
    """

    load_s: float
    memory_bytes: int
    template: bool
    context: int
    threads: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of text, and how many tokens of the answer there are with it."""

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Done:
    """Attributes:
    tps: tokens a second after the first; 0 when there were fewer than two.
    ttft_s: seconds to the first token.
    finish: `eos`, `stop`, `length`, `context` or `cancelled`.
    """

    tokens: int
    tps: float
    ttft_s: float
    finish: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Attributes:
    fatal: there is no session any more (or yet); else this answer alone failed.
    """

    error: EdgeqError
    fatal: bool


News = Ready | Piece | Done | Failed


class Chat:
    """One opened model. Its methods return at once; what comes of them is told by `news`."""

    def __init__(self, what: Mapping[str, str], options: Mapping[str, Any] | None = None) -> None:
        """Begin the process and open `{"path": artifact}` or `{"model": source model}` in it.

        Raises:
            EdgeqError: the system can't begin a process.
        """
        self._news: queue.SimpleQueue[tuple[int | None, News]] = queue.SimpleQueue()
        self._turn = 0
        self._closed = False
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - the reader's
        command = [sys.executable, "-P", "-m", WORKER]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                encoding="utf-8",
                bufsize=1,
                **_own_group(),
            )
        except OSError as error:
            self._log.close()
            raise EdgeqError("the chat's process can't be begun", hint=error.strerror) from error
        self._tell(open=dict(what), options=dict(options or {}))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, messages: Sequence[Mapping[str, str]], sampling: Sampling) -> None:
        """Ask for the next turn of a conversation, the person's last."""
        self._turn += 1
        self._tell(say=[dict(m) for m in messages], sampling=to_json(sampling), turn=self._turn)

    def stop(self) -> None:
        """End the answer that is being given."""
        self._tell(stop=True)

    def reset(self) -> None:
        """Forget the conversation, and what is still told of its last answer."""
        self._turn += 1
        self._tell(reset=True)

    def news(self) -> list[News]:
        """What was told since the last call, in order."""
        found: list[News] = []
        with suppress(queue.Empty):
            while True:
                turn, told = self._news.get_nowait()
                if turn in (None, self._turn):
                    found.append(told)
        return found

    def close(self) -> None:
        """Kill the process and what it began; returns at once. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        with suppress(OSError, psutil.Error):
            if sys.platform == "win32":
                for child in tree(psutil.Process(self.pid))[1:]:
                    child.kill()
                self._process.kill()
            elif self._process.poll() is None:
                os.killpg(self.pid, signal.SIGKILL)
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _tell(self, **asked: Any) -> None:
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):  # it died: the reader tells why
            self._process.stdin.write(json.dumps(asked) + "\n")

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines, self._log:
            for line in lines:
                with suppress(ValueError):
                    event = json.loads(line)
                    if (told := _news(event)) is not None:
                        self._news.put((event.get("turn"), told))
            code = self._process.wait()
            if not self._closed:
                self._news.put((None, Failed(_died(code, self._log), fatal=True)))


def _news(event: Mapping[str, Any]) -> News | None:
    if "piece" in event:
        return Piece(event["piece"], event["tokens"])
    if "done" in event:
        return from_json(Done, event["done"])
    if "ready" in event:
        return from_json(Ready, event["ready"])
    if "error" in event:
        return Failed(EdgeqError(**event["error"]), bool(event["fatal"]))
    return None


def _died(code: int, log: IO[str]) -> EdgeqError:
    log.seek(0)
    said = [line.strip() for line in log if line.strip()]
    last = said[-1][:200] if said else None
    if code in _KILLED:
        return EdgeqError("the chat's process was killed, most likely for want of memory", where=last)
    return EdgeqError(f"the chat's process stopped with {code}", where=last)


def _own_group() -> dict[str, Any]:
    """Ctrl-C in a terminal is for whoever began it."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}
