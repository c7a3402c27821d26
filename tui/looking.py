"""The chosen device as the screen shows it, got from the core: its parts, what they mean, what was measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeq.device.words import binary, origin
from edgeq.estimate.meaning import Meaning, meanings, used_share

if TYPE_CHECKING:
    from edgeq.device.profile import Standing
    from edgeq.device.spec import Device, Memory
    from edgeq.jobs import Job
    from edgeq.tui.road import Road

KIND = "profile"


@dataclass(frozen=True)
class Looking:
    """Attributes:
    standing: what is measured of this machine; of another device `full`: there is nothing to measure.
    runtimes: that are installed here; None: of another device they are not known.
    job: that measures this machine now.
    """

    device: Device
    standing: Standing
    runtimes: dict[str, str | None] | None
    job: Job | None = None

    @property
    def local(self) -> bool:
        return self.device.origin == "local"

    @property
    def title(self) -> tuple[str, str]:
        """Its name, and where what is said of it comes from."""
        return self.device.name, origin(self.device)

    @property
    def parts(self) -> list[Meaning]:
        return meanings(self.device, self.runtimes)

    @property
    def notes(self) -> tuple[str, ...]:
        return self.device.warnings

    @property
    def used(self) -> float:
        """Share of the memory that is not free, 0..1."""
        return used_share(self.device.memory)

    @property
    def free(self) -> str:
        return binary(self.device.memory.usable_bytes)

    def with_memory(self, now: Memory) -> Looking:
        """The same with the memory as it is now, its measured bandwidth kept."""
        before = self.device.memory
        memory = replace(
            now,
            unified=before.unified,
            read_bandwidth=before.read_bandwidth,
            bandwidth_by_threads=before.bandwidth_by_threads,
        )
        return replace(self, device=replace(self.device, memory=memory))


def glimpse_of(road: Road) -> Looking:
    """The device as it is known without measuring. Blocks, for some milliseconds.

    Raises:
        EdgeqError: no such device.
    """
    from edgeq import registry
    from edgeq.device.profile import glimpse
    from edgeq.jobs import at_work

    if road.journey.device != "auto":
        return Looking(road.device(), "full", None)
    device, standing = glimpse()
    return Looking(device, standing, registry.runtimes(), at_work(KIND))


def looking_of(road: Road) -> Looking:
    """The same, measured quickly if it never was. Blocks, for some seconds then.

    Raises:
        EdgeqError: no such device.
    """
    before = glimpse_of(road)
    if not before.local:
        return before
    device = road.device(refresh=True)
    return replace(before, device=device, standing="quick" if before.standing == "none" else before.standing)


def measure() -> Job:
    """Begin the full measurement, anew where there is one, or find the one at work. Blocks.

    Raises:
        EdgeqError: the jobs' place can't be written.
    """
    from edgeq.device.profile import glimpse
    from edgeq.jobs import at_work, start

    refresh = glimpse()[1] == "full"
    return at_work(KIND) or start(KIND, {"refresh": refresh}, "Measure this machine")


def memory_now() -> Memory:
    """This machine's memory at this moment. A millisecond or two."""
    from edgeq.device.profile import machine_memory

    return machine_memory()
