"""The step device: what is shown of a machine, measured and not; its memory live; another device; what goes wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from making_data import guide, problem, until
from snapshot import SIZES, THEMES, characters, check
from textual.widgets import Input, OptionList

from edgeq.device.spec import Cpu, Device, Figure, KernelRate, Memory
from edgeq.jobs import all_jobs, cancel
from edgeq.jobs.control import wait
from edgeq.jobs.job import Event, Failure, Job, Look
from edgeq.journey import Journey, begin, journeys, save
from edgeq.tui.app import EdgeqApp
from edgeq.tui.looking import Looking
from edgeq.tui.screens.device_picker import DevicePicker

GIB = 1 << 30
CPU = Cpu("Test CPU", "x86_64", 4, 8, ("avx2", "avx512_vnni"))
MEMORY = Memory(16 * GIB, 12 * GIB, Figure(40e9, "B/s", "measured", "memchr", 0.04, "2026-01-31"))
DEVICE = Device("ada", "local", "Linux 6.1", CPU, MEMORY, load=0.1, date="2026-01-31")
BARE = replace(DEVICE, memory=replace(MEMORY, read_bandwidth=None), date="")
KERNELS = tuple(
    KernelRate(target, name, Figure(5e9, "weights/s", "measured"))
    for target in ("llamacpp/cpu", "onnxruntime/cpu")
    for name in ("q4", "q8")
)
RUNTIMES = {"llamacpp": None, "onnxruntime": None, "torch": "torch"}
JOB = Job("20260101-000000-profile-ab12", "profile", {}, "Measure this machine", "2026-01-01T00:00:00+00:00")


@pytest.fixture(autouse=True)
def ada(monkeypatch: pytest.MonkeyPatch) -> dict[str, Looking]:
    """This machine, as the test says it is: `glimpse` at first, `full` once it is measured."""
    seen = {"glimpse": Looking(DEVICE, "quick", RUNTIMES), "full": Looking(DEVICE, "quick", RUNTIMES)}

    def glimpse(road: object) -> Looking:
        return real(road) if road.journey.device != "auto" else seen["glimpse"]  # type: ignore[attr-defined]

    from edgeq.tui.looking import glimpse_of as real

    monkeypatch.setattr("edgeq.tui.looking.glimpse_of", glimpse)
    monkeypatch.setattr("edgeq.tui.looking.looking_of", lambda _: seen["full"])
    monkeypatch.setattr("edgeq.tui.looking.memory_now", lambda: seen["glimpse"].device.memory)
    return seen


def fresh(tmp_path: Path) -> Journey:
    return begin(tmp_path / "out")


def body(app: EdgeqApp) -> str:
    return " ".join(characters(app).split())


async def ready(pilot) -> None:
    await until(pilot, lambda: "Press n" in guide(pilot.app))


async def test_the_first_time_it_says_what_this_is_and_what_to_do(tmp_path):
    app = EdgeqApp(fresh(tmp_path))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        assert guide(app).startswith("Welcome: edgeq finds a model that fits this machine")
        await until(pilot, lambda: "40.0 GB/s / 4 GB = at most 10 tokens/s" in body(app))
        assert "measured, ±4%" in body(app)
        assert "llama.cpp, ONNX Runtime" in body(app)
        assert "not installed: PyTorch" in body(app)
        await pilot.press("n")
        await until(pilot, lambda: app.step == "model")


async def test_later_it_does_not_greet_again(tmp_path):
    save(fresh(tmp_path).with_model("7B"))
    app = EdgeqApp(fresh(tmp_path))
    async with app.run_test() as pilot:
        await ready(pilot)
        assert "Welcome" not in guide(app)


async def test_what_was_never_measured_is_shown_before_it_is(tmp_path, ada, monkeypatch):
    import threading

    measured = threading.Event()
    ada["glimpse"] = Looking(BARE, "none", RUNTIMES)

    def quickly(_: object) -> Looking:
        measured.wait(30)
        return ada["full"]

    monkeypatch.setattr("edgeq.tui.looking.looking_of", quickly)
    app = EdgeqApp(fresh(tmp_path))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: guide(app).startswith("Measuring how fast"))
        await until(pilot, lambda: "Test CPU" in body(app))
        assert "Reads not measured" in body(app)
        measured.set()
        await ready(pilot)
        await until(pilot, lambda: "Reads 40.0 GB/s" in body(app))


async def test_the_memory_is_live(tmp_path, ada, monkeypatch):
    app = EdgeqApp(fresh(tmp_path))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await until(pilot, lambda: "12 GiB free" in body(app))
        monkeypatch.setattr("edgeq.tui.looking.memory_now", lambda: Memory(16 * GIB, 4 * GIB, limit_bytes=8 * GIB))
        await until(pilot, lambda: "4 GiB free" in body(app))
        assert "the container allows 8 GiB of 16 GiB" in body(app)
        assert "40.0 GB/s" in body(app), "what was measured stays"


async def test_a_real_measurement_is_begun_found_again_and_cancelled(tmp_path):
    app = EdgeqApp(fresh(tmp_path))
    async with app.run_test() as pilot:
        await ready(pilot)
        await pilot.press("m")
        await until(pilot, lambda: guide(app).startswith("Measuring, about a minute"))
        (job,) = all_jobs("profile")
        await pilot.press("c")
        await until(pilot, lambda: wait(job, 0).state == "cancelled")
        await ready(pilot)
        assert not app.screen.query_one("#job").display
    cancel(job)


async def test_a_measurement_that_is_done_is_shown(tmp_path, ada, monkeypatch):
    looks = iter([Look(JOB, "running", Event(1.0, 0, 0, "kernels")), Look(JOB, "done", None, result={})])
    monkeypatch.setattr("edgeq.jobs.look", lambda job: next(looks))
    monkeypatch.setattr("edgeq.tui.looking.measure", lambda: JOB)
    ada["full"] = Looking(replace(DEVICE, kernels=KERNELS), "full", RUNTIMES)
    app = EdgeqApp(fresh(tmp_path))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await pilot.press("m")
        await until(pilot, lambda: guide(app).startswith("Measured."))
        await until(pilot, lambda: "4 timed here" in body(app))


async def test_a_measurement_that_fails_says_why_and_what_to_do(tmp_path, monkeypatch):
    failed = Look(JOB, "failed", None, failure=Failure("no permission", "/home/ada", None))
    monkeypatch.setattr("edgeq.jobs.look", lambda job: failed)
    monkeypatch.setattr("edgeq.tui.looking.measure", lambda: JOB)
    app = EdgeqApp(fresh(tmp_path))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await pilot.press("m")
        await until(pilot, lambda: "no permission (/home/ada)" in problem(app))
        assert "Press m to try again" in problem(app)
        await ready(pilot)


async def test_another_device_is_searched_and_chosen(tmp_path):
    app = EdgeqApp(fresh(tmp_path).with_model("7B"))
    async with app.run_test() as pilot:
        await ready(pilot)
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, DevicePicker))
        await pilot.press(*"raspberry")
        await until(pilot, lambda: "Raspberry Pi 5" in characters(app))
        assert "Galaxy" not in characters(app)
        found = app.screen.query_one(OptionList)
        while found.get_option_at_index(found.highlighted).id != "rpi-5":
            await pilot.press("down")
        await pilot.press("enter")
        await until(pilot, lambda: guide(app).startswith("Planning for this device"))
        assert app.road.journey.device == "rpi-5"
        assert "Raspberry Pi 5 (from the catalog" in body(app)
        assert "Runtimes" not in body(app), "of another machine they are not known"
        assert app.screen.check_action("measure", ()) is False
        await pilot.press("h")
        await until(pilot, lambda: app.road.journey.device == "auto" and "ada" in body(app))
    assert journeys()[0].device == "auto"


async def test_a_file_that_is_no_profile_is_said_in_the_list(tmp_path):
    (tmp_path / "mine.json").write_text("{}")
    app = EdgeqApp(fresh(tmp_path))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, DevicePicker))
        app.screen.query_one(Input).value = "mine.json"
        await pilot.pause()
        await pilot.press("enter")
        await until(pilot, lambda: "edgeq profile --json" in str(app.screen.query_one("#picker-problem").render()))
        await pilot.press("escape")
        assert app.road.journey.device == "auto"


async def test_a_journey_whose_device_is_gone_has_a_way_out(tmp_path):
    app = EdgeqApp(replace(fresh(tmp_path), device="rpi-55"))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: "no device named 'rpi-55'" in problem(app))
        await until(pilot, lambda: "Press o" in guide(app))
        await pilot.press("h")
        await ready(pilot)
        assert problem(app) == ""


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("what", ["first", "measured", "work", "other", "picker"])
async def test_pictures(what, size, theme, ada, monkeypatch):
    monkeypatch.setattr("edgeq.journey.save", lambda _: None)
    here = begin("/home/ada")
    if what == "measured":
        ada["glimpse"] = Looking(replace(DEVICE, kernels=KERNELS), "full", RUNTIMES)
    elif what == "work":
        ada["glimpse"] = Looking(DEVICE, "quick", RUNTIMES, JOB)
        seen = Look(JOB, "running", Event(9.0, 0, 0, "measuring the kernels of the installed runtimes"), 150_000_000)
        monkeypatch.setattr("edgeq.jobs.look", lambda job: seen)
    elif what == "other":
        here = here.with_device("rtx-4090")
    app = EdgeqApp(here)
    async with app.run_test(size=size) as pilot:
        app.theme = theme
        await until(pilot, lambda: guide(app).startswith("Measuring") if what == "work" else "Press n" in guide(app))
        if what == "picker":
            await pilot.press("o")
            await until(pilot, lambda: isinstance(app.screen, DevicePicker))
            app.screen.query_one(Input).cursor_blink = False
        await check(pilot, f"device-{what}-{size[0]}x{size[1]}-{theme.removeprefix('edgeq-')}")
