"""This machine as a Device: what it is (read anew each time) and what it was measured to do (kept)."""

from __future__ import annotations

import platform
import socket
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Literal

from edgeq import registry
from edgeq.device import cache
from edgeq.device.accelerators import probe_accelerators
from edgeq.device.cache import Measured
from edgeq.device.cpu import last_cache_bytes, probe_cpu
from edgeq.device.load import BUSY, OthersLoad, load_now, today
from edgeq.device.memory import probe_memory
from edgeq.device.spec import Cpu, Device, Memory

Say = Callable[[str], None]
Standing = Literal["none", "quick", "full"]
PROBE_SECONDS = 180.0  # for all runtimes together; each should take 20 at most, on a slow machine it takes longer
DOUBTFUL_SPREAD = 0.25


def profile_device(
    *,
    refresh: bool = False,
    quick: bool = True,
    runtimes: Collection[str] | None = None,
    say: Say = lambda _: None,
) -> Device:
    """Describe and measure this machine. Measurements are kept in the user's cache folder, or `EDGEQ_HOME`.

    Args:
        refresh: measure again even when there is a kept measurement of this machine.
        quick: under two seconds in all, without the runtimes' kernels unless they are kept from before. Otherwise
            longer windows, every installed runtime's probe and the vendors' libraries; a kept measurement that was
            doubtful is then repeated and the sounder one kept, and a runtime that came since is asked.
        runtimes: whose kernels are wanted, where installed, when not `quick`; None: all.
        say: told what is measured, of a long measurement.
    """
    cpu, memory = probe_cpu(), machine_memory()
    mark = cache.fingerprint(cpu, memory)
    measured = None if refresh else cache.read(mark)
    wanted = () if quick else _installed(runtimes)
    if measured is None:
        measured = measure_quickly(cpu, memory, mark) if quick else measure_fully(cpu, memory, mark, wanted, say)
        cache.write(measured)
    elif not quick and (measured.notes or not _asked(measured, wanted)):
        measured = improved(measured, cpu, memory, wanted, say)
        cache.write(measured)
    return assemble(cpu, memory, measured)


def glimpse() -> tuple[Device, Standing]:
    """This machine as it is known without a measurement: its parts, with the figures that are kept from before.

    Returns with it what is kept: nothing, a quick measurement, or a full one with the runtimes' kernels.
    """
    cpu, memory = probe_cpu(), machine_memory()
    mark = cache.fingerprint(cpu, memory)
    kept = cache.read(mark)
    standing: Standing = "none" if kept is None else "full" if _asked(kept, _installed()) else "quick"
    return assemble(cpu, memory, kept or Measured(mark, "", 0.0)), standing


def machine_memory() -> Memory:
    """System memory as it is now; on an Apple chip the GPU's share of it too."""
    memory = probe_memory()
    if sys.platform == "darwin":
        from edgeq.device.apple import read_sysctl, unified_memory

        return unified_memory(memory, read_sysctl())
    return memory


def measure_quickly(cpu: Cpu, memory: Memory, mark: dict[str, str]) -> Measured:
    """Bandwidth and fp32 rate. A runtime takes longer to load and probe than a first plan should."""
    return measure(cpu, memory, mark, bandwidth_seconds=0.7, matmul_seconds=0.1)


def measure_fully(cpu: Cpu, memory: Memory, mark: dict[str, str], runtimes: Sequence[str], say: Say) -> Measured:
    say("how fast memory is read, how fast numbers are multiplied")
    made = measure(cpu, memory, mark, bandwidth_seconds=3.0, matmul_seconds=0.5)
    return with_kernels(made, runtimes, say)


def improved(kept: Measured, cpu: Cpu, memory: Memory, runtimes: Sequence[str], say: Say) -> Measured:
    """A kept measurement, repeated where it was doubtful, with the kernels of runtimes that were not asked yet."""
    everyone = tuple(dict.fromkeys((*kept.asked, *runtimes)))
    if kept.notes:
        again = measure_fully(cpu, memory, kept.fingerprint, everyone, say)
        if len(again.notes) < len(kept.notes) or again.load <= kept.load or not _asked(kept, runtimes):
            return again
    if _asked(kept, runtimes):
        return kept
    return with_kernels(kept, [name for name in everyone if name not in kept.asked], say)


def _installed(runtimes: Collection[str] | None = None) -> tuple[str, ...]:
    """The runtimes that work here, of these."""
    found = registry.runtimes()
    return tuple(name for name, lacks in found.items() if lacks is None and (runtimes is None or name in runtimes))


def _asked(measured: Measured, runtimes: Collection[str]) -> bool:
    return measured.complete and set(runtimes) <= set(measured.asked)


def measure(
    cpu: Cpu, memory: Memory, mark: dict[str, str], *, bandwidth_seconds: float, matmul_seconds: float
) -> Measured:
    """Read bandwidth and arithmetic rate, with what made them doubtful."""
    from edgeq.device.bandwidth import measure_bandwidth
    from edgeq.device.matmul import measure_fp32_matmul

    with OthersLoad() as others:
        bandwidth = measure_bandwidth(
            cpu.threads,
            last_cache_bytes=last_cache_bytes(cpu),
            available_bytes=memory.usable_bytes,
            seconds=bandwidth_seconds,
        )
        fp32 = measure_fp32_matmul(seconds=matmul_seconds)
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


def with_kernels(measured: Measured, runtimes: Sequence[str], say: Say) -> Measured:
    """The same with what these runtimes' probes measured, in the place of what they did before, and with what the
    vendors' libraries told."""
    from edgeq.device.kernel_probe import probe_kernels

    say("the kernels of the installed runtimes")
    with OthersLoad() as others:
        probed = probe_kernels(PROBE_SECONDS, runtimes)
    share = 0.0 if sys.platform == "win32" else round(others.share, 3)  # Windows counts the probe among the others
    left = [k for k in measured.kernels if k.target.split("/")[0] not in runtimes]
    return replace(
        measured,
        load=max(measured.load, share),
        kernels=(*left, *probed.kernels),
        accelerators=probed.accelerators,
        notes=measured.notes or doubts(share, None),
        asked=(*(name for name in measured.asked if name not in runtimes), *probed.asked),
        complete=probed.complete,
    )


def doubts(load: float, spread: float | None, *, measured: bool = True) -> tuple[str, ...]:
    """Why a measurement should be repeated; empty when it is sound."""
    notes, again = [], "so it may do better: repeat with `edgeq profile --refresh`"
    if load > BUSY:
        notes.append(f"other programs took {load:.0%} of the machine while it was measured, {again}")
    if spread is not None and spread > DOUBTFUL_SPREAD:
        notes.append(f"the read bandwidth varied by ±{spread:.0%} between windows, {again}")
    if not measured:
        notes.append("too little free memory to measure the read bandwidth")
    return tuple(notes)


def assemble(cpu: Cpu, memory: Memory, measured: Measured) -> Device:
    """The Device from what is so now and what was measured."""
    accelerators = probe_accelerators(measured.accelerators, measured.read_bandwidth)
    # A CUDA chip without memory of its own (Jetson, GB10) shares the system's.
    unified = memory.unified or any(a.kind == "cuda" and not a.memory_bytes for a in accelerators)
    return Device(
        name=socket.gethostname() or cpu.name,
        origin="local",
        os=f"{platform.system()} {platform.release()}".strip(),
        cpu=replace(cpu, fp32_matmul=measured.fp32_matmul, int8_matmul=None),
        memory=replace(
            memory,
            unified=unified,
            read_bandwidth=measured.read_bandwidth,
            bandwidth_by_threads=measured.bandwidth_by_threads,
        ),
        accelerators=accelerators,
        kernels=measured.kernels,
        load=load_now(),
        warnings=measured.notes,
        date=measured.date,
    )
