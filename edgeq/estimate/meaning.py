"""What a device's figures mean for running a language model, in plain sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgeq.device.spec import Accelerator, Cpu, Device, Figure, KernelRate, Memory
from edgeq.device.words import accelerator_line, basis, binary, quantity
from edgeq.estimate.ceiling import decode_bound

EXAMPLE_BYTES = 4_000_000_000  # a model of about 7 billion weights at 4 bits
BITS = 4.5  # a weight at 4 bits, with the 16-bit scale that 32 of them share
# What multiplies 8-bit numbers in one step, by instruction set.
_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8", "i8mm", "dotprod")
_RUNS_ON = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "llamacpp": "llama.cpp", "torch": "PyTorch"}


@dataclass(frozen=True, slots=True)
class Meaning:
    """Attributes:
    name: of the part, in a word.
    value: what it is.
    how: how that is known; empty where it is plain.
    means: what it means for running a model.
    """

    name: str
    value: str
    how: str
    means: str


def meanings(device: Device, runtimes: Mapping[str, str | None] | None = None) -> list[Meaning]:
    """The parts of a device, the most telling ones first.

    Args:
        runtimes: of `registry.runtimes`; None: they are not told (another machine's are not known).
    """
    made = [memory(device.memory), reading(device), processor(device.cpu), *accelerators(device)]
    if runtimes is not None:
        made += [installed(runtimes), kernels(device.kernels)]
    return made


def memory(one: Memory) -> Meaning:
    whole, used = allowed(one), binary(max(0, allowed(one) - one.usable_bytes))
    limit = f"the container allows {binary(whole)} of {binary(one.total_bytes)}" if whole < one.total_bytes else ""
    shared = "shared by CPU and GPU" if one.unified else ""
    return Meaning(
        "Memory",
        f"{used} used, {binary(one.usable_bytes)} free of {binary(whole)}",
        ", ".join(part for part in (limit, shared) if part),
        f"Room for a model of about {billions(weights_that_fit(one.usable_bytes))} weights at 4 bits.",
    )


def allowed(one: Memory) -> int:
    """Bytes that there are, or that a container allows of them."""
    return min(one.total_bytes, one.limit_bytes or one.total_bytes)


def used_share(one: Memory) -> float:
    """Of the memory that is allowed, what is not free, 0..1."""
    whole = allowed(one)
    return min(1.0, max(0.0, 1 - one.usable_bytes / whole)) if whole else 1.0


def reading(device: Device) -> Meaning:
    figure = best_bandwidth(device)
    if figure is None:
        why = "Not known yet: it decides how many tokens a second are possible at most."
        return Meaning("Reads", "not measured", "", why)
    most = pace(decode_bound(figure.value, EXAMPLE_BYTES))
    means = (
        f"Each token reads every weight once. A model of 4 GB:\n{quantity(figure)} / 4 GB = at most {most} tokens/s."
    )
    return Meaning("Reads", quantity(figure), basis(figure), means)


def processor(cpu: Cpu) -> Meaning:
    threads = f", {cpu.threads} threads" if cpu.threads != cpu.cores else ""
    cores = f"{cpu.cores} core{'s' if cpu.cores != 1 else ''}{threads}, {cpu.arch}"
    able = next((name for name in _PRODUCTS if name in cpu.isa), None)
    means = (
        f"Fast at 8-bit numbers ({able}): suits quantized models."
        if able
        else "Not made for 8-bit numbers: long prompts take their time."
    )
    return Meaning("Processor", f"{cpu.name}, {cores}", " ".join(cpu.isa), means if cpu.isa else "")


def accelerators(device: Device) -> Iterator[Meaning]:
    if not device.accelerators:
        yield Meaning("Graphics", "none found", "", "Models run on the processor.")
    for one in device.accelerators:
        name = "NPU" if one.kind == "npu" else "Graphics"
        yield Meaning(name, accelerator_line(one), "", _card_meaning(one))


def _card_meaning(one: Accelerator) -> str:
    if not one.memory_bytes:
        return "Shares the memory: not more tokens a second, but prompts are read faster."
    held = weights_that_fit(one.available_bytes or one.memory_bytes)
    return f"Holds a model of about {billions(held)} weights at 4 bits; what is larger is split with the processor."


def installed(runtimes: Mapping[str, str | None]) -> Meaning:
    """`runtimes`: name -> what is missing for it; None: nothing."""
    able = [_RUNS_ON.get(name, name) for name, missing in runtimes.items() if missing is None]
    lacking = [_RUNS_ON.get(name, name) for name, missing in runtimes.items() if missing]
    without = f"not installed: {', '.join(lacking)}" if lacking else ""
    means = "These run what edgeq exports." if able else "None: `edgeq doctor` says how to install one."
    return Meaning("Runtimes", ", ".join(able) or "none installed", without, means)


def kernels(rates: tuple[KernelRate, ...]) -> Meaning:
    if not rates:
        why = "Not timed here yet: expected speeds come from other machines."
        return Meaning("Kernels", "not measured", "", why)
    targets = dict.fromkeys(rate.target for rate in rates)
    how = ", ".join(f"{target} {sum(r.target == target for r in rates)}" for target in targets)
    return Meaning("Kernels", f"{len(rates)} timed here", how, "Expected speeds of these runtimes come from here.")


def weights_that_fit(n_bytes: int, bits: float = BITS) -> int:
    """Weights that so many bytes hold at so many bits each; a cache and a runtime want room beside them."""
    return int(n_bytes * 8 / bits)


def billions(count: int) -> str:
    """`40 billion`, `1.5 billion`, `300 million`."""
    if count >= 10**10:
        return f"{count / 1e9:,.0f} billion"
    return f"{count / 1e9:.1f} billion" if count >= 10**9 else f"{count / 1e6:,.0f} million"


def pace(times: float) -> str:
    """`5.8`, `31`."""
    return f"{times:.0f}" if times >= 10 else f"{times:.1f}"


def best_bandwidth(device: Device) -> Figure | None:
    """The fastest memory that a model can lie in: the system's, or a graphics card's own."""
    figures = [device.memory.read_bandwidth, *_own_bandwidths(device)]
    return max((f for f in figures if f is not None), key=lambda f: f.value, default=None)


def _own_bandwidths(device: Device) -> list[Figure]:
    return [a.read_bandwidth for a in device.accelerators if a.memory_bytes and a.read_bandwidth]


def bandwidth_meaning(device: Device) -> str | None:
    """The ceiling in words: every token reads the whole model once."""
    best = best_bandwidth(device)
    if best is None:
        return None
    said = pace(decode_bound(best.value, EXAMPLE_BYTES))
    where = "graphics card" if best in _own_bandwidths(device) else "machine"
    return (
        f"a generated token reads the whole model once. This {where} reads a 4 GB model "
        f"{said} times a second: at most {said} tokens/s."
    )
