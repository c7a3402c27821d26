"""Tokens to text while they come: no broken character, no half of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.errors import EdgeqError
from edgeq.runtimes.text import Tokenizer

_BROKEN = "\ufffd"
_WINDOW = 8  # tokens; a longer window begins anew, which costs decoding twice


class Detokenizer:
    """Turns tokens into text piece by piece; the pieces together are what decoding all at once gives.

    A token's text depends on its neighbours (a character's bytes may be spread over several tokens; some decoders drop
    a space at the very beginning), so each step decodes a short window and hands out what it has beyond the text that
    the window had before. While the end of the window is an incomplete character it is held back.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = 0  # first token of the window
        self._done = 0  # tokens before this one are handed out
        self._text = ""  # of the window up to there

    def push(self, token: int) -> str:
        self._ids.append(token)
        after = self._decoded(self._start)
        if after.endswith(_BROKEN):
            return ""
        piece = after[len(self._text) :]
        last, self._done, self._text = self._done, len(self._ids), after
        # A window that begins with tokens of no text (special ones) would look like the beginning of all text.
        if piece and self._done - self._start > _WINDOW:
            self._start, self._text = last, self._decoded(last)
        return piece

    def flush(self) -> str:
        """What was held back, incomplete characters as U+FFFD."""
        after, before = self._decoded(self._start), self._text
        self._start = self._done = len(self._ids)
        self._text = ""
        return after[len(before) :]

    def _decoded(self, start: int) -> str:
        return self._tokenizer.decode(self._ids[start:])


class StopFilter:
    """Holds back text that may be the beginning of a stop string until that is decided."""

    def __init__(self, stops: str | Sequence[str] = ()) -> None:
        self._stops = (stops,) if isinstance(stops, str) else tuple(stops)
        if not all(isinstance(stop, str) and stop for stop in self._stops):
            raise EdgeqError("a stop string is empty or not a text")
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The text that is certain now. After a stop string was found (`stopped`), nothing more comes."""
        if self.stopped or not text:
            return ""
        self._held += text
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:  # the one that was complete first, so that it does not matter how the text was cut into pieces
            self.stopped = True
            sure, self._held = self._held[: min(found)[1]], ""
            return sure
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        sure, self._held = self._held[:cut], self._held[cut:]
        return sure

    def flush(self) -> str:
        """What was held back and turned out to be no stop string."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins (less than the whole of `stop`)."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
