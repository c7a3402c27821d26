"""Draws the pictures of the application that the README shows, each from the application itself.

They are the snapshot tests' own screens, with the same fixed data, and are drawn only where the test agrees:

    python docs/pictures.py                     # docs/pictures/*.svg, and some *.png where rsvg-convert is installed
    python docs/pictures.py --all FOLDER plan   # every size and theme of the step plan, to look at
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from terminal_svg import terminal_svg
from textual.app import App

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures"
_DARK = (
    "welcome", "device-measured", "model-list", "plan-first", "plan-figures", "quantize-before", "quantize-work",
    "quantize-after", "export-before", "export-after", "bench-work", "bench-sides", "chat-two", "deliver-one",
    "help-plan", "runs-several",
)  # fmt: skip
_LIGHT = ("plan-first", "quantize-work", "chat-two")
_SMALL = ("plan-first", "quantize-work")
_ALSO_PNG = ("plan-first-80x24", "quantize-work", "chat-two")  # for places that take no SVG
SHOWN = (
    *(f"{name}-120x40-dark" for name in _DARK),
    *(f"{name}-120x40-light" for name in _LIGHT),
    *(f"{name}-80x24-dark" for name in _SMALL),
)


class Draw:
    """A plug-in of pytest's that keeps the pictures which the tests compare."""

    def __init__(self, folder: Path, wanted: tuple[str, ...] | None) -> None:
        """Args:
        wanted: which pictures; None: all.
        """
        self.folder, self.wanted, self.kept = folder, wanted, set[str]()

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Run no test whose picture isn't wanted, and listen to the others."""
        import snapshot  # tests/tui/conftest.py made it known

        snapshot.drawn = self.draw
        if self.wanted is not None:
            items[:] = [item for item in items if any(name in self.wanted for name in _names(item))]

    def draw(self, app: App[None], name: str) -> None:
        svg = self.folder / f"{name}.svg"
        svg.write_text(terminal_svg(app), "utf-8")
        self.kept.add(name)
        if shutil.which("rsvg-convert") and (self.wanted is None or name.startswith(_ALSO_PNG)):
            subprocess.run(["rsvg-convert", "-o", svg.with_suffix(".png"), svg], check=True)


def _names(item: pytest.Item) -> tuple[str, ...]:
    """What the picture that a test compares may be called: `plan-first-120x40-dark`, by its file and parameters."""
    call = getattr(item, "callspec", None)
    if call is None or not {"size", "theme"} <= call.params.keys():
        return ()
    size, theme = "x".join(map(str, call.params["size"])), call.params["theme"].removeprefix("edgeq-")
    name = "-".join(part for part in (call.params.get("what"), size, theme) if part)
    return name, f"{item.path.stem.removeprefix('test_').removesuffix('_screen')}-{name}"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--all", type=Path, metavar="FOLDER", help="every size and theme, into another folder")
    arguments.add_argument("words", nargs="*", help="only pictures with one of these in their name")
    asked = arguments.parse_args()
    folder = (asked.all or PICTURES).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    wanted = None if asked.all else tuple(n for n in SHOWN if not asked.words or any(w in n for w in asked.words))
    which = ["-k", f"pictures and ({' or '.join(asked.words)})"] if asked.all and asked.words else ["-k", "pictures"]
    draw = Draw(folder, wanted)
    code = pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), str(ROOT / "tests/tui"), *which],
                       plugins=[draw])  # fmt: skip
    missing = [] if wanted is None else sorted(set(wanted) - draw.kept)
    print(f"{len(draw.kept)} pictures in {folder}", *(f"missing: {name}" for name in missing), sep="\n")
    return int(code) or bool(missing)


if __name__ == "__main__":
    sys.exit(main())
