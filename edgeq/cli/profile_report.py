"""A Device as a person reads it: a table of figures with their basis, then what they mean."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from edgeq.device.cache import folder
from edgeq.device.spec import Accelerator, Cpu, Device, Figure, KernelRate, Memory

GIB = 1 << 30
Row = tuple[str, str]


def print_device(device: Device) -> None:
    """The report of `edgeq profile`."""
    console = Console(highlight=False)
    console.print()
    console.print(Text.assemble((device.name, "bold"), (f"  {_origin(device)}", "dim")))
    console.print(_table(list(_rows(device))))
    meaning = bandwidth_meaning(device)
    if meaning:
        console.print(f"\n{escape(meaning)}")
    for warning in device.warnings:
        console.print(_table([("[yellow]![/]", escape(warning))], gap=1))
    if device.origin == "local":
        console.print(f"[dim]Kept in {escape(str(folder()))}; --refresh measures again.[/]", soft_wrap=True)


def _table(rows: list[Row], gap: int = 2) -> Table:
    table = Table.grid(padding=(0, gap, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(label, text)
    return table


def _origin(device: Device) -> str:
    known = {"local": "this machine", "catalog": "from the catalog", "file": "from a file", "adb": "over adb"}
    measured = f", measured {device.date}" if device.date and device.origin != "adb" else ""
    system = f", {device.os}" if device.os != "any" else ""
    return f"{known[device.origin]}{system}{measured}"


def _rows(device: Device) -> Iterator[Row]:
    yield from _cpu_rows(device.cpu)
    yield from _memory_rows(device.memory)
    for accelerator in device.accelerators:
        yield "Accelerator", accelerator_line(accelerator)
    if not device.accelerators:
        yield "Accelerator", "[dim]none found[/]"
    if device.kernels:
        yield "", ""
        yield from _kernel_rows(device.kernels)
        yield "", ""
    if device.load is not None:
        yield "Load now", f"{device.load:.0%} of the machine"


def _kernel_rows(kernels: Sequence[KernelRate]) -> Iterator[Row]:
    """Each runtime's kernels under its name, in columns."""
    width = max(len(kernel.kernel) for kernel in kernels)
    shown = ""
    for kernel in kernels:
        label, shown = ("" if kernel.target == shown else escape(kernel.target)), kernel.target
        yield (
            label,
            f"{escape(kernel.kernel):{width}}  [bold]{quantity(kernel.figure)}[/] [dim]{kernel.figure.basis}[/]",
        )


def _cpu_rows(cpu: Cpu) -> Iterator[Row]:
    micro = f" [dim]({escape(cpu.microarchitecture)})[/]" if cpu.microarchitecture else ""
    yield "Processor", escape(cpu.name) + micro
    threads = f", {cpu.threads} threads" if cpu.threads != cpu.cores else ""
    yield "Cores", f"{cpu.cores}{threads} usable, {cpu.arch}"
    yield "Instructions", " ".join(cpu.isa) or "[dim]unknown[/]"
    if cpu.caches:
        yield "Caches", caches(cpu)
    if cpu.fp32_matmul:
        yield "fp32 matmul", figure(cpu.fp32_matmul)
    if cpu.int8_matmul:
        yield "int8 matmul", figure(cpu.int8_matmul)


def caches(cpu: Cpu) -> str:
    """`L1 2 x 32 KiB, L3 32 MiB`: data and unified caches."""
    counted: dict[tuple[int, int], int] = {}
    for cache in cpu.caches:
        counted[cache.level, cache.size_bytes] = counted.get((cache.level, cache.size_bytes), 0) + 1
    return ", ".join(
        f"L{level} {f'{count} x ' if count > 1 else ''}{binary(size)}" for (level, size), count in counted.items()
    )


def _memory_rows(memory: Memory) -> Iterator[Row]:
    yield "Memory", f"{binary(memory.total_bytes)}, {binary(memory.available_bytes)} free"
    if memory.limit_bytes:
        yield "Limit", f"{binary(memory.limit_bytes)} by the container's control group"
    if memory.unified:
        limit = f", at most {binary(memory.gpu_limit_bytes)} for the GPU" if memory.gpu_limit_bytes else ""
        yield "", f"shared by CPU and GPU{limit}"
    if memory.read_bandwidth:
        yield "Read bandwidth", figure(memory.read_bandwidth)
    else:
        yield "Read bandwidth", "[dim]unknown[/]"
    if memory.bandwidth_by_threads:
        rates = [f"{rate / 1e9:.1f} with {count}" for count, rate in memory.bandwidth_by_threads]
        yield "", "[dim]GB/s by threads: " + ", ".join(rates) + "[/]"


def accelerator_line(accelerator: Accelerator) -> str:
    """One accelerator with what is known of it."""
    parts = [escape(accelerator.name)]
    if accelerator.memory_bytes:
        parts.append(f"{binary(accelerator.memory_bytes)}, {binary(accelerator.available_bytes)} free")
    elif accelerator.kind != "npu":
        parts.append("shares system memory")
    if accelerator.read_bandwidth and accelerator.memory_bytes:
        parts.append(quantity(accelerator.read_bandwidth))
    for name, rate in (("fp16", accelerator.fp16_matmul), ("int8", accelerator.int8_matmul)):
        if rate:
            parts.append(f"{name} {quantity(rate)}")
    if accelerator.compute_capability:
        parts.append(f"compute capability {accelerator.compute_capability}")
    if accelerator.link_bandwidth:
        parts.append(f"{accelerator.link_bandwidth.source} {quantity(accelerator.link_bandwidth)}")
    return ", ".join(parts)


def bandwidth_meaning(device: Device) -> str | None:
    """The ceiling in words: every token reads the whole model once."""
    own = [a.read_bandwidth for a in device.accelerators if a.memory_bytes and a.read_bandwidth]
    figures = [f for f in (device.memory.read_bandwidth, *own) if f is not None]
    if not figures:
        return None
    best = max(figures, key=lambda f: f.value)
    times = best.value / 4e9
    said = f"{times:.0f}" if times >= 10 else f"{times:.1f}"
    where = "graphics card" if best in own else "machine"
    return (
        f"What this means: a generated token reads the whole model once. This {where} reads a 4 GB model "
        f"{said} times a second: at most {said} tokens/s. `edgeq plan` works it out for a model."
    )


def figure(value: Figure) -> str:
    """`31.0 GB/s ± 6 %  measured: memchr over 256 MiB`."""
    spread = f" ±{value.spread:.0%}" if value.spread is not None else ""
    source = f": {escape(value.source)}" if value.source else ""
    return f"[bold]{quantity(value)}[/]{spread} [dim]{value.basis}{source}[/]"


def quantity(value: Figure) -> str:
    """The number with a decimal prefix and its unit."""
    if value.unit == "s":
        return f"{value.value * 1e6:.3g} µs" if value.value < 1e-3 else f"{value.value * 1e3:.3g} ms"
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value.value) >= size:
            # Memory is compared in GB/s, however fast.
            if value.unit == "B/s" and prefix == "T":
                continue
            number = value.value / size
            gap = " " if value.unit[0].islower() else ""  # GB/s, but G weights/s
            return f"{number:.{0 if number >= 100 else 1}f} {prefix}{gap}{value.unit}"
    return f"{value.value:.3g} {value.unit}"


def binary(size: int) -> str:
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= step:
            number = size / step
            return f"{number:.0f} {unit}" if number == int(number) else f"{number:.1f} {unit}"
    return f"{size} B"


def print_catalog(*, as_json: bool) -> None:
    """All known devices, one a line."""
    from edgeq.device.catalog import catalog_device, names

    devices = {name: catalog_device(name) for name in names()}
    if as_json:
        print(json.dumps({name: device.name for name, device in devices.items()}, indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("NAME", no_wrap=True)
    table.add_column("DEVICE", no_wrap=True, overflow="ellipsis")
    table.add_column("GiB", justify="right", no_wrap=True)
    table.add_column("GB/s", justify="right", no_wrap=True)
    for name, device in devices.items():
        card = next((a for a in device.accelerators if a.memory_bytes), None)
        bandwidth = (card or device.memory).read_bandwidth
        size = card.memory_bytes if card else device.memory.total_bytes
        table.add_row(name, device.name, f"{size / GIB:.3g}", f"{bandwidth.value / 1e9:.4g}" if bandwidth else "?")
    Console(highlight=False).print(table)
    print("\nMemory and read bandwidth of the card, or of the system; other sizes as in m1-pro-32gb.")
