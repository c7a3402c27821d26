"""The whole road: profile, model, plan, quantize, export, verify, run, measure. Finished steps are taken up again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgeq.artifact import MANIFEST, Artifact, read_artifact
from edgeq.benchmark import Benchmark, Promise, device_key
from edgeq.checkpoint.store import Checkpoint
from edgeq.checkpoint.weights import Weights
from edgeq.demo.report import Report, outcomes
from edgeq.demo.source import Source, demo_model
from edgeq.device.profile import profile_device
from edgeq.device.spec import Device
from edgeq.errors import EdgeqError
from edgeq.estimate import weight_bytes
from edgeq.files import cannot_write, write_json
from edgeq.jsonable import from_json, to_json
from edgeq.measure.bench import Workload, bench
from edgeq.measure.promise import promise_for
from edgeq.measure.verify import Verification, record, verify
from edgeq.model.spec import ModelSpec
from edgeq.plan import Candidate, Request, make_plan
from edgeq.recipe import Recipe, recipe_for, recipe_json
from edgeq.registry import Progress, exporter, runtime
from edgeq.store import Store

TARGET = "onnxruntime/cpu"
PROMPT = "The capital of France is"
ANSWER_TOKENS = 24
CONTEXT = 2048
MARKER = "demo.json"
STEPS = ("profile", "model", "plan", "quantize", "export", "verify", "run", "bench")
TITLES = {
    "profile": "measure this machine",
    "model": "fetch the model",
    "plan": "plan for this machine",
    "quantize": "quantize",
    "export": "export to ONNX",
    "verify": "verify the logits",
    "run": "let it answer",
    "bench": "measure it",
}


class Narrator(Protocol):
    """Told how the demo goes on."""

    def step(self, name: str) -> AbstractContextManager[Progress]:
        """Wraps the work of one of `STEPS`; its progress goes to what the context gives."""
        ...

    def done(self, name: str, what: str, seconds: float, reused: bool) -> None:
        """A step is over: what came of it, in a line."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """What the demo is asked.

    Attributes:
        model: any model edgeq opens; None: SmolLM2-135M-Instruct.
        bits: of the linear weights.
        force: begin anew in a folder that holds something already.
        keep: keep the neutral checkpoint beside the artifact.
    """

    out: Path
    model: str | None = None
    bits: int = 4
    force: bool = False
    keep: bool = True
    workload: Workload = field(default_factory=lambda: Workload(prompt_tokens=(32, 128)))

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint"

    @property
    def artifact(self) -> Path:
        return self.out / "artifact"


def run_demo(settings: Settings, narrator: Narrator) -> Report:
    """Walk the road; see `Settings` and `Report`. The report is also kept as `report.json` in the folder.

    Raises:
        EdgeqError: any step's problem; the folder holds something else; no scheme of that many bits fits.
    """
    walk = _Walk(settings, narrator)
    prepare(settings)
    device = walk.profile()
    source, weights = walk.model()
    chosen, promise = walk.plan(device, weights.spec)
    recipe = recipe_for(str(source.path), chosen.scheme)
    artifact = walk.make(weights, recipe, promise)
    verification = walk.verify(artifact)
    if verification.verdict == "fail":
        raise EdgeqError(
            f"the artifact does not compute what the checkpoint says: {verification.reasons[0]}",
            where=settings.artifact,
            hint="Report it with the output of `edgeq doctor`",
        )
    answer = walk.run(artifact)
    benchmark = walk.bench(artifact, device, promise_made(artifact))
    report = Report(
        model=weights.spec.name,
        source=source.origin,
        device=device_key(device),
        scheme=chosen.scheme.name,
        target=TARGET,
        prompt=PROMPT,
        answer=answer,
        outcomes=outcomes(benchmark, weight_bytes(weights.spec, chosen.scheme, TARGET), model_bytes(artifact)),
        verification=verification,
        benchmark=benchmark,
        seconds=tuple(walk.seconds.items()),
        artifact=str(settings.artifact),
        artifact_bytes=artifact.total_bytes,
        checkpoint=str(settings.checkpoint) if settings.keep else None,
    )
    write_json(settings.out / "report.json", to_json(report))
    if not settings.keep:
        shutil.rmtree(settings.checkpoint, ignore_errors=True)
    return report


def prepare(settings: Settings) -> None:
    """Make the folder, or take up the demo it holds.

    Raises:
        EdgeqError: it holds something else, or a demo of other settings; it can't be made.
    """
    mine: dict[str, Any] = {"edgeq_demo": 1, "model": settings.model, "bits": settings.bits}
    marker = settings.out / MARKER
    scheme: Any = None
    if settings.out.exists() and not settings.force:
        found = _read_marker(marker)
        if found is None and (not settings.out.is_dir() or any(settings.out.iterdir())):
            raise EdgeqError("the output exists already", where=settings.out, hint="Choose another --out")
        scheme = None if found is None else found.pop("scheme", None)
        if found is not None and found != mine:
            asked = f"model {found.get('model') or 'default'}, {found.get('bits')} bits"
            raise EdgeqError(
                f"this folder holds a demo of {asked}", where=settings.out, hint="Add --force to begin anew"
            )
    try:
        if settings.force:
            _clear(settings)
        settings.out.mkdir(parents=True, exist_ok=True)
        for left in settings.out.glob(f".{settings.artifact.name}.*.partial"):
            shutil.rmtree(left, ignore_errors=True)  # of a killed export
    except OSError as error:
        raise cannot_write(settings.out, error) from error
    write_json(marker, mine | ({"scheme": scheme} if scheme else {}))


def _read_marker(marker: Path) -> Any:
    try:
        found = json.loads(marker.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("edgeq_demo") == 1 else None


def _clear(settings: Settings) -> None:
    """Remove what a demo made, and nothing else that may lie in the folder."""
    partial = settings.checkpoint.with_name(settings.checkpoint.name + ".partial")
    for folder in (settings.checkpoint, partial, settings.artifact):
        if folder.exists():
            shutil.rmtree(folder)


def choose(device: Device, spec: ModelSpec, bits: int, begun: str | None = None) -> Candidate:
    """The plan's best candidate with that many bits that edgeq can make today.

    Args:
        begun: name of the scheme that an earlier run chose. It stays the choice: what that run measured may have
            changed the ranking, and its work is to be taken up.

    Raises:
        EdgeqError: there is none; with the plan's reason.
    """
    plan = make_plan(device, spec, Request(context=min(CONTEXT, spec.max_positions), targets=(TARGET,)))
    same = [c for c in plan.candidates if c.scheme.linear.bits == bits and c.scheme.linear.kind == "int"]
    made = [c for c in same if c.not_yet is None]
    if made:
        return next((c for c in made if c.scheme.name == begun), made[0])
    out = [c for c in plan.rejected if c.scheme.linear.bits == bits and c.reasons]
    why = same[0].not_yet if same else out[0].reasons[0] if out else "no scheme has so many"
    raise EdgeqError(f"nothing with {bits} bits can be made for {TARGET}: {why}", hint="Try --bits 4 or --bits 8")


def model_bytes(artifact: Artifact) -> int:
    """Bytes of the artifact's graph and weights, without tokenizer and settings."""
    return sum(int(entry["bytes"]) for name, entry in artifact.files.items() if name.startswith("model."))


def promise_made(artifact: Artifact) -> Promise:
    """What was promised when the artifact was made."""
    return from_json(Promise, artifact.plan["promise"], artifact.path / MANIFEST)


class _Walk:
    """The steps, timed and told."""

    def __init__(self, settings: Settings, narrator: Narrator) -> None:
        self.settings, self.narrator = settings, narrator
        self.seconds: dict[str, float] = {}

    @contextmanager
    def _step(self, name: str) -> Iterator[tuple[Progress, _Told]]:
        told, start = _Told(), time.perf_counter()
        with self.narrator.step(name) as progress:
            yield progress, told
        spent = 0.0 if told.reused else time.perf_counter() - start
        self.seconds[name] = spent
        self.narrator.done(name, told.what, spent, told.reused)

    def profile(self) -> Device:
        with self._step("profile") as (_, told):
            device = profile_device(quick=False)  # with the runtime's kernels: the plan rests on them
            speed = device.memory.read_bandwidth
            reads = f", reads {speed.value / 1e9:.0f} GB/s" if speed else ""
            told.what = f"{device.cpu.name}, {device.cpu.threads} threads, {_gib(device)} GiB{reads}"
        return device

    def model(self) -> tuple[Source, Weights]:
        from edgeq.model.weights import open_source

        with self._step("model") as (progress, told):
            given = self.settings.model
            source = Source(Path(given), given) if given else demo_model(lambda what: progress(0, 0, what))
            weights = open_source(given or str(source.path))
            told.what = source.origin
        return source, weights

    def plan(self, device: Device, spec: ModelSpec) -> tuple[Candidate, Promise]:
        with self._step("plan") as (_, told):
            marker = self.settings.out / MARKER
            begun = _read_marker(marker) or {}
            chosen = choose(device, spec, self.settings.bits, begun.get("scheme"))
            write_json(marker, begun | {"scheme": chosen.scheme.name})
            work = self.settings.workload.fitted(spec.max_positions)
            promise = promise_for(device, spec, chosen.scheme, TARGET, work)
            size = weight_bytes(spec, chosen.scheme, TARGET) / 1e6
            speed = f", {promise.decode_tps:.0f} tok/s" if promise.decode_tps else ""
            told.what = f"{chosen.scheme.name} on {TARGET}: {size:.0f} MB{speed}"
        return chosen, promise

    def make(self, weights: Weights, recipe: Recipe, promise: Promise) -> Artifact:
        """Quantize and export, each unless an earlier run has done it."""
        found = self._finished_artifact(recipe)
        checkpoint = None if found and _verified(found) else self._quantize(weights, recipe)
        with self._step("export") as (progress, told):
            told.reused = found is not None and _written(found.path / MANIFEST) >= _written(self.settings.checkpoint)
            if found is None or not told.reused:
                plan = {"promise": to_json(promise), "recipe": recipe_json(recipe)}
                out = self.settings.artifact
                found = exporter("onnx").export(checkpoint, out, progress=progress, force=True, plan=plan)
            told.what = f"{found.total_bytes / 1e6:.0f} MB in {len(found.files)} files"
        return found

    def _quantize(self, weights: Weights, recipe: Recipe) -> Checkpoint:
        from edgeq.quantize.engine import quantize

        with self._step("quantize") as (progress, told):
            made = self._finished_checkpoint(recipe)
            told.reused = made is not None
            if made is None:
                made = quantize(weights, recipe, self.settings.checkpoint, progress=progress, force=True)
            told.what = f"{made.weight_bytes / 1e6:.0f} MB of weights in {made.scheme.name}"
        return made

    def _finished_checkpoint(self, recipe: Recipe) -> Checkpoint | None:
        """What an earlier run made by this recipe; None: nothing, or something damaged."""
        try:
            made = Checkpoint.open(self.settings.checkpoint)
        except EdgeqError:
            return None
        return made if made.manifest.recipe == recipe_json(recipe) else None

    def _finished_artifact(self, recipe: Recipe) -> Artifact | None:
        """What an earlier run exported from this recipe's checkpoint; None: nothing, or something damaged."""
        try:
            found = read_artifact(self.settings.artifact)
            promise_made(found)
        except (EdgeqError, KeyError):
            return None
        return found if found.plan.get("recipe") == recipe_json(recipe) else None

    def verify(self, artifact: Artifact) -> Verification:
        with self._step("verify") as (progress, told):
            if _verified(artifact):
                told.reused = True
                found = from_json(Verification, artifact.verify, artifact.path)
            else:
                found = verify(artifact, checkpoint=Checkpoint.open(self.settings.checkpoint), progress=progress)
                record(artifact, found)
            text = found.text or found.random
            told.what = f"{found.verdict}: KL {text.mean_kl:.4f} nats, top-1 {text.top1:.0%} against the checkpoint"
        return found

    def run(self, artifact: Artifact) -> str:
        with self._step("run") as (_, told):
            session = runtime(artifact.runtime).open(artifact)
            try:
                answer = session.generate(PROMPT, max_tokens=ANSWER_TOKENS, temperature=0.0)
            finally:
                session.close()
            first = answer.strip().split("\n")[0]
            told.what = f"{PROMPT} {first}"
        return answer

    def bench(self, artifact: Artifact, device: Device, promise: Promise) -> Benchmark:
        with self._step("bench") as (progress, told):
            found = bench(artifact, device, workload=self.settings.workload, promise=promise, progress=progress)
            Store().add(found)
            told.what = f"{found.decode.tps.median:.0f} tok/s, peak memory {found.peak_bytes / 2**20:.0f} MiB"
        return found


def _verified(artifact: Artifact) -> bool:
    return artifact.verify.get("verdict") == "pass"


@dataclass(slots=True)
class _Told:
    what: str = ""
    reused: bool = False


def _gib(device: Device) -> int:
    return round((device.memory.limit_bytes or device.memory.total_bytes) / 2**30)


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
