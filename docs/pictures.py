"""Draws the pictures of the application for the README and the pages: `python docs/pictures.py [--png]`.

They are those of the tests, with the data that is the same on every machine: each test that compares a picture draws it
instead. `--png` writes PNGs beside the SVGs, by `rsvg-convert`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "pictures"
WANTED = "120x40-dark"  # of every screen; the other sizes and the other theme are for the tests alone
TESTS = "pictures and size1 and edgeq-dark"  # the names of those that draw them
FONT_FROM_THE_NET = re.compile(r"@font-face\s*\{.*?\}", re.DOTALL)


def drawn(folder: Path) -> list[Path]:
    """Every picture that the tests compare, of the wanted size and theme."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/tui", "-k", TESTS]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"EDGEQ_DRAW": str(folder)}, check=True)
    return sorted(folder.glob(f"*-{WANTED}.svg"))


def offline(svg: str) -> str:
    """Without the font that Textual's pictures name by its address: the reader's own monospace is used.

    Spaces at a text's beginning are kept, which `rsvg-convert` would leave out.
    """
    plain = FONT_FROM_THE_NET.sub("", svg).replace("Fira Code", "monospace")
    return plain.replace("<svg ", '<svg xml:space="preserve" ', 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the pictures of the application.")
    parser.add_argument("--png", action="store_true", help="PNGs beside the SVGs")
    png = parser.parse_args().png
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        for path in drawn(Path(name)):
            out = OUT / f"{path.stem.removesuffix(f'-{WANTED}')}.svg"
            out.write_text(offline(path.read_text("utf-8")), "utf-8")
            if png:
                subprocess.run(["rsvg-convert", "-o", str(out.with_suffix(".png")), str(out)], check=True)
            print(out.relative_to(ROOT))


if __name__ == "__main__":
    main()
