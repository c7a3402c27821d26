"""The tokenizer as OpenVINO models, which openvino-genai needs to take text."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import openvino as ov

NEEDED = ("openvino_tokenizers", "transformers")
NAMES = ("openvino_tokenizer", "openvino_detokenizer")


def write_models(folder: Path) -> str | None:
    """Convert the tokenizer files that lie in `folder`.

    Returns:
        None when both models are written, otherwise why they are not.
    """
    if not (folder / "tokenizer.json").is_file():
        return "the checkpoint has no tokenizer.json"
    absent = [name for name in NEEDED if find_spec(name) is None]
    if absent:
        return f"{' and '.join(absent)} not installed"
    from openvino_tokenizers import convert_tokenizer
    from transformers import AutoTokenizer

    try:
        made = convert_tokenizer(AutoTokenizer.from_pretrained(folder, local_files_only=True), with_detokenizer=True)
    except Exception as error:  # theirs share no base; a tokenizer of an unknown kind is no reason to fail
        return f"openvino_tokenizers can't convert it: {(str(error).splitlines() or [type(error).__name__])[0][:200]}"
    for model, name in zip(made, NAMES, strict=True):
        ov.save_model(model, folder / f"{name}.xml", compress_to_fp16=False)
    return None
