"""Of all tests: one thread. Tiny models gain nothing from more, and threads that wait for each other lose."""

from __future__ import annotations

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is imported that reads it. The end-to-end tests measure, with the threads that users have."""
    if config.option.markexpr == "not e2e":
        os.environ.setdefault("OMP_NUM_THREADS", "1")
