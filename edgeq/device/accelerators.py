"""All accelerators of this machine, whichever vendor's."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from edgeq.device.spec import Accelerator, Figure


def probe_accelerators(known: Sequence[Accelerator], system_bandwidth: Figure | None) -> tuple[Accelerator, ...]:
    """What is there now, with free memory as it is now.

    Args:
        known: accelerators that a vendor's library described in the last full profile; they stand for those of the
            same kind that the system merely lists.
        system_bandwidth: read bandwidth of system memory, for those that have no memory of their own.
    """
    found = _found(system_bandwidth)
    described = {a.kind for a in known}
    listed = [a for a in found if a.kind not in described]
    # Of a described kind, keep what the listing knows and the description does not (a discrete card's bandwidth).
    return tuple(_sharing(a, system_bandwidth) for a in (*listed, *(_merged(k, found) for k in known)))


def _found(system_bandwidth: Figure | None) -> tuple[Accelerator, ...]:
    from edgeq.device.nvidia import probe_nvidia

    if sys.platform == "darwin":
        from edgeq.device.apple import chip_bandwidth, metal_accelerator, read_sysctl

        values = read_sysctl()
        metal = metal_accelerator(values, chip_bandwidth(values) or system_bandwidth)
        return (metal,) if metal else ()
    if sys.platform != "linux":
        return probe_nvidia()
    from edgeq.device.amd import probe_amd
    from edgeq.device.intel import probe_intel

    return (*probe_nvidia(), *probe_amd(), *probe_intel())


def _merged(described: Accelerator, found: Sequence[Accelerator]) -> Accelerator:
    twin = next((a for a in found if a.kind == described.kind and a.memory_bytes == described.memory_bytes), None)
    if twin is None:
        return described
    return replace(
        described,
        available_bytes=twin.available_bytes or described.available_bytes,
        read_bandwidth=described.read_bandwidth or twin.read_bandwidth,
        fp16_matmul=described.fp16_matmul or twin.fp16_matmul,
        int8_matmul=described.int8_matmul or twin.int8_matmul,
        link_bandwidth=described.link_bandwidth or twin.link_bandwidth,
    )


def _sharing(accelerator: Accelerator, system_bandwidth: Figure | None) -> Accelerator:
    if accelerator.memory_bytes or accelerator.read_bandwidth or system_bandwidth is None:
        return accelerator
    return replace(accelerator, read_bandwidth=system_bandwidth)
