"""Where the time of a decoding step goes."""

from __future__ import annotations

from dataclasses import astuple, dataclass


@dataclass(frozen=True, slots=True)
class Parts:
    """Seconds of one decoding step, by what they go to."""

    matrices: float
    head: float
    attention: float
    glue: float
    loop: float

    @property
    def total(self) -> float:
        return self.matrices + self.head + self.attention + self.glue + self.loop

    def slowed(self, factor: float) -> Parts:
        """The same with every part `factor` times as long."""
        return Parts(*(factor * seconds for seconds in astuple(self)))

    def words(self) -> str:
        """E.g. `matrices 4.1 ms, head 0.8, attention 0.5, nodes 0.9, loop 0.1`."""
        named = {
            "matrices": self.matrices,
            "head": self.head,
            "attention": self.attention,
            "nodes": self.glue,
            "loop": self.loop,
        }
        first, *rest = [f"{name} {_milliseconds(seconds)}" for name, seconds in named.items()]
        return ", ".join([f"{first} ms", *rest])


def _milliseconds(seconds: float) -> str:
    """Two digits, never an exponent."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
