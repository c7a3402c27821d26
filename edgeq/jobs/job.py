"""What a job is, and what can be seen of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["running", "paused", "done", "failed", "cancelled", "interrupted"]
LIVE: frozenset[State] = frozenset({"running", "paused"})


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work.

    Attributes:
        id: the name of its folder; sorts by time.
        kind: one of `edgeq.jobs.work.KINDS`.
        request: what its kind takes, plain JSON.
        title: a line for a list.
        created: ISO date and time, UTC.
        cwd: where it was begun: relative paths in its request are from there.
    """

    id: str
    kind: str
    request: dict[str, Any]
    title: str
    created: str
    cwd: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """How far the work was at one moment.

    Attributes:
        active_s: seconds that the process had worked by then, pauses left out.
        done, total: in the work's own unit; a total of 0 says that nobody knows how much there is to do.
        more: what else the work says of itself (`tokens_per_s` of a benchmark); `left_s`, where it knows better than
            its pace.
        part_s, part_done: `active_s` and `done` when the present part of the work was first seen to get on.
    """

    active_s: float
    done: int
    total: int
    what: str
    more: dict[str, Any] = field(default_factory=dict)
    part_s: float = 0.0
    part_done: int = 0

    @property
    def rate(self) -> float | None:
        """Of the work's own unit in an active second, over the present part; None: not to be told yet."""
        spent, made = self.active_s - self.part_s, self.done - self.part_done
        return made / spent if made > 0 and spent > 0 else None


@dataclass(frozen=True, slots=True)
class Failure:
    """How a job went wrong: an `EdgeqError`'s parts. `trace`: of a fault of edgeq's own, else empty."""

    what: str
    where: str | None = None
    hint: str | None = None
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """A job as it is now.

    Attributes:
        event: the latest.
        rss_bytes: resident memory of the process now; 0 when there is none.
        result: of a job that is done.
        failure: of one that failed.
    """

    job: Job
    state: State
    event: Event | None = None
    rss_bytes: int = 0
    result: Any = None
    failure: Failure | None = None

    @property
    def share(self) -> float | None:
        """How much of the present part is done, 0..1; None: unknown."""
        if self.state == "done":
            return 1.0
        return self.event.done / self.event.total if self.event and self.event.total else None

    @property
    def remaining_s(self) -> float | None:
        """Seconds of work left in the present part, as the work itself says or else at its pace; None: not known."""
        event = self.event
        said = event.more.get("left_s") if event is not None else None
        if isinstance(said, (int, float)):
            return float(said)
        if event is None or event.rate is None or not event.total:
            return None
        return max(0, event.total - event.done) / event.rate
