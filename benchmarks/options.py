"""What a session's options and an artifact's grid do to decoding, each variant in a process of its own, in turns.

    python benchmarks/options.py ARTIFACT [ARTIFACT ...] [--with huge_pages=false] [--with threads=1] [--restarts 8]

The first row is the first artifact with edgeq's defaults; ratios are medians over rounds of tokens/s beside its own.
Processes are started afresh several times: where a process's memory happens to lie is worth 10 % either way.
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
    command: list[str]
    worker: subprocess.Popen[str] | None = None
    tps: list[float] = field(default_factory=list)

    def start(self) -> None:
        pipe = subprocess.PIPE
        self.worker = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, text=True)

    def measure(self, tokens: int) -> float:
        assert self.worker is not None and self.worker.stdin is not None and self.worker.stdout is not None
        print(tokens, file=self.worker.stdin, flush=True)
        return float(self.worker.stdout.readline())

    def stop(self) -> None:
        assert self.worker is not None and self.worker.stdin is not None
        self.worker.stdin.close()
        self.worker.wait()


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(Path(sys.argv[2]), json.loads(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--with", dest="options", action="append", default=[], help="NAME=JSON, of edgeq.load")
    parser.add_argument("--restarts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="of measuring after each start")
    parser.add_argument("--tokens", type=int, default=64)
    given = parser.parse_args()
    variants = [variant_of(path, {}) for path in given.artifacts]
    for option in given.options:
        name, _, value = option.partition("=")
        variants.append(variant_of(given.artifacts[0], {name: json.loads(value)}))
    compare(variants, given)
    show(variants)


def variant_of(path: Path, options: dict[str, Any]) -> Variant:
    name = ", ".join([path.name, *(f"{k}={v}" for k, v in options.items())])
    return Variant(name, [sys.executable, __file__, "--worker", str(path), json.dumps(options)])


def compare(variants: list[Variant], given: argparse.Namespace) -> None:
    order = random.Random(0)
    for _ in range(given.restarts):
        for variant in variants:
            variant.start()
        for turn in range(given.rounds + 1):
            for variant in order.sample(variants, len(variants)):
                tps = variant.measure(given.tokens)
                if turn:
                    variant.tps.append(tps)
        for variant in variants:
            variant.stop()


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
