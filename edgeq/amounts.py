"""Sizes and counts in words, of the smallest model as of the largest: never `0 MB`, never `0M`."""

from __future__ import annotations


def amount(n: float) -> str:
    """Bytes in units of 1000: `840 bytes`, `41 KB`, `0.3 MB`, `92.6 MB`, `2,441 MB`."""
    if n < 1e3:
        return f"{n:.0f} bytes"
    if n < 1e5:
        return f"{n / 1e3:.0f} KB"
    return f"{n / 1e6:,.1f} MB" if n < 1e8 else f"{n / 1e6:,.0f} MB"


def count(n: float) -> str:
    """Parameters, of which three digits tell: `860`, `120K`, `1.24M`, `135M`, `8.03B`, `405B`."""
    for unit, each in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if n >= 0.9995 * each:
            digits = 0 if n >= 99.95 * each else 1 if n >= 9.995 * each else 2
            return f"{n / each:.{digits}f}{unit}"
    return f"{n:.0f}"
