"""What a session's options and an artifact's grid do to decoding, each variant in a process of its own, in turns.

    python benchmarks/options.py ARTIFACT [ARTIFACT ...] [--with huge_pages=false] [--with threads=1] [--rounds 20]

The first row is the first artifact with edgeq's defaults; ratios are medians over rounds of tokens/s beside its own.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROMPT = [5 + i * 7919 % 5000 for i in range(32)]


@dataclass(slots=True)
class Variant:
    """An artifact opened with some options, in a worker."""

    name: str
    worker: subprocess.Popen[str]
    tps: list[float] = field(default_factory=list)

    def measure(self, tokens: int) -> float:
        assert self.worker.stdin is not None and self.worker.stdout is not None
        print(tokens, file=self.worker.stdin, flush=True)
        return float(self.worker.stdout.readline())


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(Path(sys.argv[2]), json.loads(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--with", dest="options", action="append", default=[], help="NAME=JSON, of edgeq.load")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=64)
    given = parser.parse_args()
    variants = [start(path, {}) for path in given.artifacts]
    for option in given.options:
        name, _, value = option.partition("=")
        variants.append(start(given.artifacts[0], {name: json.loads(value)}))
    order = random.Random(0)
    for turn in range(given.rounds + 1):
        for variant in order.sample(variants, len(variants)):
            tps = variant.measure(given.tokens)
            if turn:
                variant.tps.append(tps)
    show(variants)


def start(path: Path, options: dict[str, Any]) -> Variant:
    command = [sys.executable, __file__, "--worker", str(path), json.dumps(options)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    name = ", ".join([path.name, *(f"{k}={v}" for k, v in options.items())])
    return Variant(name, worker)


def work(path: Path, options: dict[str, Any]) -> None:
    import edgeq

    session: Any = edgeq.load(path, **options)
    for line in sys.stdin:
        engine = session.engine
        engine.rewind(0)
        engine.prefill(PROMPT)
        stats = timed(engine, int(line))
        print(int(line) / stats, flush=True)


def timed(engine: Any, tokens: int) -> float:
    """Seconds of `tokens` steps, each fed the best token of the one before."""
    import time

    token, start = PROMPT[-1], time.perf_counter()
    for _ in range(tokens):
        token = int(engine.decode(token).argmax())
    return time.perf_counter() - start


def show(variants: list[Variant]) -> None:
    base = variants[0]
    width = max(len(v.name) for v in variants)
    print(f"{'variant':{width}}   tok/s    best   ratio")
    for v in variants:
        ratio = statistics.median(a / b for a, b in zip(v.tps, base.tps, strict=True))
        print(f"{v.name:{width}}  {statistics.median(v.tps):6.1f}  {max(v.tps):6.1f}  {ratio:6.3f}")


if __name__ == "__main__":
    main()
