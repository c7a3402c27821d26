"""The session an application holds: text in, text out, on any runtime's engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self, Unpack

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError
from edgeq.runtimes.chat_template import Message
from edgeq.runtimes.generation import Engine, Options, Settings, Stats, check_fits, generate_ids
from edgeq.runtimes.streaming import Detokenizer, StopFilter
from edgeq.runtimes.text import Tokenizer

# Room a conversation leaves for its next answer before its oldest turns are dropped, as a share of the context.
_ANSWER_SHARE = 4


class TextSession:
    """A model ready to answer, one sequence at a time.

    The KV cache outlives a call: a chat prefills only the new turn, because it shares the beginning of its prompt with
    what the cache holds. `generate` and `stream` begin afresh, so that the same prompt and seed give the same answer,
    unless they are called with `reuse=True`. Calls from several threads take turns; a new generation ends one that is
    still being streamed.

    Attributes:
        stats: what the last generation did (tokens, seconds, why it ended).
        tokenizer: the model's tokenizer.
        messages: the conversation that `chat` continues.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer, *, eos_ids: Sequence[int] = (), name: str = "") -> None:
        """`eos_ids` end an answer, besides the tokenizer's own EOS. The session owns the engine and closes it."""
        self.name = name
        self.tokenizer = tokenizer
        self.stats = Stats()
        self.messages: list[Message] = []
        own = tokenizer.eos_id
        self._eos = frozenset(eos_ids) | (frozenset() if own is None else {own})
        self._engine: Engine | None = engine
        self._cached: list[int] = []
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._turn = 0

    @property
    def context(self) -> int:
        """How many tokens prompt and answer may have together."""
        return self.engine.context

    @property
    def threads(self) -> int:
        """Threads of the kernels, 0 when unknown."""
        return int(getattr(self.engine, "threads", 0))

    @property
    def engine(self) -> Engine:
        """The decoder below, for measurements. What is fed to it bypasses the session: call `reset` afterwards.

        Raises:
            EdgeqError: the session is closed.
        """
        if self._engine is None:
            raise EdgeqError("the session is closed", hint="Open the artifact again with edgeq.load")
        return self._engine

    def generate(
        self, prompt: str | Sequence[int], *, chat: bool = False, system: str | None = None, **options: Unpack[Options]
    ) -> str:
        """The whole answer at once; see `stream`."""
        return "".join(self.stream(prompt, chat=chat, system=system, **options))

    def stream(
        self, prompt: str | Sequence[int], *, chat: bool = False, system: str | None = None, **options: Unpack[Options]
    ) -> Iterator[str]:
        """The answer in pieces as they come, none of them empty; whole characters only, stop strings left out.

        Args:
            prompt: a text, or token ids.
            chat: put the text through the chat template as a user's only message (no conversation is kept).
            system: the system message that precedes it; needs `chat`.
            options: max_tokens=256, temperature=0.0 (greedy), top_k=0, top_p=1.0, min_p=0.0,
                repetition_penalty=1.0, seed=None, stop=(), reuse=False.

        Raises:
            EdgeqError: an option out of range, a prompt that is empty or longer than the context, a model without
                chat template where one is needed. The answer itself ends when the context is full
                (`stats.finish == "context"`).
        """
        if chat:
            if not isinstance(prompt, str):
                raise EdgeqError("chat needs a text, not token ids")
            first = [{"role": "system", "content": system}] if system else []
            ids = self.tokenizer.encode_chat([*first, {"role": "user", "content": prompt}])
        else:
            ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        return self._answer(ids, Settings.of(options))

    def chat(self, messages: str | Sequence[Message], **options: Unpack[Options]) -> str:
        """The assistant's whole next turn; see `stream_chat`."""
        return "".join(self.stream_chat(messages, **options))

    def stream_chat(self, messages: str | Sequence[Message], **options: Unpack[Options]) -> Iterator[str]:
        """Continue the conversation and stream the assistant's next turn.

        Args:
            messages: a text is the user's next message; a list of `{"role", "content"}` replaces the conversation.
            options: as in `stream`, but reuse=True.

        The turn, also a cancelled one, is added to `messages`. When the conversation outgrows the context, its oldest
        turns (not the system message) are left out of the prompt, so that a quarter of the context, or `max_tokens`
        if that is less, stays free for the answer.

        Raises:
            EdgeqError: as in `stream`; also when the last message alone does not fit.
        """
        settings = Settings.of(options, reuse=True)
        new: list[Message] = [{"role": "user", "content": messages}] if isinstance(messages, str) else [*messages]
        conversation = [*self.messages, *new] if isinstance(messages, str) else new
        ids = self._fitting(conversation, settings)
        pieces = self._answer(ids, settings)
        return self._chat_turn(conversation, pieces, self._turn)

    def _chat_turn(self, conversation: list[Message], pieces: Iterator[str], turn: int) -> Iterator[str]:
        answer: list[str] = []
        try:
            for piece in pieces:
                answer.append(piece)
                yield piece
        finally:
            if turn == self._turn:  # not after a reset or a later call
                self.messages = [*conversation, {"role": "assistant", "content": "".join(answer)}]

    def _fitting(self, conversation: list[Message], settings: Settings) -> list[int]:
        """The prompt's ids, with so many of the oldest turns left out that it fits."""
        context = self.context
        room = context // _ANSWER_SHARE
        room = context - min(room, settings.max_tokens or room)
        kept = list(conversation)
        while True:
            ids = self.tokenizer.encode_chat(kept)
            turns = [i for i, m in enumerate(kept) if m.get("role") == "user"]
            if len(ids) <= room or len(turns) < 2:
                check_fits(len(ids), context)
                return ids
            del kept[turns[0] : turns[1]]

    def _answer(self, ids: list[int], settings: Settings) -> Iterator[str]:
        engine = self.engine
        check_fits(len(ids), engine.context)
        stop = StopFilter(settings.stop)
        with self._lock:
            self._turn += 1
            self._cancelled.clear()
            self.stats = stats = Stats()
        tokens = generate_ids(
            engine, ids, settings, cached=self._cached, eos=self._eos, stats=stats, cancelled=self._cancelled.is_set
        )
        return self._pieces(tokens, stop, stats, self._turn)

    def _pieces(self, tokens: Iterator[int], stop: StopFilter, stats: Stats, turn: int) -> Iterator[str]:
        words = Detokenizer(self.tokenizer)
        while not stop.stopped and (token := self._next(tokens, turn)) is not None:
            if piece := stop.push(words.push(token)):
                yield piece
        if not stop.stopped and (piece := stop.push(words.flush())):
            yield piece
        if stop.stopped:
            stats.finish = "stop"
        elif piece := stop.flush():
            yield piece

    def _next(self, tokens: Iterator[int], turn: int) -> int | None:
        """The next token; None at the end, or when a later call has taken over the cache."""
        with self._lock:
            if turn != self._turn or self._engine is None:
                return None
            return next(tokens, None)

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """The logits after each token of a fresh sequence: float32 (len(ids), vocab). All of it in memory at once.

        Raises:
            EdgeqError: no ids, more than the context holds, or one that is not in the vocabulary.
        """
        engine = self.engine
        check_fits(len(ids), engine.context)
        with self._lock:
            self._turn += 1
            self._cached.clear()
            engine.rewind(0)
            rows = []
            for at in range(0, len(ids), engine.chunk):
                part = ids[at : at + engine.chunk]
                rows.append(engine.logits(part))
                self._cached.extend(part)
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def cancel(self) -> None:
        """End the running generation after its current step; from any thread."""
        self._cancelled.set()

    def reset(self) -> None:
        """Forget the conversation and the cache's contents."""
        with self._lock:
            self._turn += 1
            self.messages = []
            self._cached.clear()
            self.engine.rewind(0)

    def close(self) -> None:
        """Free the model. A stream still open ends; further calls raise. Closing twice is fine."""
        self._cancelled.set()
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
