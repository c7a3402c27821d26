"""Well-known devices from `catalog.toml`: data-sheet figures that stand in for hardware not at hand."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from edgeq.device.apple import gpu_limit_bytes
from edgeq.device.link import link_rate
from edgeq.device.spec import Accelerator, Basis, Cpu, Device, Figure, Memory
from edgeq.errors import EdgeqError

GIB = 1 << 30
# The share of the memory taken as free: what a bare system leaves, and what a phone gives one app. Both assumed.
FREE_SHARE = {"phone": 0.6}
USUAL_FREE_SHARE = 0.9
FREE_VRAM_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of the catalog. `memory_bytes` and `bandwidth` (None: unknown) are the card's, else the system's.

    `form` is `phone`, `board`, `laptop`, `desktop`, `handheld` or `server`.
    """

    ref: str
    name: str
    form: str
    memory_bytes: int
    bandwidth: Figure | None


def listed() -> list[Listed]:
    """Every device of the catalog, by name."""
    return [_listed(ref, catalog_device(ref)) for ref in names()]


def _listed(ref: str, device: Device) -> Listed:
    card = next((a for a in device.accelerators if a.memory_bytes), None)
    figure = (card or device.memory).read_bandwidth
    size = card.memory_bytes if card else device.memory.total_bytes
    entry = entries()[ref]
    form = entry.get("form") or entries()[entry["host"]]["form"]
    return Listed(ref, device.name, form, size, figure)


@cache
def entries() -> dict[str, dict[str, Any]]:
    """The catalog as it is written, by name."""
    return tomllib.loads(files("edgeq.device").joinpath("catalog.toml").read_text(encoding="utf-8"))


def names() -> list[str]:
    return sorted(entries())


def catalog_device(ref: str) -> Device:
    """The device of that name, with the memory that a suffix asks for, as in `m1-pro-32gb`.

    Raises:
        EdgeqError: no such name (the nearest ones are given), or a memory size that is not sold.
    """
    ref = re.sub(r"[\s_]+", "-", ref.strip().lower())
    if ref in entries():
        return _device(ref, None)
    match = re.fullmatch(r"(.+)-(\d+)gb", ref)
    if match and match[1] in entries():
        return _device(match[1], int(match[2]))
    near = difflib.get_close_matches(match[1] if match else ref, names(), n=4, cutoff=0.5)
    hint = f"Did you mean {', '.join(near)}? " if near else ""
    raise EdgeqError(
        f"no device named {ref!r} in the catalog", hint=hint + "`edgeq profile --list` shows all; a FILE.json works too"
    )


def _device(name: str, memory_gib: int | None) -> Device:
    entry = entries()[name]
    host = entries()[entry["host"]] if "host" in entry else entry
    memory = _memory(name, host, memory_gib)
    free = FREE_SHARE.get(host["form"], USUAL_FREE_SHARE)
    return Device(
        name=entry["name"],
        origin="catalog",
        os=host["os"],
        cpu=_cpu(host),
        memory=memory,
        accelerators=tuple(_accelerator(a, memory) for a in entry.get("accelerators", [])),
        warnings=_warnings(entry, host, free),
    )


def _warnings(entry: dict[str, Any], host: dict[str, Any], free: float) -> tuple[str, ...]:
    notes = [f"figures from data sheets, not measured; {free:.0%} of its memory is taken as free"]
    if entry is not host:
        notes.append(f"the graphics card is taken to sit in: {host['name']}, {host['memory_gib'][0]} GB")
    if host.get("basis") == "assumed":
        notes.append("its memory bandwidth is assumed: no vendor states it")
    return tuple(notes)


def _cpu(entry: dict[str, Any]) -> Cpu:
    rate = entry.get("fp32_gflop_s")
    basis: Basis = "assumed" if "assumed" in entry.get("fp32_source", "") else "spec"
    fp32 = Figure(rate * 1e9, "FLOP/s", basis, entry["fp32_source"]) if rate else None
    return Cpu(
        name=entry["cpu"],
        arch=entry["arch"],
        cores=entry["cores"],
        threads=entry["threads"],
        isa=tuple(entry["isa"]),
        fp32_matmul=fp32,
    )


def _memory(name: str, entry: dict[str, Any], memory_gib: int | None) -> Memory:
    sizes = entry["memory_gib"]
    if memory_gib is not None and memory_gib not in sizes:
        sold = ", ".join(f"{name}-{size}gb" for size in sorted(sizes))
        raise EdgeqError(f"{name} with {memory_gib} GB is not in the catalog", hint=f"There are {sold}")
    total = (memory_gib or sizes[0]) * GIB
    unified = entry.get("unified", False)
    metal = any(a["kind"] == "metal" for a in entry.get("accelerators", []))
    return Memory(
        total_bytes=total,
        available_bytes=int(total * FREE_SHARE.get(entry["form"], USUAL_FREE_SHARE)),
        read_bandwidth=_bandwidth(entry),
        unified=unified,
        gpu_limit_bytes=gpu_limit_bytes(total) if metal else None,
    )


def _bandwidth(entry: dict[str, Any]) -> Figure:
    return Figure(entry["bandwidth_gb_s"] * 1e9, "B/s", entry.get("basis", "spec"), entry["source"])


def _accelerator(entry: dict[str, Any], memory: Memory) -> Accelerator:
    """An accelerator with its own memory and bandwidth, or one that reads the system's."""
    own = int(entry.get("memory_gib", 0) * GIB)
    return Accelerator(
        kind=entry["kind"],
        name=entry["name"],
        memory_bytes=own,
        available_bytes=int(own * FREE_VRAM_SHARE),
        read_bandwidth=_bandwidth(entry) if "bandwidth_gb_s" in entry else memory.read_bandwidth,
        fp16_matmul=_rate(entry, "fp16_tflops", "FLOP/s"),
        int8_matmul=_rate(entry, "int8_tops", "OP/s"),
        compute_capability=entry.get("compute_capability"),
        link_bandwidth=link_rate(entry["link"]) if "link" in entry else None,
    )


def _rate(entry: dict[str, Any], key: str, unit: str) -> Figure | None:
    return Figure(entry[key] * 1e12, unit, "spec", entry["rate_source"]) if key in entry else None
