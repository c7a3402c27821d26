"""A chat of the journey's: what it is had with, and the conversation, which outlives the screen that shows it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgeq.amounts import amount
from edgeq.jobs.answers import Side
from edgeq.jobs.conversation import Conversation

if TYPE_CHECKING:
    from edgeq.jobs.original import Original
    from edgeq.measure.fastest import Choice
    from edgeq.tui.road import Road

TEMPERATURES = (0.0, 0.3, 0.7, 1.0)


@dataclass
class Chatting:
    """Attributes:
    choices: the artifacts that can be opened here, the fastest first.
    at: the one that is talked with.
    model: the journey's, whose original may be opened beside it.
    original: that, once it was asked for.
    """

    choices: list[Choice]
    at: int = 0
    model: str | None = None
    original: Original | None = None
    talk: Conversation = field(default_factory=Conversation)
    shown: Side = "quantized"  # where there is room for one

    @property
    def choice(self) -> Choice:
        return self.choices[self.at]

    @property
    def open_options(self) -> dict[str, Any]:
        return {} if self.choice.threads is None else {"threads": self.choice.threads}

    @property
    def greedy(self) -> bool:
        return self.talk.sampling.temperature == 0

    @property
    def sampling_words(self) -> str:
        sampling = self.talk.sampling
        return "always the likeliest token" if self.greedy else f"temperature {sampling.temperature:g}"

    @property
    def comparing(self) -> bool:
        return "original" in self.talk.sides

    def begin(self) -> None:
        """Open the chosen artifact.

        Raises:
            EdgeqError: the system can't begin one.
        """
        self.talk.open("quantized", {"path": str(self.choice.artifact.path)}, self.open_options)

    def another(self) -> None:
        """The next artifact, with a new conversation. Raises like `begin`."""
        self.at = (self.at + 1) % len(self.choices)
        self.talk.clear()
        self.begin()

    def warmer(self) -> None:
        """The next of a few temperatures."""
        now = self.talk.sampling.temperature
        following = next((t for t in TEMPERATURES if t > now), TEMPERATURES[0])
        self.talk.sampling = replace(self.talk.sampling, temperature=following)

    def title(self, side: Side) -> str:
        """Who it is, in a line."""
        if side == "original":
            return f"Original: {self.original.dtype}, torch" if self.original is not None else "Original"
        made = self.choice.artifact
        several = f" ({self.at + 1} of {len(self.choices)}, f: next)" if len(self.choices) > 1 else ""
        return f"Quantized: {made.scheme}, {made.runtime}{several}"

    def guide(self, *, writing: bool, narrow: bool) -> str:
        """What to press: `writing`, letters are text; `narrow`, one side is shown at a time."""
        quantized, original = self.talk.partners["quantized"], self.talk.partners["original"]
        if self.talk.answering is not None:
            leave = "twice, then n" if writing else "or n"  # letters are text while one writes
            return f"The {self.talk.answering} model answers. Press esc to stop it, {leave} to deliver."
        if quantized.state == "failed":
            return "The quantized model is not loaded: press esc, then r, to load it again."
        if "opening" in (quantized.state, original.state):
            return "Loading. You can write already."
        if writing and quantized.ready is not None and not quantized.ready.template:
            return "No chat template: it goes on with your text. Press esc, then n to deliver."
        other = "" if self.comparing or self.model is None else "o for the original"
        if self.comparing and narrow:
            other = "v to see the other model"
        if writing:
            return f"Write, then press enter. Press esc, then {f'{other}, ' if other else ''}n to deliver."
        return f"Press i to write, r to begin anew{f', {other}' if other else ''}; n to deliver."

    def facts(self, side: Side) -> str:
        """What loading it took."""
        partner = self.talk.partners[side]
        if partner.state == "opening":
            return "loading ..."
        if partner.state == "failed" or partner.ready is None:
            return "not loaded"
        ready = partner.ready
        memory = f", {amount(ready.memory_bytes)} of memory" if ready.memory_bytes else ""
        return f"loaded in {ready.load_s:.1f} s{memory}"


def chatting_of(road: Road) -> Chatting:
    """The journey's chat: the one that goes on, else a new one with its fastest artifact, not yet begun. Blocks.

    Raises:
        EdgeqError: no artifact can be opened here.
    """
    from edgeq.measure.fastest import choices

    here = road.journey
    found = choices(here.artifacts)
    kept = road.chatting
    if kept is not None and kept.model == here.model:
        places = [c.artifact.path for c in found]
        if (path := kept.choice.artifact.path) in places:
            kept.choices, kept.at = found, places.index(path)
            return kept
    return Chatting(found, model=here.model)


def original_for(road: Road, chatting: Chatting) -> Original:
    """The original, if it can be opened beside what is open. Blocks.

    Raises:
        EdgeqError: it can't be read, torch is missing, or the memory is not enough.
    """
    from edgeq.jobs.original import check_room, original_of

    found = original_of(chatting.model or "", road.spec())
    loaded = chatting.talk.partners["quantized"].ready is not None
    check_room(found, beside=0 if loaded else chatting.choice.artifact.total_bytes)
    return found
