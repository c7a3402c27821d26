"""An export that is prepared, at work or done: what the screen shows of it, got from the core."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeq.errors import EdgeqError
from edgeq.export_command import command_line, default_out

if TYPE_CHECKING:
    from edgeq.jobs import Job
    from edgeq.tui.road import Road

Standing = Literal["nothing", "same", "unproved", "other", "foreign"]
IN_THE_WAY: dict[Standing, str] = {
    "same": "This checkpoint's artifact is there already: press u to use it.",
    "unproved": "This checkpoint's artifact is there, but was not proved: press r to export anew, u to use it.",
    "other": "Another artifact has this name: press w to write beside it, r to replace it.",
    "foreign": "The folder holds something else: press w for another name.",
}


@dataclass(frozen=True)
class Way:
    """One exporter: what it is for, why it can't take the checkpoint, what it can be asked for."""

    name: str
    about: str
    refusals: tuple[str, ...]
    options: tuple[str, ...]
    choices: dict[str, list[Any]]
    planned: bool = False

    @property
    def fits(self) -> bool:
        return not self.refusals


@dataclass(frozen=True)
class Exporting:
    """Attributes:
    ways: that fit first, the planned one at the very front.
    options: of the chosen exporter, those that are not its defaults.
    source: of the checkpoint, rows of a name and what is said of it.
    """

    checkpoint: str
    ways: tuple[Way, ...]
    to: str
    out: Path
    options: dict[str, Any] = field(default_factory=dict)
    planned_options: dict[str, Any] = field(default_factory=dict)
    job: Job | None = None
    source: tuple[tuple[str, str], ...] = ()

    @property
    def way(self) -> Way:
        return next(way for way in self.ways if way.name == self.to)

    @property
    def command(self) -> str:
        return command_line(self.checkpoint, self.to, self.options, self.out)

    @property
    def going(self) -> list[tuple[str, str]]:
        """What is being done: rows of a name and what is said of it."""
        asked = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in self.options.items())
        rows = [("checkpoint", self.checkpoint), ("for", self.way.about), ("folder", str(self.out))]
        return [*rows, *([("options", asked)] if asked else [])]

    @property
    def request(self) -> dict[str, Any]:
        return {"checkpoint": self.checkpoint, "to": self.to, "out": str(self.out), "options": self.options}

    @property
    def standing(self) -> Standing:
        """What lies at `out`: an artifact of this checkpoint, proved or not, another one, something else.

        One that was found wrong counts as another. Not proved is one whose export was cancelled just then, or whose
        runtime is not installed.
        """
        from edgeq.artifact import MANIFEST, read_artifact

        if not self.out.exists():
            return "nothing"
        if not (self.out / MANIFEST).is_file():
            return "foreign"
        try:
            found = read_artifact(self.out)
        except EdgeqError:
            return "other"
        same = found.checkpoint is not None and Path(found.checkpoint) == Path(self.checkpoint).resolve()
        if not same or found.verify.get("verdict") == "fail":
            return "other"
        return "same" if found.verify else "unproved"

    def chosen(self, name: str) -> Exporting:
        """By another exporter, with its defaults or what the plan wants of it."""
        options = self.planned_options if next(w for w in self.ways if w.name == name).planned else {}
        return replace(self, to=name, options=options, out=default_out(self.checkpoint, name), job=None)

    def changed(self, name: str, value: Any) -> Exporting:
        """With another value of an option; None: its default."""
        if name == "out":
            return replace(self, out=Path(value).expanduser(), job=None)
        options = self.options | {name: value}
        return replace(self, options={n: options[n] for n in sorted(options) if options[n] is not None}, job=None)

    def beside(self) -> Exporting:
        from edgeq.quantize.command import other_name

        return replace(self, out=other_name(self.out), job=None)

    def begin(self, *, force: bool) -> Exporting:
        """Begin the job, or begin anew the one that stopped, or take up what another window began. Blocks.

        Raises:
            EdgeqError: it can't be begun.
        """
        from edgeq.jobs import at_work, resume, start

        if self.job is not None and not force:  # a stopped job was not asked to replace anything
            resume(self.job)
            return self
        job = at_work("export", out=str(self.out))
        if job is None:
            title = f"Export: {Path(self.checkpoint).name} to {self.to}"
            job = start("export", {**self.request, "force": force}, title)
        return replace(self, job=job)


def exporting_of(road: Road) -> Exporting:
    """The journey's export: as it was begun, else the planned one. Blocks.

    Raises:
        EdgeqError: the checkpoint is gone or damaged.
    """
    from edgeq.checkpoint.store import Checkpoint
    from edgeq.jobs.ask import ask
    from edgeq.quantize.words import made_rows

    checkpoint = str(road.journey.checkpoint)
    planned, options = _planned(road)
    found = [
        Way(w["name"], w["about"], tuple(w["refusals"]), tuple(w["options"]), w["choices"], w["name"] == planned)
        for w in ask("exporters", {"checkpoint": checkpoint})["exporters"]
    ]
    ways = sorted(found, key=lambda w: (not w.fits, not w.planned, w.name != "onnx", w.name))
    source = tuple(made_rows(Checkpoint.open(checkpoint)))
    first = Exporting(checkpoint, tuple(ways), ways[0].name, Path(), planned_options=options, source=source)
    made = first.chosen(ways[0].name)
    job = road.job("export")
    if job is None or job.request["checkpoint"] != checkpoint:
        return made
    return replace(
        made, to=job.request["to"], out=Path(job.request["out"]), options=dict(job.request["options"]), job=job
    )


def files_of(artifact: Path) -> list[tuple[str, str]]:
    """Its files with their sizes; none where no artifact can be read there. Blocks."""
    from edgeq.artifact import read_artifact
    from edgeq.measure.proof_words import file_rows

    try:
        return file_rows(read_artifact(artifact))
    except EdgeqError:
        return []


def _planned(road: Road) -> tuple[str | None, dict[str, Any]]:
    """The exporter that the plan's choice wants, and what of it."""
    from edgeq.plan.plan import export_options

    try:
        chosen = road.candidate() if road.journey.target is not None else None
    except EdgeqError:  # the device or model can't be read now; the checkpoint can
        chosen = None
    return (None, {}) if chosen is None else export_options(chosen)
