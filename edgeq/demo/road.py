"""The whole road: profile, model, plan, quantize, export, verify, run, measure. Finished steps are taken up again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgeq.artifact import MANIFEST, Artifact, read_artifact
from edgeq.benchmark import Benchmark, Promise, device_key
from edgeq.checkpoint.store import Checkpoint
from edgeq.checkpoint.weights import Weights
from edgeq.demo.choice import TARGET, check_choice, choose
from edgeq.demo.folder import Settings, begin, check_folder
from edgeq.demo.report import Report, outcomes
from edgeq.demo.source import Source, demo_model
from edgeq.device.profile import profile_device
from edgeq.device.spec import Device
from edgeq.errors import EdgeqError
from edgeq.estimate import weight_bytes
from edgeq.files import write_json
from edgeq.jsonable import from_json, to_json
from edgeq.measure.bench import bench
from edgeq.measure.promise import promise_for
from edgeq.measure.verify import Verification, record, verify
from edgeq.model.spec import ModelSpec
from edgeq.plan import Candidate
from edgeq.plan.words import gb
from edgeq.recipe import Recipe, recipe_for, recipe_json
from edgeq.registry import Progress, exporter, runtime
from edgeq.store import Store

PROMPT = "The capital of France is"
ANSWER_TOKENS = 24
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


def run_demo(settings: Settings, narrator: Narrator) -> Report:
    """Walk the road; see `Settings` and `Report`. The report is also kept as `report.json` in the folder.

    Raises:
        EdgeqError: any step's problem; the folder holds something else; no scheme of that many bits fits. What is
            wrong with the input is said before anything is measured, and leaves nothing.
    """
    walk = _Walk(settings, narrator)
    begun = check_folder(settings)
    check_choice(settings.model, settings.bits)
    device = walk.profile()
    source, weights = walk.model()
    chosen, promise = walk.plan(device, weights.spec, begun)
    begin(settings, chosen.scheme.name)
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
            device = profile_device(
                quick=False, runtimes=(TARGET.split("/")[0],)
            )  # its kernels: the plan rests on them
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

    def plan(self, device: Device, spec: ModelSpec, begun: str | None) -> tuple[Candidate, Promise]:
        with self._step("plan") as (_, told):
            chosen = choose(device, spec, self.settings.bits, begun)
            work = self.settings.workload.fitted(spec.max_positions)
            promise = promise_for(device, spec, chosen.scheme, TARGET, work)
            size = gb(weight_bytes(spec, chosen.scheme, TARGET))
            speed = f", {promise.decode_tps:.0f} tok/s" if promise.decode_tps else ""
            told.what = f"{chosen.scheme.name} on {TARGET}: {size}{speed}"
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
            told.what = f"{gb(found.total_bytes)} in {len(found.files)} files"
        return found

    def _quantize(self, weights: Weights, recipe: Recipe) -> Checkpoint:
        from edgeq.quantize.engine import quantize

        with self._step("quantize") as (progress, told):
            made = self._finished_checkpoint(recipe)
            told.reused = made is not None
            if made is None:
                made = quantize(weights, recipe, self.settings.checkpoint, progress=progress, force=True)
            told.what = f"{gb(made.weight_bytes)} of weights in {made.scheme.name}"
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
