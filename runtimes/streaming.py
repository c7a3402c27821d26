"""Tokens to text while they come: no broken character, no half of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.errors import EdgeqError
from edgeq.runtimes.text import Tokenizer

_BROKEN = "\ufffd"


class Detokenizer:
    """Turns tokens into text piece by piece; the pieces together are what decoding all at once gives.

    A token's text depends on its neighbours (a character's bytes may be spread over several tokens; some decoders drop
    a space at the very beginning), so each step decodes a short window twice, without and with the new tokens, and
    hands out the difference. While the end of the window is an incomplete character it is held back.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = 0  # first token of the window
        self._done = 0  # tokens before this one are handed out

    def push(self, token: int) -> str:
        self._ids.append(token)
        before, after = self._window()
        if after.endswith(_BROKEN):
            return ""
        piece = after[len(before) :]
        # A window that begins with tokens of no text (special ones) would look like the beginning of all text.
        self._start, self._done = (self._done if piece else self._start), len(self._ids)
        return piece

    def flush(self) -> str:
        """What was held back, incomplete characters as U+FFFD."""
        before, after = self._window()
        self._start = self._done = len(self._ids)
        return after[len(before) :]

    def _window(self) -> tuple[str, str]:
        decode = self._tokenizer.decode
        return decode(self._ids[self._start : self._done]), decode(self._ids[self._start :])


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
