"""The process of a chat: holds one opened session, and answers. `python -m edgeq.jobs.chat_worker`.

JSON lines in:
- `{"open": {"path": an artifact}, "options": {of its runtime}}`, or `{"open": {"model": a source model}}`: the original
  on the torch runtime. Once, first.
- `{"say": [messages], "sampling": {of generation}, "turn": n}`: the whole conversation, the person's turn last; what is
  told of the answer bears the number.
- `{"stop": true}`: ends the answer that is being given. `{"reset": true}`: forgets the conversation's cache.

JSON lines out: `ready`, `piece` (a token's text and how many tokens there are), `done`, `error` (`fatal` when there is
no session). The end of the input ends the process, whatever it is at: whoever asked is gone.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from edgeq.errors import EdgeqError
from edgeq.measure.bench_worker import resident_bytes

_GRACE_S = 5.0  # for an engine to close what it began, once nobody listens
_DTYPES = {"bf16": "bf16", "f16": "f16"}  # of weights that torch holds as they are stored; of all others float32


def main() -> None:
    """Answer until the input ends; whatever else is printed goes to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1) as out:
        os.dup2(2, 1)
        _Worker(out).run()


class _Worker:
    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._asked: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._session: Any = None
        self._stopped = threading.Event()

    def run(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            while (asked := self._asked.get()) is not None:
                self._do(asked)
        except BrokenPipeError:
            os._exit(0)
        finally:
            if self._session is not None:
                self._session.close()

    def _listen(self) -> None:
        for line in sys.stdin:
            asked = json.loads(line)
            if "stop" in asked:
                self._stop()
                continue
            self._stopped.clear()
            self._asked.put(asked)
        self._asked.put(None)
        self._stop()
        time.sleep(_GRACE_S)
        os._exit(0)

    def _stop(self) -> None:
        self._stopped.set()  # for an answer that has not begun: a session forgets a cancel that came before it
        if self._session is not None:
            self._session.cancel()

    def _tell(self, **event: Any) -> None:
        self._out.write(json.dumps(event) + "\n")

    def _do(self, asked: dict[str, Any]) -> None:
        from edgeq.jobs.worker import failure_of

        try:
            if "open" in asked:
                self._open(asked["open"], asked.get("options", {}))
            elif "say" in asked:
                self._say(asked["say"], asked.get("sampling", {}), asked.get("turn"))
            elif "reset" in asked:
                self._session.reset()
        except BrokenPipeError:
            raise
        except Exception as error:
            found = failure_of(error)
            if found.trace is not None:
                print(found.trace, file=sys.stderr)
            told = {"what": found.what, "where": found.where, "hint": found.hint}
            self._tell(error=told, fatal=self._session is None, turn=asked.get("turn"))

    def _open(self, what: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        start = time.perf_counter()
        if "model" in what:
            self._session = open_original(str(what["model"]), **options)
        else:
            import edgeq

            self._session = edgeq.load(what["path"], **options)
        template = self._session.tokenizer.template is not None
        ready = {"load_s": time.perf_counter() - start, "memory_bytes": resident_bytes(), "template": template}
        ready |= {"context": self._session.context, "threads": int(getattr(self._session, "threads", 0))}
        self._tell(ready=ready)

    def _say(self, messages: Sequence[Mapping[str, Any]], sampling: Mapping[str, Any], turn: Any) -> None:
        session = self._session
        if session.tokenizer.template is None:
            # A model without a chat template continues what has been written, on both sides.
            text = "\n".join(str(m["content"]) for m in messages)
            pieces = session.stream(text, reuse=True, **sampling)
        else:
            pieces = session.stream_chat([dict(m) for m in messages], **sampling)
        for piece in pieces:
            if self._stopped.is_set():
                session.cancel()
            self._tell(piece=piece, tokens=session.stats.new_tokens, turn=turn)
        stats = session.stats
        done = {"tokens": stats.new_tokens, "tps": stats.decode_tps, "ttft_s": stats.ttft_s, "finish": stats.finish}
        self._tell(done=done, turn=turn)


def open_original(model: str, *, context: int | None = None) -> Any:
    """A source model on the torch runtime in the dtype it is stored in, warmed up: its weights are in memory.

    Raises:
        EdgeqError: it can't be read, or torch is missing.
    """
    from edgeq.artifact import Artifact
    from edgeq.checkpoint.open import open_weights
    from edgeq.measure.verify import let_torch_sleep
    from edgeq.registry import runtime

    torch = runtime("torch")
    if absent := torch.missing():
        raise EdgeqError(f"the original runs with {absent}", hint="pip install 'edgeq[quantize]'")
    let_torch_sleep()
    source = open_weights(model)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in source.tokenizer_files().items():
            (Path(folder) / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        artifact = Artifact(Path(folder), "torch", source.spec.name, "original", {}, checkpoint=model)
        session: Any = torch.open(artifact, context=context, dtype=original_dtype(source.spec.source_dtype))
        _ = session.tokenizer.template  # read from the folder while it is there
    session.engine.prefill([0])
    session.reset()
    return session


def original_dtype(stored: str) -> str:
    """The dtype torch runs a model's weights in: theirs, float32 where torch has none such."""
    return _DTYPES.get(stored, "f32")


if __name__ == "__main__":
    main()
