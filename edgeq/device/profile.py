"""This machine as a Device: what it is (read anew each time) and what it was measured to do (kept)."""

from __future__ import annotations

import dataclasses
import platform
import socket

from edgeq.device import cache
from edgeq.device.cache import Measured
from edgeq.device.cpu import last_cache_bytes, probe_cpu
from edgeq.device.load import BUSY, OthersLoad, load_now, today
from edgeq.device.memory import probe_memory
from edgeq.device.spec import Accelerator, Cpu, Device, Memory

DOUBTFUL_SPREAD = 0.25


def profile_device(*, refresh: bool = False, quick: bool = True) -> Device:
    """Describe and measure this machine.

    Args:
        refresh: measure again even when there is a kept measurement of this machine.
        quick: under two seconds in all, runtimes' kernels only as far as they answer in time; otherwise longer
            windows, every installed runtime's probe and the vendors' libraries.
    """
    cpu, memory = probe_cpu(), probe_memory()
    mark = cache.fingerprint(cpu, memory)
    measured = None if refresh else cache.read(mark)
    if measured is None:
        measured = measure(cpu, memory, mark, quick=quick)
        cache.write(measured)
    return assemble(cpu, memory, measured)


def measure(cpu: Cpu, memory: Memory, mark: dict[str, str], *, quick: bool) -> Measured:
    """Read bandwidth and arithmetic rate, with what made them doubtful."""
    from edgeq.device.bandwidth import measure_bandwidth
    from edgeq.device.matmul import measure_fp32_matmul

    with OthersLoad() as others:
        bandwidth = measure_bandwidth(
            cpu.threads,
            last_cache_bytes=last_cache_bytes(cpu),
            available_bytes=memory.usable_bytes,
            seconds=0.7 if quick else 3.0,
        )
        fp32 = measure_fp32_matmul(seconds=0.1 if quick else 0.5)
    best = bandwidth.best if bandwidth else None
    return Measured(
        fingerprint=mark,
        date=today(),
        load=round(others.share, 3),
        read_bandwidth=best,
        bandwidth_by_threads=bandwidth.by_threads if bandwidth else (),
        fp32_matmul=fp32,
        notes=doubts(others.share, best.spread if best else None, measured=best is not None),
    )


def doubts(load: float, spread: float | None, *, measured: bool = True) -> tuple[str, ...]:
    """Why a measurement should be repeated; empty when it is sound."""
    notes = []
    if load > BUSY:
        notes.append(f"other programs took {load:.0%} of the machine while it was measured: repeat with --refresh")
    if spread is not None and spread > DOUBTFUL_SPREAD:
        notes.append(f"the read bandwidth varied by {spread:.0%} between windows: repeat with --refresh")
    if not measured:
        notes.append("too little free memory to measure the read bandwidth")
    return tuple(notes)


def assemble(cpu: Cpu, memory: Memory, measured: Measured) -> Device:
    """The Device from what is so now and what was measured."""
    return Device(
        name=socket.gethostname() or cpu.name,
        origin="local",
        os=f"{platform.system()} {platform.release()}".strip(),
        cpu=dataclasses.replace(cpu, fp32_matmul=measured.fp32_matmul),
        memory=dataclasses.replace(
            memory, read_bandwidth=measured.read_bandwidth, bandwidth_by_threads=measured.bandwidth_by_threads
        ),
        accelerators=accelerators(measured),
        kernels=measured.kernels or (),
        load=load_now(),
        warnings=measured.notes,
        date=measured.date,
    )


def accelerators(measured: Measured) -> tuple[Accelerator, ...]:
    return measured.accelerators
