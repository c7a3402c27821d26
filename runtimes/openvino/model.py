"""An exported model, read and made ready for a session: what makes it one we can run, and what is changed in it.

The names are those of optimum-intel and openvino-genai, so that the same folder runs there: inputs `input_ids`,
`attention_mask`, `position_ids` int64 and `beam_idx` int32, output `logits`; the key/value cache is the model's state.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

from edgeq.errors import EdgeqError

LOGITS_FROM = "logits_from"
_LOGITS_INPUT = "logits_input"  # the value that the head multiplies, named by the exporter
_SWITCH = "rope_switch"  # constants: longer sequences are rotated by other frequencies
_INPUTS = {"input_ids": "i64", "attention_mask": "i64", "position_ids": "i64", "beam_idx": "i32"}


def read_model(core: ov.Core, path: Path, *, long: bool = False) -> ov.Model:
    """Read a model and add the input `logits_from`, int64 [1]: the logits of the tokens from this one on.

    A prompt then need not pay for the head at every token. `long` sets the frequencies of long sequences from the
    first token on: keys turned by one set do not fit queries turned by the other.

    Raises:
        EdgeqError: no such file, damaged, or not a model this runtime knows.
    """
    model = _read(core, path)
    _cut_logits(model, path, token_axis=1)
    if long:
        _always_long(model)
    return model


def read_paged_model(core: ov.Core, path: Path, *, long: bool = False) -> ov.Model | None:
    """As `read_model`, with PagedAttention, over blocks that the caller keeps, for the attention over state and masks.

    Tokens lie along the first axis, and the further inputs are those that openvino-genai feeds. None where a layer's
    attention is of a form that can't be replaced, as that with a softcap.

    Raises:
        EdgeqError: as `read_model`.
    """
    model = _read(core, path)
    if not _page(model):
        return None
    _cut_logits(model, path, token_axis=0)
    if long:
        _always_long(model)
    return model


def _read(core: ov.Core, path: Path) -> ov.Model:
    for file in (path, path.with_suffix(".bin")):
        if not file.is_file():
            raise EdgeqError(f"the artifact has no {file.name}", where=path.parent, hint="Export it again")
    try:
        model: ov.Model = core.read_model(path)
    except Exception as error:  # openvino's errors share no other base
        raise EdgeqError(f"OpenVINO cannot read the model: {short(error)}", where=path) from error
    _check(model, path)
    return model


def vocabulary(model: ov.Model) -> int:
    """Logits of a token."""
    return int(model.output(0).get_partial_shape()[2].get_length())


def short(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def _check(model: ov.Model, path: Path) -> None:
    found = {i.get_any_name(): i.get_element_type().get_type_name() for i in model.inputs}
    if found != _INPUTS:
        raise _other(f"its inputs are {', '.join(sorted(found))}", path)
    outputs = [o.get_any_name() for o in model.outputs]
    if outputs != ["logits"] or not model.output(0).get_partial_shape()[2].is_static:
        raise _other(f"its outputs are {', '.join(outputs)}", path)
    if not model.get_variables():
        raise _other("it keeps no state", path)


def _page(model: ov.Model) -> bool:
    """Whether every layer's attention could be replaced, and with them all that reads the masks and the state."""
    try:
        from openvino._offline_transformations import paged_attention_transformation

        paged_attention_transformation(model)
        model.validate_nodes_and_infer_types()
    except (ImportError, RuntimeError):  # a release without it
        return False
    left = any(node.get_type_name() == "ReadValue" for node in model.get_ops())
    return not left and not {i.get_any_name() for i in model.inputs} & {"attention_mask", "beam_idx"}


def _cut_logits(model: ov.Model, path: Path, token_axis: int) -> None:
    node = next((n for n in model.get_ops() if n.get_friendly_name() == _LOGITS_INPUT), None)
    if node is None:
        raise _other("it does not say what its head reads", path)
    readers = list(node.output(0).get_target_inputs())
    start = op.parameter([1], ov.Type.i64)
    start.set_friendly_name(LOGITS_FROM)
    start.output(0).get_tensor().set_names({LOGITS_FROM})
    ends: list[Any] = [op.constant(np.array([v], np.int64)) for v in (np.iinfo(np.int64).max, 1, token_axis)]
    cut = op.slice(node.output(0), start, *ends)
    for reader in readers:
        reader.replace_source_output(cut.output(0))
    model.add_parameters([start])
    model.validate_nodes_and_infer_types()


def _always_long(model: ov.Model) -> None:
    for node in model.get_ops():
        if node.get_friendly_name() == _SWITCH:
            always = op.constant(np.array([-1], np.int64))
            for reader in list(node.output(0).get_target_inputs()):
                reader.replace_source_output(always.output(0))


def _other(what: str, path: Path) -> EdgeqError:
    return EdgeqError(f"this is not a model this runtime knows: {what}", where=path, hint="Export it again")
