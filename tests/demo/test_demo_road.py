"""The demo's road on a tiny model: what it leaves, what it takes up again, what it refuses."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from edgeq.artifact import read_artifact
from edgeq.benchmark import Promise
from edgeq.cli.demo_ import Teller, render
from edgeq.cli.main import main
from edgeq.demo import choice, road
from edgeq.demo.folder import Settings
from edgeq.demo.report import Outcome, Report
from edgeq.demo.road import STEPS, run_demo
from edgeq.device.spec import Device
from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json
from edgeq.measure.bench import Workload
from edgeq.registry import Progress
from edgeq.store import Store

SMALL = Workload(prompt_tokens=(16,), tokens=8, context=8, reps=1, threads=1)


class Listener:
    """Remembers what it was told; `interrupt` names a step after which it fails like a killed process."""

    def __init__(self, interrupt: str | None = None) -> None:
        self.interrupt = interrupt
        self.reused: dict[str, bool] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[Progress]:
        yield lambda done, total, what: None

    def done(self, name: str, what: str, seconds: float, reused: bool) -> None:
        assert what and "\n" not in what
        self.reused[name] = reused
        if name == self.interrupt:
            raise KeyboardInterrupt


Ask = Callable[..., Settings]


@pytest.fixture
def ask(tiny_model: Path, machine: Device, tmp_path: Path) -> Ask:
    def make(**changes: object) -> Settings:
        settings = Settings(out=tmp_path / "out", model=str(tiny_model), workload=SMALL)
        return replace(settings, **changes)  # type: ignore[arg-type]

    return make


def test_the_road_ends_in_an_artifact_and_a_report(ask: Ask) -> None:
    listener, settings = Listener(), ask()
    report = run_demo(settings, listener)
    assert tuple(listener.reused) == STEPS and not any(listener.reused.values())
    artifact = read_artifact(settings.artifact)
    assert artifact.verify["verdict"] == "pass"
    assert artifact.plan["promise"]["decode_tps"] == report.outcomes[0].planned
    assert [o.name for o in report.outcomes] == ["decode", "peak memory", "weights on disk"]
    assert all(o.measured > 0 and o.planned for o in report.outcomes)
    assert report.prompt == "The capital of France is" and report.scheme.startswith("rtn-int4")
    assert [name for name, _ in report.seconds] == list(STEPS)
    assert from_json(Report, json.loads((settings.out / "report.json").read_text("utf-8"))) == report
    assert [b.artifact for b in Store().benchmarks()] == [str(settings.artifact)]


def test_a_second_run_takes_up_what_is_finished(ask: Ask) -> None:
    first = run_demo(ask(), Listener())
    listener = Listener()
    second = run_demo(ask(), listener)
    assert [name for name, reused in listener.reused.items() if reused] == ["export", "verify"]
    assert second.verification == first.verification
    assert second.benchmark.promise == first.benchmark.promise  # what was promised before anything was measured


def test_a_rerun_keeps_its_scheme_though_the_ranking_changed(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_demo(ask(), Listener())
    plan = choice.make_plan
    turned = lambda *a: replace(p := plan(*a), candidates=tuple(reversed(p.candidates)))  # noqa: E731
    monkeypatch.setattr(choice, "make_plan", turned)
    assert run_demo(ask(out=ask().out.with_name("other")), Listener()).scheme != first.scheme  # it did change
    listener = Listener()
    assert run_demo(ask(), listener).scheme == first.scheme
    assert listener.reused["export"] and listener.reused["verify"]


@pytest.mark.parametrize(("after", "kept"), [("quantize", {"quantize"}), ("export", {"quantize", "export"})])
def test_a_killed_run_goes_on_where_it_stopped(ask: Ask, after: str, kept: set[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_demo(ask(), Listener(interrupt=after))
    listener = Listener()
    run_demo(ask(), listener)
    assert {name for name, reused in listener.reused.items() if reused} == kept


def test_a_damaged_artifact_is_made_again(ask: Ask) -> None:
    run_demo(ask(), Listener())
    data = next(p for p in ask().artifact.iterdir() if p.name.startswith("model.") and p.suffix != ".json")
    data.write_bytes(data.read_bytes()[:-1])
    listener = Listener()
    run_demo(ask(), listener)
    assert listener.reused["quantize"] and not listener.reused["export"] and not listener.reused["verify"]


def test_without_its_checkpoint_a_finished_demo_still_reruns(ask: Ask) -> None:
    report = run_demo(ask(keep=False), Listener())
    assert report.checkpoint is None and not ask().checkpoint.exists()
    listener = Listener()
    run_demo(ask(keep=False), listener)
    assert "quantize" not in listener.reused and listener.reused["export"]


def test_force_begins_anew_and_spares_what_is_not_the_demos(ask: Ask) -> None:
    run_demo(ask(), Listener())
    (ask().out / "notes.txt").write_text("mine")
    listener = Listener()
    run_demo(ask(force=True), listener)
    assert not any(listener.reused.values())
    assert (ask().out / "notes.txt").read_text() == "mine"


def test_a_folder_of_somebody_elses_is_refused(ask: Ask) -> None:
    ask().out.mkdir()
    (ask().out / "thesis.tex").write_text("x")
    with pytest.raises(EdgeqError, match="exists already"):
        run_demo(ask(), Listener())
    assert [p.name for p in ask().out.iterdir()] == ["thesis.tex"]


def test_a_demo_of_other_settings_is_refused_without_force(ask: Ask) -> None:
    run_demo(ask(), Listener())
    with pytest.raises(EdgeqError, match=r"a demo of model .*tiny-llama, 4 bits.*--force"):
        run_demo(ask(bits=8), Listener())
    assert run_demo(ask(bits=8, force=True), Listener()).scheme.startswith("rtn-int8")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bits": 3}, "nothing with 3 bits can be made for onnxruntime/cpu: .*--bits 4"),
        ({"bits": 7}, "nothing with 7 bits .*: no scheme has so many"),
        ({"bits": 3, "model": None}, "nothing with 3 bits"),
        ({"model": "none.gguf"}, "none.gguf"),
        ({"model": "x" * 5000}, "no model"),
        ({"model": "7B"}, "'7B' is a size class"),
    ],
)
def test_bad_input_is_one_line_and_costs_and_leaves_nothing(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], says: str
) -> None:
    monkeypatch.setattr(road, "profile_device", lambda **_: pytest.fail("measured the machine"))
    with pytest.raises(EdgeqError, match=says) as caught:
        run_demo(ask(**changes), Listener())
    assert "\n" not in caught.value.line and not ask().out.exists()


def test_a_damaged_model_leaves_nothing(ask: Ask, tiny_model: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(EdgeqError, match=r"model\.safetensors"):
        run_demo(ask(model=str(broken)), Listener())
    assert not ask().out.exists()


def test_a_model_too_large_for_the_machine_leaves_nothing_and_spares_the_demo_before(
    ask: Ask, machine: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_demo(ask(), Listener())
    small = replace(
        machine, memory=replace(machine.memory, total_bytes=1 << 20, limit_bytes=None, available_bytes=1 << 20)
    )
    monkeypatch.setattr(road, "profile_device", lambda **_: small)
    for changes in ({"force": True}, {"out": ask().out.with_name("new")}):
        with pytest.raises(EdgeqError, match="nothing with 4 bits"):
            run_demo(ask(**changes), Listener())
    assert read_artifact(ask().artifact) and not ask().out.with_name("new").exists()


def test_an_out_below_a_file_is_refused_at_once(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(road, "profile_device", lambda **_: pytest.fail("measured the machine"))
    with pytest.raises(EdgeqError, match="cannot write: Not a directory"):
        run_demo(ask(out=tmp_path / "file" / "out"), Listener())


def test_json_is_ascii_like_every_command_s(
    ask: Ask, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(road, "run_demo", lambda given, teller: run_demo(replace(given, workload=SMALL), teller))
    out = ask().out.with_name("démo")
    with pytest.raises(SystemExit) as caught:
        main(["demo", "--model", str(tiny_model), "--out", str(out), "--json"])
    printed = capsys.readouterr().out
    assert not caught.value.code and printed.isascii()
    assert json.loads(printed)["artifact"] == str(out / "artifact")


def test_a_full_disk_is_one_line_and_the_next_run_finishes(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(EdgeqError, match="No space left on device"):
            run_demo(ask(), Listener())
    assert not ask().artifact.exists()
    assert run_demo(ask(), Listener()).verification.verdict == "pass"


def test_a_failed_verification_ends_the_demo(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    run_demo(ask(), Listener())
    other = run_demo(ask(out=ask().out.with_name("other")), Listener())
    failed = replace(other.verification, verdict="fail", reasons=("it computes something else",))
    monkeypatch.setattr(road, "verify", lambda *a, **k: failed)
    shutil.rmtree(ask().artifact)
    with pytest.raises(EdgeqError, match="it computes something else"):
        run_demo(ask(), Listener())
    assert read_artifact(ask().artifact).verify["verdict"] == "fail"


def test_the_report_fits_eighty_columns_and_says_all(ask: Ask) -> None:
    out = io.StringIO()
    console = Console(file=out, width=80)
    report = run_demo(ask(), Teller(console))
    render(report, console)
    lines = out.getvalue().splitlines()
    assert not [line for line in lines if cell_len(line.rstrip()) > 80 and str(ask().out) not in line]
    text = out.getvalue()
    for word in (*STEPS, "planned", "measured", "ratio", "edgeq.load(", "edgeq run", "The capital of France is"):
        assert word in text, word


def test_goals_are_judged_on_both_sides() -> None:
    def one(planned: float | None, measured: float, goal: float | None = 0.15) -> Outcome:
        return Outcome("decode", "tok/s", planned, measured, goal)

    assert [one(100, m).met for m in (84, 86, 114, 116)] == [False, True, True, False]
    assert one(None, 5).met is None and one(None, 5).ratio is None
    assert one(100, 50, None).met is None and one(100, 50, None).ratio == 0.5


def test_nothing_promised_is_not_an_error(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(road, "promise_for", lambda *a: Promise())
    report = run_demo(ask(), Listener())
    out = io.StringIO()
    render(report, Console(file=out, width=80))
    assert report.outcomes[0].met is None and "not planned" in out.getvalue()
