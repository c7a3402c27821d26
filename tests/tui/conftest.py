"""A home and a folder of the test's own, a small device and model, and pictures of screens as text."""

from __future__ import annotations

from pathlib import Path

import pytest

SIZES = ((80, 24), (120, 40), (200, 60))
THEMES = ("edgeq-dark", "edgeq-light")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Jobs, journeys and measurements of this test alone."""
    home = tmp_path / "home"
    monkeypatch.setenv("EDGEQ_HOME", str(home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return home
