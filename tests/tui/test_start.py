"""The application starts light: what only a later step needs is not imported before."""

from __future__ import annotations

import subprocess
import sys

LATER = (
    "edgeq.plan.plan",
    "edgeq.estimate.ceiling",
    "numpy",
    "textual_plot",
    "torch",
    "transformers",
    "openvino",
    "onnxruntime",
)


def test_what_a_later_step_needs_is_not_imported_at_the_start():
    code = f"import edgeq.tui.app, edgeq.tui.launch, sys; print([n for n in {LATER!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
