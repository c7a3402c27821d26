"""The comparison with optimum-intel, its own side left out: what counts as the same, and what the exit code says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

optimum_intel = pytest.importorskip("optimum_intel")


@pytest.mark.parametrize(("theirs", "code"), [([1, 2, 3], 0), ([1, 9, 3], 1), ([1, 2], 1)])
def test_every_token_of_the_float_export_has_to_agree(monkeypatch, capsys, theirs: list[int], code: int) -> None:
    prompts = optimum_intel.PROMPTS
    exported: list[dict[str, Any]] = []

    class Exporter:
        def export(self, weights: object, folder: Path, **options: Any) -> None:
            exported.append(options)

    monkeypatch.setattr("edgeq.registry.exporter", lambda name: Exporter())
    monkeypatch.setattr("edgeq.checkpoint.open.open_weights", lambda name: None)
    monkeypatch.setattr(optimum_intel, "_ours", lambda folder, tokens: ([[7]] * 4, [[1, 2, 3]] * len(prompts)))
    monkeypatch.setattr(
        optimum_intel, "_theirs", lambda *given: {"versions": "optimum-intel 0", "tokens": [theirs] * len(prompts)}
    )
    monkeypatch.setattr(sys, "argv", ["optimum_intel.py", "checkpoint"])
    assert optimum_intel.main() == code
    said = capsys.readouterr().out
    assert f"{0 if code else 4} of 4 prompts are continued alike" in said
    assert [options.get("dynamic_quantization") for options in exported] == [0, None]


def test_a_missing_overlay_is_told(tmp_path: Path) -> None:
    (tmp_path / "optimum").mkdir()
    (tmp_path / "optimum" / "__init__.py").touch()
    options = optimum_intel.argparse.Namespace(tokens=1, overlay=tmp_path)
    with pytest.raises(SystemExit, match="is --overlay right"):
        optimum_intel._theirs(tmp_path, [[1]], options)
