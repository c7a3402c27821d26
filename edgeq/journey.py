"""A person's way from a device to a delivered model: what was chosen so far, kept after every choice.

One small file a journey in `home()/journeys`. It names things (a model, a scheme, folders, jobs) and holds none of
them: what they are is read from where they are. The guided application (`edgeq.tui`) walks it; `edgeq tui --list`
shows them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from edgeq.errors import EdgeqError
from edgeq.files import write_json
from edgeq.jsonable import from_json, to_json
from edgeq.plan.request import Request
from edgeq.store import home

Step = Literal["device", "model", "plan", "quantize", "export", "bench", "chat", "deliver"]
STEPS: tuple[Step, ...] = get_args(Step)


@dataclass(frozen=True, slots=True)
class Journey:
    """Attributes:
    step: where the person is.
    device: `auto`, a name of the catalog, or a profile's file.
    model: as `read_model` takes it.
    request: what is asked of the plan; None: the plan's own defaults.
    scheme, target: of the chosen candidate.
    recipe: of the quantization (JSON of a `Recipe`), once it began.
    folder: where checkpoints and artifacts are put.
    checkpoint: the finished one.
    artifacts: the finished ones, latest last.
    jobs: step -> id of its latest job.
    """

    id: str
    started: str
    folder: str
    step: Step = "device"
    device: str = "auto"
    model: str | None = None
    request: Request | None = None
    scheme: str | None = None
    target: str | None = None
    recipe: dict[str, Any] | None = None
    checkpoint: str | None = None
    artifacts: tuple[str, ...] = ()
    jobs: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """A line for a list: `Qwen/Qwen3-0.6B, gptq-int4-g32 on onnxruntime/cpu`."""
        way = f", {self.scheme} on {self.target}" if self.scheme else ""
        return f"{self.model}{way}" if self.model else "nothing chosen yet"

    @property
    def model_name(self) -> str:
        """The model by its last part, where it is a path."""
        name = self.model or ""
        return Path(name).name if name.startswith(("/", "~", ".")) or "\\" in name else name

    def with_device(self, device: str) -> Journey:
        """Another device: what was planned for the last one is open again."""
        return self if device == self.device else replace(self._unplanned(), device=device)

    def with_model(self, model: str) -> Journey:
        """Another model: all that was made of the last one is left where it is, and this journey begins anew."""
        return self if model == self.model else replace(self._unplanned(), model=model, request=None)

    def with_choice(self, request: Request, scheme: str, target: str) -> Journey:
        """A candidate of the plan: another one than before has its quantization still to come."""
        if (scheme, target) == (self.scheme, self.target):
            return replace(self, request=request)
        return replace(self._unplanned(), request=request, scheme=scheme, target=target)

    def with_job(self, step: Step, job_id: str) -> Journey:
        return replace(self, jobs={**self.jobs, step: job_id})

    def with_artifact(self, path: str) -> Journey:
        return replace(self, artifacts=(*(a for a in self.artifacts if a != path), path))

    def _unplanned(self) -> Journey:
        return replace(self, scheme=None, target=None, recipe=None, checkpoint=None, artifacts=(), jobs={})

    def lacks(self, step: Step) -> Step | None:
        """The earlier step that has to be taken before this one; None when this one can be entered."""
        if step in ("plan", "quantize") and self.model is None:
            return "model"
        if step == "quantize" and self.scheme is None:
            return "plan"
        if step == "export" and self.checkpoint is None:
            return "quantize"
        if step in ("bench", "chat", "deliver") and not self.artifacts:
            return "export"
        return None


def begin(folder: Path | str | None = None) -> Journey:
    """A new journey; nothing is written before its first choice.

    Args:
        folder: where what is made will lie; None: `edgeq-models` in the current directory.
    """
    now = datetime.now(UTC)
    place = Path("edgeq-models") if folder is None else Path(folder)
    return Journey(
        f"{now:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}", now.isoformat("T", "seconds"), str(place.expanduser().absolute())
    )


def save(journey: Journey) -> None:
    """Raises:
    EdgeqError: the place can't be written.
    """
    write_json(_path(journey.id), to_json(journey))


def journeys() -> list[Journey]:
    """All that are kept, the one last changed first; damaged ones are left out."""
    try:
        files = [p for p in (home() / "journeys").iterdir() if p.suffix == ".json"]
        files.sort(key=lambda p: -p.stat().st_mtime)
    except OSError:
        return []
    return [found for path in files if (found := _read(path)) is not None]


def changed(journey: Journey) -> datetime | None:
    """When it was last kept; None: it never was."""
    try:
        return datetime.fromtimestamp(_path(journey.id).stat().st_mtime, UTC)
    except (OSError, OverflowError, ValueError):
        return None


def find_journey(journey_id: str) -> Journey:
    """Raises:
    EdgeqError: none with this id.
    """
    found = _read(_path(journey_id))
    if found is None:
        raise EdgeqError(f"no journey {journey_id!r}", hint="`edgeq tui --list` shows them")
    return found


def from_plan(data: Mapping[str, Any], journey: Journey, where: object = None) -> Journey:
    """The journey with the device, model and choice of a plan that `edgeq plan --json` printed.

    Raises:
        EdgeqError: not a plan, or one that recommends nothing.
    """
    try:
        model, best = data["model"], data["recommended"]
        name = str(model["location"] or model["name"])
        request = from_json(Request, data["request"], where)
        if best is None:
            raise EdgeqError("the plan recommends nothing: nothing fits the device", where=where)
        return journey.with_model(name).with_choice(request, best["scheme"]["name"], best["target"])
    except (KeyError, TypeError) as error:
        hint = "Make one: edgeq plan -m MODEL --json > plan.json"
        raise EdgeqError("not a plan", where=where, hint=hint) from error


def _path(journey_id: str) -> Path:
    return home() / "journeys" / f"{Path(journey_id).name}.json"


def _read(path: Path) -> Journey | None:
    try:
        return from_json(Journey, json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError, EdgeqError):
        return None
