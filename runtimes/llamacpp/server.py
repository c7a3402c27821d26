"""One sequence on a `llama-server` of the PATH, where the library is not installed: exact, and slow.

The server has no call that gives logits, but it tells the log-probabilities of as many tokens as it is asked for, taken
from the raw logits before any sampling. Asked for the whole vocabulary after each token, these are logits up to a
constant, which neither a choice nor a divergence sees (a repetition penalty does). The answer is megabytes of JSON a
token. Which token the server itself then picks is forced, because it withholds the probabilities of a token that is
half of a character.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from edgeq.device.cpu import probe_cpu
from edgeq.errors import EdgeqError
from edgeq.runtimes.llamacpp.library import FLASH, waiting

PROGRAM = "llama-server"
_CHUNK = 512
_START_S = 300.0  # a large model on a slow disk
_ANSWER_S = 600.0
_FORCED = 1e5  # added to the logit of the token that the server is to pick
Row = npt.NDArray[np.float32]


class ServerEngine:
    """Follows `edgeq.runtimes.generation.Engine`; owns the server's process.

    Attributes:
        threads: of the kernels.
        forced: a token whose text is whole characters, which the server picks each time.
    """

    def __init__(
        self,
        program: str,
        path: Path,
        *,
        context: int,
        vocab_size: int,
        forced: int,
        threads: int | None = None,
        chunk: int | None = None,
        kv_dtype: str = "f16",
        spin: bool | None = None,
        gpu_layers: int = 0,
    ) -> None:
        if not path.is_file():
            raise EdgeqError("the artifact has no GGUF file", where=path, hint="Export it again")
        self.context = context
        self.threads = threads or probe_cpu().cores
        self.chunk = min(chunk or _CHUNK, context)
        self.forced = forced
        self._vocab = vocab_size
        self._ids: list[int] = []
        port = _free_port()
        self._address = f"http://127.0.0.1:{port}"
        flags: dict[str, Any] = {"model": path, "host": "127.0.0.1", "port": port, "parallel": 1}
        flags["n-gpu-layers"] = gpu_layers
        flags |= {"ctx-size": context + 1, "batch-size": self.chunk, "threads": self.threads}  # it picks one token more
        flags |= {"cache-type-k": kv_dtype, "cache-type-v": kv_dtype}
        if kv_dtype in FLASH:
            flags["flash-attn"] = FLASH[kv_dtype]
        command = [program, *(str(word) for name, value in flags.items() for word in (f"--{name}", value))]
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the server
        with waiting(spin):
            self._process = _started(command, self._log)
        self._stop = weakref.finalize(self, _stopped, self._process)
        self._wait(path)

    @property
    def position(self) -> int:
        return len(self._ids)

    def prefill(self, ids: Sequence[int]) -> Row:
        self._check(ids)
        self._ids += ids
        return self._row()

    def decode(self, token: int) -> Row:
        return self.prefill((token,))

    def logits(self, ids: Sequence[int]) -> Row:
        self._check(ids)
        return np.stack([self.decode(token) for token in ids])

    def rewind(self, position: int) -> None:
        if not 0 <= position <= self.position:
            raise ValueError(f"cannot rewind to {position}, the cache holds {self.position} tokens")
        del self._ids[position:]  # the server keeps what the next prompt shares with the last one

    def close(self) -> None:
        self._stop()
        self._log.close()

    def _row(self) -> Row:
        """Log-probabilities after the last token, float32 (vocab,)."""
        asked = {"prompt": self._ids, "n_predict": 1, "n_probs": self._vocab, "temperature": -1.0, "cache_prompt": True}
        answer = self._ask("/completion", asked | {"logit_bias": [[self.forced, _FORCED]]})
        try:
            found = answer["completion_probabilities"][0]["top_logprobs"]
            row = np.full(self._vocab, -np.inf, np.float32)
            row[[entry["id"] for entry in found]] = [entry["logprob"] for entry in found]
        except (LookupError, TypeError) as error:
            raise EdgeqError(
                f"{PROGRAM} gives no probabilities", hint="Install another release, or xllamacpp"
            ) from error
        return row

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._address + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read().decode("utf-8", "replace")[:300]
            raise EdgeqError(f"{PROGRAM} refused: {said}") from error
        except (OSError, ValueError) as error:
            raise EdgeqError(f"{PROGRAM} does not answer: {error}") from error

    def _wait(self, path: Path) -> None:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise EdgeqError(f"{PROGRAM} cannot load the model: {self._last_words()}", where=path)
            try:
                self._ask("/health")
                return
            except EdgeqError:
                time.sleep(0.05)
        self._stop()
        raise EdgeqError(f"{PROGRAM} was not ready after {_START_S:.0f} s", where=path)

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        errors = [line for line in lines if "error" in line.lower()]
        return (errors or lines or ["it gives no reason"])[-1][:300]

    def _check(self, ids: Sequence[int]) -> None:
        if not self._stop.alive:
            raise EdgeqError("the session is closed", hint="Open the artifact again with edgeq.load")
        if self.position + len(ids) > self.context:
            raise EdgeqError(f"{self.position + len(ids)} tokens do not fit into the context of {self.context}")
        for token in ids:
            if not 0 <= token < self._vocab:
                raise EdgeqError(f"token {token} is not in the model's vocabulary of {self._vocab}")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def _started(command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # elsewhere: at the interpreter's exit
        )
    except OSError as error:
        raise EdgeqError(f"{PROGRAM} can't be started: {error.strerror}", where=command[0]) from error


def _die_with_parent() -> None:
    import ctypes

    set_death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def _stopped(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
