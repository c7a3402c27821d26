"""Memory and time of `edgeq export` on a model of 7B's width: a random checkpoint, made here and removed at the end.

    python benchmarks/big_export.py [--layers 3] [--to onnx openvino gguf ...] [--folder SCRATCH]

Each export is a process of its own, watched from outside as benchmarks/big.py does: the greatest RssAnon is what the
process itself holds; VmHWM counts the mapped pages of the checkpoint and of what is written too, which the system may
drop. A layer's memory is free before the next one comes, so a few layers show what 32 take: the embedding and the head
are whole. Linux only.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from big import watch  # noqa: E402
from big_model import write_model  # noqa: E402

BAR = 1.5e9  # bytes that an export may hold beside what is mapped
RECIPE = 'model = "{model}"\nmethod = "rtn"\nsymmetric = true\nembed_symmetric = true\n'  # which every format holds


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="edgeq-big-", dir=options.folder) as scratch:
        place = Path(scratch)
        model = write_model(place / "model", options.layers)
        recipe = place / "recipe.toml"
        recipe.write_text(RECIPE.format(model=model.folder))
        made = place / "checkpoint"
        subprocess.run([*_edgeq("quantize", "--recipe", recipe, "-o", made)], check=True, stdout=subprocess.DEVNULL)
        size = sum(f.stat().st_size for f in made.rglob("*") if f.is_file())
        print(f"random llama, hidden 4096, {options.layers} layers, {model.weights / 1e6:,.0f} M weights, {_gb(size)}")
        print("exporter              written   anonymous  with mapped pages  seconds  CPU s  bar")
        for to in options.to:
            out = place / "out"
            seen = watch(_edgeq("export", made, "--to", to, "--no-verify", "-o", out), place / "none", place / "log")
            written = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
            shutil.rmtree(out)
            state = "REACHED" if seen.peak_anonymous < BAR else "NOT YET"
            print(
                f"{to:20}  {_gb(written)}    {_gb(seen.peak_anonymous)}            {_gb(seen.peak_rss)}  "
                f"{seen.seconds:7.0f}  {seen.cpu_seconds:5.0f}  {state}"
            )


def _edgeq(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "edgeq", *map(str, arguments)]


def _gb(size: float) -> str:
    return f"{size / 1e9:5.2f} GB"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--to", nargs="+", default=["onnx", "openvino", "gguf", "compressed-tensors", "gptq", "awq"])
    parser.add_argument("--folder", type=Path, help="where the scratch folder is made; default: the system's")
    return parser.parse_args()


if __name__ == "__main__":
    main()
