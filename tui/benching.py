"""A measurement that is prepared, at work or done: what the screen shows of it, got from the core."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.benchmark import Benchmark, Promise
from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json, to_json
from edgeq.measure.asking import Field, changed, options
from edgeq.measure.bench import Workload
from edgeq.measure.bench_words import choice_words
from edgeq.measure.compare import Comparison, beside, rounds_of, short_names, unable
from edgeq.measure.known import latest, run_seconds
from edgeq.measure.likeness import likeness
from edgeq.tui.hints import in_app

if TYPE_CHECKING:
    from edgeq.artifact import Artifact
    from edgeq.jobs import Job
    from edgeq.journey import Journey
    from edgeq.tui.road import Road

Dial = tuple[str, float | None, list[tuple[str, float | None]]]  # name, tokens/s, marks


@dataclass(frozen=True)
class Choice:
    """One artifact.

    Attributes:
        artifact: None: it can't be read.
        why, hint: why it can't be measured, and the way out; empty: it can.
        promise: what is expected of it on this machine.
        known: its latest measurement here.
    """

    path: str
    artifact: Artifact | None
    why: str = ""
    hint: str = ""
    promise: Promise = Promise()  # noqa: RUF009 - it is frozen
    known: Benchmark | None = None

    @property
    def able(self) -> bool:
        return not self.why

    @property
    def runtime(self) -> str:
        return "" if self.artifact is None else self.artifact.runtime

    @property
    def reason(self) -> str:
        """Why it can't be measured and the way out, in two lines; empty: it can."""
        return f"{self.why[:1].upper()}{self.why[1:]}\n→ {in_app(self.hint)}" if self.why else ""

    def line(self, chosen: bool) -> str:
        """`[x] model-onnx   onnxruntime, 108 MB, 43.1 tokens/s 2 days ago`."""
        mark = "[x]" if chosen else "[ ]" if self.able else " ✗ "
        return f"{mark} {Path(self.path).name}   {choice_words(self.artifact, self.known, able=self.able)}"


@dataclass(frozen=True)
class Benching:
    """Attributes:
    choices: the journey's artifacts, then others of its checkpoint.
    chosen: paths of those that will be measured.
    job: the latest, unless it was cancelled or is of artifacts that are not here.
    elsewhere: the device that the journey is planned for, where that is not this machine.
    """

    choices: tuple[Choice, ...]
    chosen: tuple[str, ...]
    work: Workload = Workload()  # noqa: RUF009 - it is frozen
    job: Job | None = None
    elsewhere: str = ""

    @property
    def measured(self) -> tuple[Choice, ...]:
        return tuple(c for c in self.choices if c.path in self.chosen)

    @property
    def able(self) -> tuple[Choice, ...]:
        return tuple(c for c in self.choices if c.able)

    @property
    def fitted(self) -> Workload:
        """The work, as it fits all that will be measured.

        Raises:
            EdgeqError: it fits none of them.
        """
        opened = [c.artifact for c in self.measured if c.artifact is not None]
        return self.work.fitted(min((int(a.model.get("max_positions", 1 << 20)) for a in opened), default=1 << 20))

    @property
    def seconds(self) -> float | None:
        """How long it takes, about; None: not known."""
        rounds = 1 if len(self.chosen) == 1 else len(rounds_of(self.work.reps))
        items = [(c.artifact, c.promise, c.known) for c in self.measured if c.artifact is not None]
        return run_seconds(self.fitted, items, rounds)

    @property
    def command(self) -> str:
        return shlex.join(["edgeq", "bench", *self.chosen, *options(self.work)])

    def asked(self, name: Field, text: str) -> Benching:
        """With another value of what is measured.

        Raises:
            EdgeqError: a value that can't be.
        """
        return replace(self, work=changed(self.work, name, text))

    def toggled(self, path: str) -> Benching:
        """One more, or one less; at least one stays, and only those that can be measured come in."""
        if path in self.chosen:
            left = tuple(p for p in self.chosen if p != path)
            return replace(self, chosen=left) if left else self
        wanted = {*self.chosen, path}
        return replace(self, chosen=tuple(c.path for c in self.able if c.path in wanted))

    def begin(self) -> Benching:
        """Begin the job, or take up one that another window began. Blocks.

        Raises:
            EdgeqError: it can't be begun.
        """
        from edgeq.jobs import at_work, start

        kind, request = self._asked()
        job = at_work(kind, **request)
        if job is None:
            names = ", ".join(Path(p).name for p in self.chosen)
            job = start(kind, {**request, "workload": to_json(self.fitted)}, f"Benchmark: {names}")
        return replace(self, job=job)

    def _asked(self) -> tuple[str, dict[str, Any]]:
        if len(self.chosen) == 1:
            return "bench", {"artifact": self.chosen[0]}
        return "compare", {"artifacts": list(self.chosen)}

    # At work.

    @property
    def at_work(self) -> tuple[Choice, ...]:
        """Those that the job measures, in its order."""
        paths = _paths(self.job)
        return tuple(c for p in paths for c in self.choices if c.path == p)

    def marks(self, at: int) -> list[tuple[str, float | None]]:
        """Speeds that the one at work is held against, tokens/s: what was promised of it, and its ceiling."""
        promise = self.at_work[at].promise if at < len(self.at_work) else None
        return [] if promise is None else [("promised", promise.decode_tps), ("ceiling", promise.ceiling_tps)]

    def dials(self, speeds: Sequence[tuple[int, float]]) -> list[Dial]:
        """Of each artifact at work: its name, its latest speed if any, and what that is held against."""
        latest = dict(speeds)  # the last of each
        return [(name, latest.get(at), self.marks(at)) for at, name in enumerate(self.names)]

    @property
    def names(self) -> list[str]:
        return short_names([(c.path, c.runtime) for c in self.at_work])

    def speeds(self) -> list[tuple[int, float]]:
        """(artifact, tokens/s) of the decoding that is behind, where another window or this one left it. Blocks."""
        from edgeq.jobs.shelf import events, folder_of
        from edgeq.measure.live import now_of

        if self.job is None:
            return []
        seen = (now_of(event.more) for event in events(folder_of(self.job)))
        return [(n.artifact, n.decode_tps) for n in seen if n is not None and n.decode_tps is not None]

    # Afterwards.

    def done(self, result: Any) -> Benching:
        """With what the job found.

        Raises:
            EdgeqError: it is of another version of edgeq.
        """
        assert self.job is not None
        if self.job.kind == "bench":
            found = [from_json(Benchmark, result, "the job")]
        else:
            found = [side.benchmark for side in from_json(Comparison, result, "the job").sides]
        known = dict(zip(_paths(self.job), found, strict=True))
        return replace(self, choices=tuple(replace(c, known=known.get(c.path, c.known)) for c in self.choices))

    def comparison(self, result: Any = None) -> Comparison | None:
        """The latest measurements side by side, or those of the job's result; None: there are none."""
        if result is not None and self.job is not None and self.job.kind == "compare":
            return from_json(Comparison, result, "the job")
        known = [(c.known, c.artifact) for c in self.choices if c.known is not None]
        if not known:
            return None
        return beside([k for k, _ in known if k is not None], [None if a is None else likeness(a) for _, a in known])


def benching_of(road: Road) -> Benching:
    """The journey's artifacts, what is known of them, and its job. Blocks.

    Raises:
        EdgeqError: this machine can't be told.
    """
    from edgeq.device.load_ref import load_device
    from edgeq.jobs import look

    here, device = road.journey, load_device("auto")
    opened = [_opened(path) for path in _all_paths(here)]
    able = [c.artifact for c in opened if c.artifact is not None]
    known = dict(zip([str(a.path) for a in able], latest(able, device), strict=True))
    choices = tuple(_promised(replace(c, known=known.get(c.path)), device) for c in opened)
    first = [c.path for c in choices if c.able and c.path in here.artifacts]
    chosen = first or [c.path for c in choices if c.able][:1]
    job = road.job("bench")
    if job is not None and (not set(_paths(job)) <= {c.path for c in choices} or look(job).state == "cancelled"):
        job = None
    return Benching(choices, tuple(chosen), job=job, elsewhere="" if here.device == "auto" else here.device)


def _all_paths(here: Journey) -> Iterator[str]:
    """The journey's own, then what else was exported of its checkpoint: beside it, and in the journey's folder."""
    from edgeq.measure.fastest import artifacts_of

    found = list(here.artifacts)
    if here.checkpoint is not None:
        for folder in (Path(here.checkpoint).parent, Path(here.folder)):
            with suppress(OSError):
                found += [str(a.path) for a in artifacts_of(Path(here.checkpoint), folder)]
    seen: set[Path] = set()
    for path in found:
        if (place := Path(path).resolve()) not in seen:
            seen.add(place)
            yield path


def _opened(path: str) -> Choice:
    from edgeq.artifact import read_artifact

    try:
        artifact = read_artifact(path)
    except EdgeqError as error:
        return Choice(path, None, error.what, "Export it again: press 5")
    why = unable(artifact)
    artifact = replace(artifact, path=Path(path))
    return Choice(path, artifact) if why is None else Choice(path, artifact, why.what, why.hint)


def _promised(choice: Choice, device: Any) -> Choice:
    """With what is promised of it."""
    from edgeq.measure.promise import promise_of

    if choice.artifact is None or not choice.able:
        return choice
    with suppress(EdgeqError):  # a damaged promise is none
        return replace(choice, promise=promise_of(choice.artifact, device, Workload()))
    return choice


def _paths(job: Job | None) -> list[str]:
    if job is None:
        return []
    return [str(p) for p in job.request.get("artifacts") or [job.request["artifact"]]]
