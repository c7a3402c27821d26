"""A home of the test's own, a model to quantize, and workers that do nothing of use."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_llama import write_llama

from edgeq.jobs import all_jobs, cancel, control
from edgeq.jobs.job import Job, Look


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    home = tmp_path / "home"
    monkeypatch.setenv("EDGEQ_HOME", str(home))
    yield home
    for job in all_jobs():
        cancel(job)


@pytest.fixture
def idle_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of the kinds of `slow_worker`."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(control, "WORKER", "slow_worker")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A random model of 24 layers."""
    size = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 24, "vocab_size": 512}
    folder = write_llama(tmp_path / "model", spread=1.0, **size)
    (folder / "tokenizer.json").write_text('{"model": {}}')
    return folder


def until(job: Job, seen: Callable[[Look], bool], seconds: float = 60) -> Look:
    """Look until it is so."""
    end = time.monotonic() + seconds
    while not seen(found := control.look(job)):
        assert time.monotonic() < end, f"still {found}"
        time.sleep(0.02)
    return found


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Look]:
    return until
