"""The models one can choose from, and each on the chosen device at a glance; got from the core."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgeq.errors import EdgeqError
from edgeq.plan.words import gb
from edgeq.tui.road import DEFAULT_CONTEXT

if TYPE_CHECKING:
    from edgeq.device.spec import Device
    from edgeq.model.spec import ModelSpec
    from edgeq.plan.glance import Glance
    from edgeq.tui.road import Road

Section = Literal["typed", "recent", "here", "known", "sizes", "hub"]
TITLES: dict[Section, str] = {
    "typed": "As you typed it",
    "recent": "Chosen before",
    "here": "On this machine",
    "known": "Well-known open models",
    "sizes": "Just a size, no model yet",
    "hub": "On the Hugging Face hub",
}
LEAST = 3  # letters that are worth a search on the hub
DEMO = "demo"  # stands for the model that `edgeq demo` takes
DEMO_TITLE = "SmolLM2-135M-Instruct"
DEMO_SHAPE = "smollm2-135m"  # its name in the catalog, for a look before it is here


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the list.

    Attributes:
        ref: as `read_model` takes it, or `DEMO`.
        note: a few words beside the name.
        local: its weights are on this machine.
    """

    section: Section
    ref: str
    title: str
    note: str = ""
    local: bool = False

    @property
    def where(self) -> str:
        """Where its weights are."""
        return "on this machine" if self.local else "fetched when it is quantized"

    @property
    def quick(self) -> bool:
        """It is read without the network: it is here, or a name of the catalog and no hub id."""
        return self.local or "/" not in self.ref

    def matches(self, words: Iterable[str]) -> bool:
        text = f"{self.ref} {self.title} {self.note}".lower()
        return all(word in text for word in words)


def entries_of(road: Road) -> list[Entry]:
    """All that is known without the network. Blocks: folders are looked through."""
    found = [*_recent(road), *_here(road), *_known()]
    seen: set[str] = set()
    return [one for one in found if not (one.ref in seen or seen.add(one.ref))]  # type: ignore[func-returns-value]


def _recent(road: Road) -> list[Entry]:
    from edgeq.journey import journeys

    refs = dict.fromkeys(j.model for j in (road.journey, *journeys()) if j.model is not None)
    return [Entry("recent", ref, _short(ref), local=_exists(ref)) for ref in list(refs)[:5]]


def _here(road: Road) -> list[Entry]:
    from edgeq.model.found import find_models

    found = find_models((Path.cwd(), Path(road.journey.folder)))
    kinds = {"folder": "", "gguf": "", "cached": "from the hub, "}
    made = [Entry("here", one.ref, one.name, f"{kinds[one.kind]}{gb(one.n_bytes)}", True) for one in found]
    return [*made, Entry("here", DEMO, DEMO_TITLE, "small, to try it out")]


def _known() -> list[Entry]:
    from edgeq.model.catalog import known_models, size_classes

    known = [Entry("known", one.name, one.name) for one in known_models()]
    return [*known, *(Entry("sizes", size, size, f"as {name}") for size, name in size_classes().items())]


def _short(ref: str) -> str:
    """A path by its last part."""
    return Path(ref).name if _exists(ref) else ref


def _exists(ref: str) -> bool:
    try:
        return Path(ref).expanduser().exists()
    except (OSError, ValueError):
        return False


def typed(text: str) -> Entry:
    """What a person wrote, taken as it is: a path, a hub id, a name."""
    return Entry("typed", text, text, local=_exists(text))


def looks_like_a_place(text: str) -> bool:
    """A path or a hub id, and not words to search for."""
    return "/" in text or "\\" in text or text.startswith("~") or text.lower().endswith(".gguf") or _exists(text)


def worth_asking(text: str) -> bool:
    """Words that the hub may know, and no path."""
    return len(text) >= LEAST and not text.startswith((".", "/", "~")) and not _exists(text)


def on_hub(text: str) -> list[Entry]:
    """Search the hub. Blocks.

    Raises:
        EdgeqError: the hub is out of reach.
    """
    from edgeq.model.hub_search import search_hub

    return [
        Entry("hub", one.ref, one.ref, "gated" if one.gated else f"{one.downloads:,} downloads")
        for one in search_hub(text)
    ]


def spec_of(entry: Entry) -> ModelSpec:
    """Raises:
    EdgeqError: it can't be read.
    """
    from edgeq.model.read import read_model

    return read_model(DEMO_SHAPE if entry.ref == DEMO else entry.ref)


def glance_of(device: Device, entry: Entry) -> Glance:
    """The model on the device. Blocks.

    Raises:
        EdgeqError: it can't be read.
    """
    from edgeq.plan import Request
    from edgeq.plan.glance import glance

    spec = spec_of(entry)
    return glance(device, spec, Request(context=min(DEFAULT_CONTEXT, spec.max_positions)))


def marks_of(device: Device, refs: Iterable[str]) -> dict[str, tuple[bool, str]]:
    """Ref -> whether it fits the device at 4 bits, and its size in a word. Blocks; what can't be read is left out."""
    from edgeq.plan import Request
    from edgeq.plan.expected import Experience
    from edgeq.plan.glance import glance, size_words

    known, marks = Experience(device), {}
    for ref in refs:
        try:
            spec = spec_of(Entry("known", ref, ref))
        except EdgeqError:
            continue
        seen = glance(device, spec, Request(context=min(DEFAULT_CONTEXT, spec.max_positions)), known, bits=(4,))
        marks[ref] = (seen.fits, size_words(seen).partition(" ")[0])
    return marks


def chosen(entry: Entry, say: Callable[[str], None]) -> str:
    """What the journey keeps as its model, after it was read. Blocks; the demo's model is fetched if it is not here.

    Raises:
        EdgeqError: it can't be read or fetched.
    """
    from edgeq.model.read import read_model

    if entry.ref == DEMO:
        from edgeq.demo.source import demo_model

        return str(demo_model(say).path)
    read_model(entry.ref)
    return str(Path(entry.ref).expanduser().absolute()) if _exists(entry.ref) else entry.ref
