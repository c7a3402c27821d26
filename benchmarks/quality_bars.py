"""What edgeq's rows are held against: a peer's figure at its size, or a number; and whether it is reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Result = Mapping[str, Any]  # a measured row: its label, runs_on, bars and figures
SLACK = 1.002  # files of one grid differ by headers
NOISE = 1.03  # of a KLD beside another method's, on another draw of the same text


@dataclass(frozen=True, slots=True)
class Verdict:
    """`bar` in words; `limit` is what ours must not exceed; `ours` None where no row could be held against it."""

    bar: str
    limit: float
    unit: str
    ours: float | None
    by: str
    seconds: tuple[float, float] | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.ours is None else self.ours / self.limit

    @property
    def reached(self) -> bool:
        return self.ratio is not None and self.ratio <= 1.0

    def __str__(self) -> str:
        if self.ours is None:
            return f"OPEN     {self.bar}: {self.unit} <= {self.limit:.4f}; no row of ours: {self.by}"
        state = "REACHED " if self.reached else "NOT YET "
        time = f"; {self.seconds[0]:.0f} CPU seconds beside {self.seconds[1]:.0f}" if self.seconds else ""
        said = f"ours {self.ours:.4f} by {self.by}{time}"
        return f"{state} {self.bar}: {self.unit} <= {self.limit:.4f}; {said}; {self.ratio:.2f} of the bar"


def verdicts(results: Sequence[Result]) -> Iterator[Verdict]:
    """Every bar for which there is a peer's figure (or none is needed)."""
    known = {r["label"]: r for r in results if "mean_kl" in r}
    ours = [r for r in known.values() if r["who"] == "edgeq"]
    for kind in ("Q4_1", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K"):
        peer = known.get(f"llama.cpp {kind}")
        if peer is not None:
            yield _at_size(f"half of llama.cpp's {kind} at its size", peer, ours, 0.5)
    yield _fixed("int4 g32, integer zeros", 0.045, "int4-g32", ours)
    peer = known.get("llama.cpp IQ4_XS")
    if peer is not None:
        fitting = [r for r in ours if "int4-g64" in r["bars"] and _fits(r, peer)]
        yield _best("int4 g64, integer zeros, ahead of llama.cpp's IQ4_XS at its size", peer["mean_kl"], fitting)
    yield _fixed("W8A8 dynamic", 0.01, "w8a8-dynamic", ours)
    yield _fixed("W8A8 static", 0.03, "w8a8-static", ours)
    yield from _references(known, ours)
    yield from _mixed(ours)


def ratio_at_size(row: Result, peers: Sequence[Result]) -> tuple[float, str] | None:
    """A row's mean KLD over that of the best llama.cpp type which is no larger, and that type's name."""
    fitting = [p for p in peers if _fits(p, row)]
    if not fitting:
        return None
    best = min(fitting, key=lambda p: float(p["mean_kl"]))
    return row["mean_kl"] / best["mean_kl"], str(best["method"])


def _at_size(bar: str, peer: Result, ours: list[Result], factor: float) -> Verdict:
    return _best(bar, peer["mean_kl"] * factor, [r for r in ours if r["runs_on"] and _fits(r, peer)])


def _fixed(bar: str, limit: float, name: str, ours: list[Result]) -> Verdict:
    return _best(bar, limit, [r for r in ours if name in r["bars"]])


def _references(known: Mapping[str, Result], ours: list[Result]) -> Iterator[Verdict]:
    for label, peer in known.items():
        for method in ("gptq", "awq", "autoround"):
            named = method if peer["who"] == "llm-compressor" else "autoround" if peer["who"] == "auto-round" else ""
            if named != method or (named != "autoround" and method not in peer["method"]):
                continue
            size = peer["options"]["group_size"]
            yield _best(f"{label} (within noise)", peer["mean_kl"] * NOISE, _with(ours, f"{method}-g{size}"), peer)


def _mixed(ours: list[Result]) -> Iterator[Verdict]:
    uniform = [r for r in ours if "uniform" in r["bars"]]
    if uniform:
        best = min(uniform, key=lambda r: float(r["mean_kl"]))
        mixed = [r for r in _with(ours, "mixed") if r["weight_bytes"] <= best["weight_bytes"] * SLACK]
        yield _best(f"mixed, 0.7 of the uniform {best['method']} at its size", best["mean_kl"] * 0.7, mixed)


def _with(ours: list[Result], bar: str) -> list[Result]:
    return [r for r in ours if bar in r["bars"]]


def _best(bar: str, limit: float, rows: list[Result], peer: Result | None = None) -> Verdict:
    if not rows:
        return Verdict(bar, limit, "KLD", None, "none measured that fits")
    best = min(rows, key=lambda r: float(r["mean_kl"]))
    times = (best["cpu_seconds"], peer["cpu_seconds"]) if peer else None
    by = f"{best['method']} ({best['runs_on']})" if best["runs_on"] else str(best["method"])
    return Verdict(bar, limit, "KLD", best["mean_kl"], by, times)


def _fits(small: Result, large: Result) -> bool:
    return bool(small["weight_bytes"] <= large["weight_bytes"] * SLACK)
