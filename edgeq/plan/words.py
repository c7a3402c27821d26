"""Numbers in words: sizes in GB (10^9 bytes), as memory cards and files are sold."""

from __future__ import annotations

from edgeq.amounts import amount


def gb(n: float) -> str:
    """`4.35 GB`, `12.3 GB`, `840 MB`, `0.3 MB`."""
    if n >= 1e11:
        return f"{n / 1e9:,.0f} GB"
    if n >= 1e10:
        return f"{n / 1e9:.1f} GB"
    if n >= 1e9:
        return f"{n / 1e9:.2f} GB"
    return f"{n / 1e6:.0f} MB" if n >= 1e7 else amount(n)


def gigabytes(n: float) -> str:
    """A table's figure in GB: `0.86`, `6.17`, `12.3`, `148`, `1,234`."""
    value = n / 1e9
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def rate(tps: float | None) -> str:
    """A table's figure in tokens/s: `28`, `2.4`, `?`."""
    return "?" if tps is None else speed(tps).removesuffix(" tok/s")


def kl(nats: float) -> str:
    """Two digits, no exponent: `0.76`, `0.013`, `0.0014`, `0`."""
    return "0" if nats == 0 else f"{nats:.2f}" if nats >= 0.1 else f"{nats:.3f}" if nats >= 0.01 else f"{nats:.4f}"


def tokens(n: int) -> str:
    return f"{n:,} token" + ("" if n == 1 else "s")


def speed(tps: float | None) -> str:
    """`28 tok/s`, `2.4 tok/s`, `unknown`."""
    if tps is None:
        return "unknown"
    return f"{tps:,.0f} tok/s" if tps >= 20 else f"{tps:.1f} tok/s"


def duration(hours: float) -> str:
    seconds = hours * 3600
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:,.0f} days"
