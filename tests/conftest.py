"""Of all tests: what they share, and one thread.

Tiny models gain nothing from more threads, and those that wait for each other lose.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no fault of a test: nothing here asserts how long something takes.
settings.register_profile("edgeq", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgeq")
sys.path.insert(0, str(Path(__file__).parent / "shared"))  # for `tiny_llama`


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is imported that reads it. The end-to-end tests measure, with the threads that users have."""
    if config.option.markexpr == "not e2e":
        os.environ.setdefault("OMP_NUM_THREADS", "1")
