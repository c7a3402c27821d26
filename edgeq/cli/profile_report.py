"""A Device as a person reads it: a table of figures with their basis, then what they mean."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from edgeq.device.cache import folder
from edgeq.device.spec import Cpu, Device, Figure, KernelRate, Memory
from edgeq.device.words import accelerator_line, binary, caches, origin, quantity
from edgeq.estimate.meaning import bandwidth_meaning

GIB = 1 << 30
Row = tuple[str, str]


def print_device(device: Device) -> None:
    """The report of `edgeq profile`."""
    console = Console(highlight=False)
    console.print()
    console.print(Text.assemble((device.name, "bold"), (f"  {origin(device)}", "dim")))
    console.print(_table(list(_rows(device))))
    meaning = bandwidth_meaning(device)
    if meaning:
        console.print(f"\nWhat this means: {escape(meaning)} `edgeq plan` works it out for a model.")
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


def _rows(device: Device) -> Iterator[Row]:
    yield from _cpu_rows(device.cpu)
    yield from _memory_rows(device.memory)
    for accelerator in device.accelerators:
        yield "Accelerator", escape(accelerator_line(accelerator))
    if not device.accelerators:
        yield "Accelerator", "[dim]none found[/]"
    if device.kernels:
        yield "", ""
        yield from _kernel_rows(device.kernels)
        yield "", ""
    if device.load is not None:
        yield "Load now", f"{device.load:.0%} of the machine"


def _kernel_rows(kernels: Sequence[KernelRate]) -> Iterator[Row]:
    """Each runtime's kernels under its name, in columns; how they were timed beside the first."""
    width = max(len(kernel.kernel) for kernel in kernels)
    shown = ""
    for kernel in kernels:
        first, shown = kernel.target != shown, kernel.target
        said = figure(kernel.figure if first else replace(kernel.figure, source=""))
        yield escape(kernel.target) if first else "", f"{escape(kernel.kernel):{width}}  {said}"


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


def figure(value: Figure) -> str:
    """`31.0 GB/s ± 6 %  measured: memchr over 256 MiB`."""
    spread = f" ±{value.spread:.0%}" if value.spread is not None else ""
    source = f": {escape(value.source)}" if value.source else ""
    return f"[bold]{quantity(value)}[/]{spread} [dim]{value.basis}{source}[/]"


def print_catalog(*, as_json: bool) -> None:
    """All known devices, one a line."""
    from edgeq.device.catalog import listed

    devices = listed()
    if as_json:
        print(json.dumps({one.ref: one.name for one in devices}, indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("NAME", no_wrap=True)
    table.add_column("DEVICE", no_wrap=True, overflow="ellipsis")
    table.add_column("GiB", justify="right", no_wrap=True)
    table.add_column("GB/s", justify="right", no_wrap=True)
    for one in devices:
        rate = f"{one.bandwidth.value / 1e9:.4g}" if one.bandwidth else "?"
        table.add_row(one.ref, one.name, f"{one.memory_bytes / GIB:.3g}", rate)
    Console(highlight=False).print(table)
    print("\nMemory and read bandwidth of the card, or of the system; other sizes as in m1-pro-32gb.")
