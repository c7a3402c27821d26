"""Targets: a runtime on a kind of processor; what it needs, which grids it runs fast, slowly, or refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edgeq.device.spec import Device
from edgeq.errors import EdgeqError
from edgeq.estimate.onnx_grids import kernel_grid
from edgeq.estimate.openvino_grids import npu_takes, stored_grid
from edgeq.estimate.pool import ACCELERATOR_KINDS, accelerator
from edgeq.scheme import Scheme

Level = Literal["fast", "slow", "refused"]


@dataclass(frozen=True, slots=True)
class Support:
    """How well a target runs a scheme; `reason` says why, empty when it is simply fast."""

    level: Level
    reason: str = ""


FAST = Support("fast")
SAME_WIDTH = {"int8": "q8_0", "int4": "q4_0", "q8_0": "int8", "q4_0": "int4"}  # what other runtimes call the same


@dataclass(frozen=True, slots=True)
class Target:
    """Attributes:
    kv_dtypes: cache dtypes the runtime takes, its default first.
    systems: operating systems; empty: any but phones'.
    support: whether and how well it runs a scheme on a device.
    """

    name: str
    title: str
    kv_dtypes: tuple[str, ...]
    support: Callable[[Scheme, Device], Support]
    systems: tuple[str, ...] = ()

    def kv_dtype(self, wanted: str | None) -> str:
        """`wanted` where the runtime takes it, else its own."""
        for dtype in (wanted, SAME_WIDTH.get(wanted or "")):
            if dtype in self.kv_dtypes:
                return str(dtype)
        return self.kv_dtypes[0]


def _refused(reason: str) -> Support:
    return Support("refused", reason)


def _slow(reason: str) -> Support:
    return Support("slow", reason)


_PHONES = ("Android", "iOS")


def _onnxruntime(scheme: Scheme, device: Device) -> Support:
    """Measured with onnxruntime 1.31: see the limits of `MatMulNBits` in docs and in the exporter."""
    grid = scheme.linear
    if scheme.gguf_type is not None:
        return _refused("mixtures of GGUF block types are llama.cpp's own")
    if grid.kind == "float":
        return FAST if grid.bits == 32 else _refused("its graph computes in float32: 16 bits would be stored as 32")
    kernel = kernel_grid(grid)
    if kernel is None:
        return _slow("no kernel for this grid: its codes are unpacked to float32 at every token")
    if kernel.bits != grid.bits:
        return Support("fast", f"its {grid.bits}-bit codes are stored as {kernel.bits}-bit ones, which have a kernel")
    return FAST


def _onnxruntime_cuda(scheme: Scheme, device: Device) -> Support:
    base = _onnxruntime(scheme, device)
    if base.level != "refused" and scheme.linear.bits == 2:
        return _refused("no 2-bit kernel on CUDA")
    if base.level != "refused" and scheme.act_bits == 8:
        return _slow("8-bit activations fall back to float kernels")
    return base


def _openvino(scheme: Scheme, device: Device) -> Support:
    grid = scheme.linear
    stored = None if scheme.gguf_type is not None else stored_grid(grid)
    if stored is None:
        return _refused("mixtures of GGUF block types are llama.cpp's own")
    if stored.kind == "float":
        return FAST if grid.bits == 16 else _slow("twice the bytes of fp16 for nothing")
    if stored.bits == 2:
        return _slow("2-bit weights are unpacked to 8 bits at every use")
    if stored.group_size == 16:
        return _slow("groups of 16 turn off 8-bit activations")
    if stored.bits != grid.bits:
        return Support("fast", f"its {grid.bits}-bit codes are stored as {stored.bits}-bit ones")
    return FAST


def _openvino_cpu(scheme: Scheme, device: Device) -> Support:
    base = _openvino(scheme, device)
    if base.level == "fast" and device.cpu.arch != "x86_64":
        return _slow("OpenVINO's kernels were measured on x86-64 only")
    return base


def _openvino_npu(scheme: Scheme, device: Device) -> Support:
    if scheme.gguf_type is not None or not npu_takes(scheme.linear):
        return _refused("the NPU takes symmetric int4 in groups of 128 or whole rows only")
    return FAST


def _llamacpp(scheme: Scheme, device: Device) -> Support:
    if scheme.gguf_type is None:
        return _refused("llama.cpp reads GGUF block types only")
    return FAST


def _llamacpp_gpu(scheme: Scheme, device: Device) -> Support:
    if scheme.gguf_type in {"IQ4_NL", "IQ4_XS"}:
        return _slow("look-up tables of IQ types cost more on this backend")
    return _llamacpp(scheme, device)


def _torch(scheme: Scheme, device: Device) -> Support:
    grid = scheme.linear
    if grid.kind == "gguf":
        return _refused("GGUF block types are llama.cpp's own")
    if grid.kind == "int":
        return _slow("weights are dequantized at every use")
    return FAST if grid.bits == 16 else _slow("twice the bytes of fp16 for nothing")


_GGML_KV = ("f16", "f32", "bf16", "q8_0", "q4_0")
_ONNX_KV = (
    "f32",
    "int8",
    "int4",
)  # f16 works too, but is converted anew for every token: decoding took 2.7 times as long
_OV_KV = ("int8", "f16", "bf16", "f32", "int4")

TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        Target("onnxruntime/cpu", "ONNX Runtime on the processor", _ONNX_KV, _onnxruntime),
        Target("onnxruntime/android", "ONNX Runtime on Android", _ONNX_KV, _onnxruntime, ("Android",)),
        Target("onnxruntime/cuda", "ONNX Runtime on an NVIDIA GPU", ("f32",), _onnxruntime_cuda),
        Target("openvino/cpu", "OpenVINO on the processor", _OV_KV, _openvino_cpu),
        Target("openvino/gpu", "OpenVINO on an Intel GPU", ("f16", "int8", "int4"), _openvino),
        Target("openvino/npu", "OpenVINO on an Intel NPU", ("f16",), _openvino_npu),
        Target("llamacpp/cpu", "llama.cpp on the processor", _GGML_KV, _llamacpp, ("any", "Linux", "Android")),
        Target("llamacpp/cuda", "llama.cpp on an NVIDIA GPU", _GGML_KV, _llamacpp),
        Target("llamacpp/metal", "llama.cpp on an Apple GPU", _GGML_KV, _llamacpp, ("iOS",)),
        Target("llamacpp/rocm", "llama.cpp on an AMD GPU", _GGML_KV, _llamacpp),
        Target("llamacpp/vulkan", "llama.cpp through Vulkan", _GGML_KV, _llamacpp_gpu, ("Android",)),
        Target("torch/cuda", "PyTorch on an NVIDIA GPU", ("bf16", "f16", "f32"), _torch),
    )
}


def target(name: str) -> Target:
    """The target of that name.

    Raises:
        EdgeqError: unknown name.
    """
    if name not in TARGETS:
        raise EdgeqError(f"unknown target {name!r}", where="--target", hint=f"Known: {', '.join(TARGETS)}")
    return TARGETS[name]


def on_phone(device: Device) -> bool:
    """Where edgeq itself does not run."""
    return (device.os.split() or [""])[0] in _PHONES


def unavailable(one: Target, device: Device) -> str | None:
    """Why this device can't run the target, or None when it can."""
    place = one.name.split("/")[-1]
    system = (device.os.split() or [""])[0]
    if place == "android" and system != "Android":
        return "for Android only"
    if system in _PHONES and system not in one.systems:
        return f"not offered on {system}"
    if one.name.startswith("openvino/cpu") and device.cpu.arch not in {"x86_64", "aarch64"}:
        return f"not built for {device.cpu.arch}"
    if place not in ACCELERATOR_KINDS:
        return None
    if accelerator(device, one.name) is None:
        kinds = [_KINDS[k] for k in ACCELERATOR_KINDS[place]]
        return "no GPU here" if len(kinds) > 2 else f"no {' or '.join(kinds)} here"
    chip = accelerator(device, one.name)
    if place == "npu" and chip is not None and "intel" not in chip.name.lower():
        return f"{chip.name} is not an Intel NPU"
    return None


_KINDS = {
    "cuda": "NVIDIA GPU",
    "rocm": "AMD GPU",
    "metal": "Apple GPU",
    "intel-gpu": "Intel GPU",
    "npu": "NPU",
    "adreno": "Adreno GPU",
    "mali": "Mali GPU",
}
