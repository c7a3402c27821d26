"""A quantization that is prepared, at work or done: what the screen shows of it, got from the core."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.amounts import amount
from edgeq.jsonable import from_json
from edgeq.quantize.command import Standing, command_line, folder_name, other_name, sentence, standing
from edgeq.quantize.words import is_text, rate, text_rows
from edgeq.recipe import Recipe, altered, recipe_json, recipe_named

if TYPE_CHECKING:
    from edgeq.jobs import Job, Look
    from edgeq.jobs.job import State
    from edgeq.quantize.so_far import LayerError, MatrixDone
    from edgeq.tui.road import Road


def making_of(road: Road) -> Making:
    """The journey's quantization: as it was begun, else as the chosen candidate has it. Blocks.

    Raises:
        EdgeqError: the model can't be read, or the candidate is none that edgeq makes.
    """
    from edgeq.jobs import at_work
    from edgeq.plan.plan import source

    here = road.journey
    spec = road.spec()
    if here.recipe is not None:
        recipe = from_json(Recipe, here.recipe, "the journey")
    else:
        recipe = recipe_named(source(spec), here.scheme or "")
    job = road.job("quantize")
    out = Path(job.request["out"]) if job is not None else Path(here.folder) / folder_name(recipe)
    if job is None:
        job = at_work("quantize", out=str(out))
    threads = job.request.get("threads") if job is not None else None
    return Making(recipe, out, spec.n_layers, threads, job)


IN_THE_WAY: dict[Standing, str] = {
    "same": "This very checkpoint is there already: press u to use it.",
    "other": "Another checkpoint has this name: press w to write beside it, r to replace it.",
    "foreign": "The folder holds something else: press w for another name.",
}


@dataclass(frozen=True)
class Making:
    """Attributes:
    layers_count: of the model.
    job: its latest, if any.
    ended: how the job stopped that can be taken up; None: there is none.
    """

    recipe: Recipe
    out: Path
    layers_count: int
    threads: int | None = None
    job: Job | None = None
    ended: State | None = None

    @property
    def recipe_json(self) -> dict[str, Any]:
        return recipe_json(self.recipe)

    @property
    def sentence(self) -> str:
        return sentence(self.recipe)

    @property
    def command(self) -> str:
        return command_line(self.recipe, self.out, self.threads)

    @property
    def standing(self) -> Standing:
        return standing(self.out, self.recipe)

    @property
    def verb(self) -> str:
        return "go on" if self.ended is not None and self.job is not None else "begin"

    @property
    def request(self) -> dict[str, Any]:
        return {"recipe": self.recipe_json, "out": str(self.out), "threads": self.threads}

    def changed(self, name: str, value: Any) -> Making:
        """With another value of an option; a folder that was named after the recipe goes on to be.

        Raises:
            EdgeqError: a value that can't be.
        """
        if name == "out":
            return replace(self, out=Path(value).expanduser(), job=None)
        if name == "threads":
            return replace(self, threads=value, job=None)
        recipe = altered(self.recipe, **{name: value})
        named = self.out.name == folder_name(self.recipe)
        return replace(
            self, recipe=recipe, out=self.out.with_name(folder_name(recipe)) if named else self.out, job=None
        )

    def beside(self) -> Making:
        return replace(self, out=other_name(self.out), job=None)

    def anew(self, folder: str) -> Making:
        return replace(self, out=Path(folder) / folder_name(self.recipe), job=None, ended=None)

    def stopped(self, state: State) -> Making:
        return replace(self, ended=state)

    def ask(self) -> dict[str, Any]:
        """What it will take. Blocks.

        Raises:
            EdgeqError: no such model or method.
        """
        from edgeq.jobs.ask import ask

        return ask("needs", self.request)

    def guide(self, answer: dict[str, Any]) -> str:
        """What to press, by what `ask` said."""
        if answer["problem"]:
            return "This can't be done so: press o to change the options, then s."
        return IN_THE_WAY.get(self.standing) or f"Press s to {self.verb}: {answer['line']}."

    def begin(self, *, force: bool) -> Making:
        """Begin the job, or take up the one that stopped. Blocks.

        Raises:
            EdgeqError: it can't be begun, or what stood against it still does.
        """
        from edgeq.errors import EdgeqError
        from edgeq.jobs import at_work, resume, start
        from edgeq.jobs.ask import ask

        if self.job is not None:
            resume(self.job)
            return replace(self, ended=None)
        answer = ask("needs", self.request, again=True)  # the disk may have filled up or got room
        if answer["problem"]:
            raise EdgeqError(**answer["problem"])
        other = at_work("quantize", out=str(self.out))
        if other is not None:
            return replace(self, job=other)
        expected = {"bytes": answer["peak"], "writing_s": answer["writing_s"], "layers_s": answer["layers_s"]}
        request = {**self.request, "force": force, "expected": expected}
        return replace(self, job=start("quantize", request, f"Quantize: {folder_name(self.recipe)}"), ended=None)

    def parts(self, seen: Look) -> list[str]:
        """Rate and memory of the job, beside what was expected."""
        pace = "" if seen.event is None else rate(seen.event.rate, seen.event.what)
        expected = (seen.job.request.get("expected") or {}).get("bytes")
        beside = f", {amount(expected)} expected" if expected else ""
        return [pace, f"memory {amount(seen.rss_bytes)}{beside}" if seen.rss_bytes else ""]

    def where(self, seen: Look) -> str:
        """What it is at, in a sentence."""
        from edgeq.quantize.so_far import place

        if self.first(seen):
            return self._where_first(seen)
        at = None if seen.event is None else place(seen.event.what)
        layer = "" if at is None else f": layer {at[0] + 1} of {self.layers_count}"
        if seen.state == "paused":
            return f"Paused{layer}. Press p to go on."
        return f"Quantizing{layer}. You may leave this screen, or edgeq: it goes on."

    def _where_first(self, seen: Look) -> str:
        if seen.state == "paused":
            return "Paused at the calibration text. Press p to go on."
        return "First the text to learn from, then the layers. You may leave: it goes on."

    def first(self, seen: Look) -> list[tuple[str, str]]:
        """What comes before the layers, where the job is at that: rows of a name and what is said of it."""
        event = seen.event
        if event is None or not is_text(event.what):
            return []
        expected = seen.job.request.get("expected") or {}
        times = (expected.get("writing_s"), expected.get("layers_s"))
        return text_rows(event.what, event.done, event.total, self.layers_count, *times)

    def layers(self) -> tuple[list[MatrixDone], list[LayerError], int]:
        """The matrices that are done, their layers, and how many layers there are."""
        from edgeq.quantize.so_far import layer_errors, matrices_done

        done = matrices_done(self.out)
        return done, layer_errors(done), self.layers_count

    def made(self) -> list[tuple[str, str]]:
        """What came out. Blocks.

        Raises:
            EdgeqError: the checkpoint is gone or damaged.
        """
        from edgeq.checkpoint.store import Checkpoint
        from edgeq.quantize.words import made_rows

        return made_rows(Checkpoint.open(self.out))
