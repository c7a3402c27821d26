"""The demo, run once for all end-to-end tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from edgeq.demo.report import Report
from edgeq.jsonable import from_json


class Demo(NamedTuple):
    """Where the demo ran, in which environment, what its command printed, and how to run it again."""

    folder: Path
    environment: dict[str, str]
    report: Report
    again: Callable[[], Report]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("e2e")
    environment = {**os.environ, "EDGEQ_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}

    def run() -> Report:
        line = [sys.executable, "-m", "edgeq", "demo", "--out", "demo", "--json"]
        done = subprocess.run(
            line, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=1800
        )
        assert done.returncode == 0, done.stderr
        return from_json(Report, json.loads(done.stdout))

    return Demo(folder, environment, run(), run)
