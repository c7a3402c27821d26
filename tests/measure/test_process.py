"""A worker process is watched from outside; its death is one line, whatever it died of."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeq.errors import EdgeqError
from edgeq.measure.process import cpu_count, others_now, run_worker

Make = Callable[[str], str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Writes a module that a worker process can run."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(body: str) -> str:
        (tmp_path / "a_worker.py").write_text(
            f"import json, os, sys, time\nrequest = json.loads(sys.argv[1])\n{body}\n", "utf-8"
        )
        return "a_worker"

    return make


def test_events_arrive_in_order_and_noise_is_ignored(module: Make) -> None:
    seen: list[object] = []
    name = module(
        "print('a library says hello', 42)\nprint(17)\n"
        "for i in range(3): print(json.dumps({'step': i}), flush=True)\n"
        "print(json.dumps({'result': request, 'cpu_s': 0.1}))"
    )
    watched = run_worker(name, {"größe": [1, 2]}, seen.append)
    assert watched.result == {"größe": [1, 2]}
    assert seen == [{"step": 0}, {"step": 1}, {"step": 2}]
    assert 0 <= watched.others <= 1


def test_its_memory_is_seen_from_outside(module: Make) -> None:
    body = "block = b'x' * (96 << 20)\ntime.sleep(0.3)\nprint(json.dumps({'result': len(block)}))"
    watched = run_worker(module(body), {})
    assert 96 << 20 < watched.sampled_peak_bytes < 200 << 20


def test_an_error_event_is_the_users_error(module: Make) -> None:
    name = module("print(json.dumps({'error': 'no such thing', 'where': 'there', 'hint': 'Look'}))\ntime.sleep(60)")
    with pytest.raises(EdgeqError) as caught:
        run_worker(name, {})
    assert caught.value.line == "no such thing (there). Look"


def test_a_crash_quotes_the_last_line(module: Make) -> None:
    with pytest.raises(EdgeqError, match=r"^the worker stopped with 1: ValueError: 7 is wrong$"):
        run_worker(module("raise ValueError('7 is wrong')"), {})


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_killed_worker_points_at_memory(module: Make) -> None:
    with pytest.raises(EdgeqError, match="want of memory"):
        run_worker(module("os.kill(os.getpid(), 9)"), {})


def test_the_callers_exception_ends_the_worker(module: Make, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(event: object) -> None:
        raise Stopped

    name = module("print(json.dumps({'pid': os.getpid()}), flush=True)\ntime.sleep(60)")
    with pytest.raises(Stopped):
        run_worker(name, {}, stop)  # returning at all, and not after a minute, is the point


def test_the_machine_is_never_more_than_fully_busy() -> None:
    assert 0 <= others_now(0.05) <= 1
    assert cpu_count() >= 1


def test_a_folder_of_the_module_s_name_in_the_current_one_is_not_taken_for_it(
    module: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a checkout `edgeq/` lies in the current directory, without the runtimes that are installed with it."""
    name, here = module("print(json.dumps({'result': 'the installed one', 'cpu_s': 0.1}))"), tmp_path / "checkout"
    here.mkdir()
    (here / f"{name}.py").write_text("raise SystemExit('the one of the current folder')", "utf-8")
    monkeypatch.chdir(here)
    assert run_worker(name, {}, lambda _: None).result == "the installed one"
