"""Where onnxruntime computes: one row for each execution provider that edgeq opens sessions on.

Names and options are those of https://onnxruntime.ai/docs/execution-providers/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgeq.errors import EdgeqError

CPU = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class Provider:
    """What a session on one kind of device needs.

    Attributes:
        name: onnxruntime's name of the provider.
        package: the distribution that has it; it takes the place of `onnxruntime`, both can't be installed at once.
        memory: onnxruntime's name of the device that the KV cache lives on, or None: in main memory, shared in place.
        options: the provider's own.
    """

    name: str
    package: str
    memory: str | None = None
    options: dict[str, str] = field(default_factory=dict)


PROVIDERS = {
    "cpu": Provider(CPU, "onnxruntime"),
    # Doubling the arena would take twice the KV cache's memory when it grows.
    "cuda": Provider("CUDAExecutionProvider", "onnxruntime-gpu", "cuda", {"arena_extend_strategy": "kSameAsRequested"}),
    "directml": Provider("DmlExecutionProvider", "onnxruntime-directml", "dml"),
}
_AUTO = ("cuda", "directml")  # before the CPU, best first
DEVICES = (*PROVIDERS, "auto")


def check_device(device: str) -> None:
    """Raises EdgeqError for a name that is none of `DEVICES`; `openvino` is refused with the reason."""
    if device == "openvino":  # seen with onnxruntime-openvino 1.24.1
        what = "onnxruntime's OpenVINO provider runs neither a cache in place nor the standard operator Attention"
        raise EdgeqError(what, hint="edgeq export --to openvino makes an artifact that OpenVINO itself runs")
    if device not in DEVICES:
        raise EdgeqError(f"the onnxruntime runtime knows no device {device!r}", hint=f"Known: {', '.join(DEVICES)}")


def candidates(device: str, available: Sequence[str]) -> list[str]:
    """The devices to try, in order: the one asked for or, for `auto`, all that this onnxruntime was built with.

    Args:
        available: `onnxruntime.get_available_providers()`.

    Raises:
        EdgeqError: no such device, or onnxruntime was built without it.
    """
    check_device(device)
    if device == "auto":
        return [*(d for d in _AUTO if PROVIDERS[d].name in available), "cpu"]
    wanted = PROVIDERS[device]
    if wanted.name not in available:
        hint = f"pip uninstall onnxruntime, then pip install {wanted.package}, which takes its place"
        raise EdgeqError(f"the installed onnxruntime has no {wanted.name}", hint=hint)
    return [device]
