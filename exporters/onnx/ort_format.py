"""onnxruntime's own file format, `.ort`: the graph as its optimizers left it, weights inside, for minimal builds.

It is a FlatBuffer, whose offsets have 32 bits with a sign: a file of 2 GiB or more can't be. External data, which keeps
an ONNX file small, has no counterpart in it.
"""

from __future__ import annotations

from pathlib import Path

from edgeq.checkpoint.weights import Weights
from edgeq.errors import EdgeqError
from edgeq.exporters.folder import grid_of
from edgeq.model.tensors import tensors

FORMATS = ("onnx", "ort")
LARGEST = (1 << 31) - 1  # bytes
_HINT = "--format onnx keeps weights in a file of their own, which may be as large as you like"


def check_size(checkpoint: Weights, floats: int) -> None:
    """Refuse what can't fit, before anything is written.

    Args:
        floats: bytes of a float.

    Raises:
        EdgeqError: the weights alone take more than a file may have.
    """
    size = 0.0
    for tensor in tensors(checkpoint.spec):
        grid = grid_of(checkpoint, tensor)
        if grid.kind == "float":
            size += floats * tensor.numel
            continue
        groups = tensor.numel / (grid.group_size if grid.group_size > 0 else tensor.shape[-1])
        size += tensor.numel * grid.bits / 8 + floats * groups
    if size > LARGEST:
        raise _too_large(f"its weights take {size / 1e9:.1f} GB", checkpoint)


def convert(folder: Path, checkpoint: Weights, *, rounded_inputs: bool) -> None:
    """`model.onnx` and its data in the folder become `model.ort`, optimized for a CPU.

    Args:
        rounded_inputs: some products have 8-bit inputs. Such a file keeps the weights as they are now, so they are made
            uint8, which is right on every processor: x86-64 without VNNI overflows on int8 ones.

    Raises:
        EdgeqError: the file would be too large, or onnxruntime can't make it.
    """
    import onnxruntime as ort

    source, data, out = (folder / n for n in ("model.onnx", "model.onnx.data", "model.ort"))
    if (size := source.stat().st_size + data.stat().st_size) > LARGEST:
        raise _too_large(f"the model takes {size / 1e9:.1f} GB", checkpoint)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Beyond this level are layouts that only the processor it was made on may have.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(out)
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.add_session_config_entry("session.disable_prepacking", "1")  # of no use for a session that runs nothing
    if rounded_inputs:
        options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no other base
        what = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise EdgeqError(f"onnxruntime can't write its own format: {what}", hint="Leave --format out") from error
    source.unlink()
    data.unlink()


def _too_large(what: str, checkpoint: Weights) -> EdgeqError:
    where = checkpoint.spec.location or checkpoint.spec.name
    return EdgeqError(f"{what}, and an .ort file has less than 2 GiB", where=where, hint=_HINT)
