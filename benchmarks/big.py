"""Memory and time of `edgeq quantize` on a model of 7B: a random checkpoint, made here and removed at the end.

    python benchmarks/big.py [--layers 32] [--methods rtn hqq gptq] [--folder SCRATCH] [--threads N] [--json]

Each method is a process of its own, watched from outside: VmHWM of /proc/PID/status (all resident pages; those of the
mapped checkpoint count, though the system may drop them) and the greatest RssAnon (what the process itself holds).
rtn and hqq take the whole model, gptq its first two blocks with 4 x 512 tokens of random text.

A run's steps (the embedding, a layer, the rest) do not overlap, and a layer's memory is free before the next one
comes: the peak does not depend on the number of layers, which the peaks of the layers in the output show. So a machine
without 18 GB of room can measure the same with `--layers 3`; times of 32 layers are then the fixed steps and 32 times
the median layer. Linux only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from big_model import LAYERS, BigModel, first_blocks, write_model, write_text  # noqa: E402

BARS = {"rtn": 2.5e9, "hqq": 2.5e9, "gptq": 4e9}  # bytes of resident memory at the peak
SEQUENCES, LENGTH = 4, 512  # of gptq's calibration text
EVERY = 0.05  # seconds between two looks at a process
OUTPUT_SHARE = 0.45  # of the source's bytes: room for a checkpoint of 4 to 8 bits and hidden states


@dataclass(slots=True)
class Step:
    """The embedding, a layer or the rest: when its shard was committed, and the anonymous memory until then."""

    shard: str
    seconds: float
    peak_anonymous: int


@dataclass(slots=True)
class Watched:
    """Attributes:
    seconds, cpu_seconds: of the process, from its start to its end.
    peak_rss: bytes, VmHWM.
    peak_anonymous: bytes, the greatest RssAnon seen.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_rss: int = 0
    peak_anonymous: int = 0
    steps: list[Step] = field(default_factory=list)


@dataclass(slots=True)
class Row:
    """One method. `full_seconds` is the time of 32 layers: of the run itself, or extrapolated from it.

    `predicted` is what `edgeq quantize --dry-run` says: `ram_bytes`, `disk_bytes`, `work_bytes`, `seconds`.
    """

    method: str
    layers: int
    weights: int
    bar: float
    watched: Watched
    predicted: dict[str, Any]
    disk_bytes: int
    full_seconds: float

    @property
    def per_billion(self) -> float:
        return self.watched.seconds / self.weights * 1e9

    @property
    def reached(self) -> bool:
        return self.watched.peak_rss < self.bar


def main() -> None:
    options = _options()
    if not Path("/proc/self/status").exists():
        sys.exit("big.py reads /proc/PID/status, which only Linux has")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the scratch folder is removed
    with tempfile.TemporaryDirectory(prefix="edgeq-big-", dir=options.folder) as scratch:
        place = Path(scratch)
        _check_room(BigModel(place, options.layers).bytes, place)
        _tell("writing the checkpoint")
        model = write_model(place / "model", options.layers)
        rows = [measure(method, model, place, options) for method in options.methods]
    if options.json:
        more = ("per_billion", "reached")
        print(json.dumps([dataclasses.asdict(r) | {n: getattr(r, n) for n in more} for r in rows], indent=2))
    else:
        show(rows, options.layers)


def measure(method: str, model: BigModel, place: Path, options: argparse.Namespace) -> Row:
    """Quantize by one method; its checkpoint is removed."""
    extra: list[str] = []
    if method == "gptq":
        model = first_blocks(model, place / "first", min(options.gptq_layers, model.layers))
        text = place / "text.txt"
        write_text(text, 2 * SEQUENCES * LENGTH)
        extra = ["--calibration", str(text), "--calibration-length", str(LENGTH)]
        extra += ["--calibration-tokens", str(SEQUENCES * LENGTH)]
    if options.threads:
        extra += ["--threads", str(options.threads)]
    out = place / f"out-{method}"
    command = [sys.executable, "-m", "edgeq", "quantize", str(model.folder), "--method", method, "-o", str(out), *extra]
    _tell(f"{method}, {model.layers} layers, {model.weights / 1e6:,.0f} M weights")
    watched = watch(command, out.with_name(out.name + ".partial") / "journal.jsonl", place / f"{method}.log")
    report = json.loads((out / "report.json").read_text("utf-8"))
    shutil.rmtree(out)
    return Row(
        method,
        model.layers,
        model.weights,
        BARS[method],
        watched,
        report["predicted"],
        report["disk_bytes"],
        full_time(watched, LAYERS),
    )


def watch(command: list[str], journal: Path, log: Path) -> Watched:
    """Run a command to its end, looking at its memory and at the steps that its journal notes."""
    import resource

    found, start = Watched(), time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    try:
        since, highest = 0.0, 0
        while process.poll() is None:
            status = memory(process.pid)
            now = time.perf_counter() - start
            found.peak_rss = max(found.peak_rss, status.get("VmHWM", 0))
            highest = max(highest, status.get("RssAnon", 0))
            found.peak_anonymous = max(found.peak_anonymous, highest)
            for shard in _committed(journal)[len(found.steps) :]:
                found.steps.append(Step(shard, now - since, highest))
                since, highest = now, 0
                _tell(f"  {shard}: {found.steps[-1].seconds:.1f} s, {found.steps[-1].peak_anonymous / 1e9:.2f} GB")
            time.sleep(EVERY)
    finally:
        process.kill()
        process.wait()
    found.seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found.cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if process.returncode:
        sys.exit(f"{' '.join(command)}\nended with {process.returncode}:\n{log.read_text('utf-8', 'replace')[-2000:]}")
    return found


def memory(pid: int) -> dict[str, int]:
    """Bytes by their names in /proc/PID/status; empty when the process has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    lines = (line.split() for line in text.splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1:] == ["kB"]}


def full_time(watched: Watched, layers: int) -> float:
    """Seconds of a model with so many of the same layers."""
    of_layers = [s.seconds for s in watched.steps if s.shard.startswith("layer-")]
    return watched.seconds + (layers - len(of_layers)) * statistics.median(of_layers)


def show(rows: list[Row], layers: int) -> None:
    print(f"random bfloat16 llama: hidden 4096, MLP 11008, 32 heads, vocabulary 32000; {layers} of {LAYERS} layers")
    print(
        "method  layers  M weights  peak RSS  anonymous  predicted  bar      "
        "seconds  predicted  CPU s  s/billion  32 layers"
    )
    for r in rows:
        w, p = r.watched, r.predicted
        print(
            f"{r.method:6}  {r.layers:6}  {r.weights / 1e6:9,.0f}  {_gb(w.peak_rss)}   {_gb(w.peak_anonymous)}    "
            f"{_gb(p['ram_bytes'])}    {_gb(r.bar)}  {w.seconds:7.0f}  {p['seconds']:9.0f}  {w.cpu_seconds:5.0f}  "
            f"{r.per_billion:9.0f}  {r.full_seconds / 60:6.1f} min  {'REACHED' if r.reached else 'NOT YET'}"
        )
    for r in rows:
        peaks = ", ".join(f"{Path(s.shard).stem} {s.peak_anonymous / 1e9:.2f}" for s in r.watched.steps)
        print(f"{r.method}: anonymous GB at the peak of each step: {peaks}")
        print(f"{r.method}: disk {r.disk_bytes / 1e6:,.0f} MB, predicted {r.predicted['disk_bytes'] / 1e6:,.0f} MB")
    print("A block's memory does not depend on the number of layers: it is free before the next block comes.")


def _gb(size: float) -> str:
    return f"{size / 1e9:4.2f} GB"


def _committed(journal: Path) -> list[str]:
    """Shards of a journal's whole lines, in order."""
    try:
        lines = journal.read_text("utf-8").split("\n")[:-1]
    except OSError:  # not begun, or done and tidied away
        return []
    return [json.loads(line)["shard"] for line in lines if line]


def _check_room(model_bytes: int, place: Path) -> None:
    free, wanted = shutil.disk_usage(place).free, int(model_bytes * (1 + OUTPUT_SHARE))
    if free < wanted:
        sys.exit(f"{wanted / 1e9:.1f} GB of room wanted, {free / 1e9:.1f} GB free: fewer --layers or another --folder")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--layers", type=int, default=LAYERS, help="of the checkpoint")
    parser.add_argument("--gptq-layers", type=int, default=2, help="blocks that gptq runs on")
    parser.add_argument("--methods", nargs="+", choices=sorted(BARS), default=list(BARS))
    parser.add_argument("--folder", type=Path, help="where the scratch folder is made; default: the system's")
    parser.add_argument("--threads", type=int, default=0, help="default: all")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if min(options.layers, options.gptq_layers) < 1:
        parser.error("one layer at the least")
    return options


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
