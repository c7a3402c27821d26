"""The tiny models with tokenizers that the GGUF exporter is tested on."""

from __future__ import annotations

import runpy
from pathlib import Path

saved = runpy.run_path(str(Path(__file__).parents[1] / "exporters" / "gguf" / "conftest.py"))["saved"]
