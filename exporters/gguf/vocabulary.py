"""A tokenizer.json as the keys that llama.cpp reads.

Two kinds, as in edgeq/model/gguf_tokenizer.py, which reads them back: byte-level BPE, whose pre-tokenizer GGUF knows by
name only, so that the name is found by what it does to a text full of corner cases; and SentencePiece's BPE with byte
fallback, whose scores stand for the ranks of its merges.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.model.gguf_pretokenizers import known_pre_tokenizers, pre_tokenizer
from edgeq.model.spec import ModelSpec

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_PROBE = (
    "Hello, World!  I'm 12345 years old; it's 3.14159\n\n\tdef f(x):\n        return x_1 + camelCaseHTTPServer\r\n"
    "“Ünïcödé” naïve ﬁ e\u0301 日本語テスト 한국어 Привет مرحبا 😀👍🏽   trailing   \n  'S 'll"
    " DON'T 1,000,000 ٣٤٥ ²³ a\u0300b"
)


def vocabulary(files: Mapping[str, Path | bytes], spec: ModelSpec) -> dict[str, Any]:
    """Key -> value of everything below `tokenizer.`.

    Raises:
        EdgeqError: there is no tokenizer.json, or it is of a kind that GGUF has no words for.
    """
    raw = files.get("tokenizer.json")
    if raw is None:
        raise EdgeqError("the model has no tokenizer.json, which a GGUF file needs", where=spec.name)
    data: dict[str, Any] = json.loads(_read(raw))
    config = json.loads(_read(files["tokenizer_config.json"])) if "tokenizer_config.json" in files else {}
    model = data.get("model", {})
    if model.get("type", "BPE") != "BPE" or "vocab" not in model:
        raise EdgeqError(f"a {model.get('type')} tokenizer has no form in GGUF that edgeq writes", where=spec.name)
    pieces = bool(model.get("byte_fallback"))
    tokens, types = _tokens(data, spec.vocab_size, pieces)
    found: dict[str, Any] = {
        "model": "llama" if pieces else "gpt2",
        "tokens": tokens,
        "token_type": types,
        "add_bos_token": _adds_bos(raw, spec),
    }
    merges = [m if isinstance(m, str) else " ".join(m) for m in model.get("merges", [])]
    if pieces:
        found["scores"] = _scores(tokens, merges)
        found["add_space_prefix"] = "Prepend" in json.dumps(data.get("normalizer"))
    else:
        found["pre"] = _pre_name(raw, data, spec)
        found["merges"] = merges
        found["add_space_prefix"] = False
    ids = {"bos": spec.bos_id, "eos": spec.eos_ids[0] if spec.eos_ids else None, "padding": spec.pad_id}
    ids["unknown"] = {t: i for i, t in enumerate(tokens)}.get(str(model.get("unk_token")))
    found |= {f"{name}_token_id": i for name, i in ids.items() if i is not None}
    keys = {f"tokenizer.ggml.{name}": value for name, value in found.items()}
    template = _template(files, config)
    return keys | ({"tokenizer.chat_template": template} if template else {})


def _read(content: Path | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def _tokens(data: Mapping[str, Any], size: int, pieces: bool) -> tuple[list[str], list[int]]:
    """Every id's text and type; ids that the tokenizer lacks but the embedding has are unused."""
    tokens = [f"[PAD{i}]" for i in range(size)]
    types = [UNUSED] * size
    for text, i in data["model"]["vocab"].items():
        if i < size:
            tokens[i] = text
            byte = pieces and len(text) == 6 and text.startswith("<0x") and text.endswith(">")
            types[i] = BYTE if byte else NORMAL
    unknown = data["model"].get("unk_token")
    for added in data.get("added_tokens", []):
        if added["id"] < size:
            tokens[added["id"]] = added["content"]
            types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    if pieces and unknown in tokens:
        types[tokens.index(unknown)] = UNKNOWN
    return tokens, types


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """SentencePiece merges the best score first: a piece scores by the rank of the merge that makes it."""
    rank: dict[str, int] = {}
    for i, merge in enumerate(merges):
        rank.setdefault(merge.replace(" ", "", 1), i + 1)
    return [float(-rank.get(t, 0)) for t in tokens]


def _pre_name(raw: Path | bytes, data: dict[str, Any], spec: ModelSpec) -> str:
    """The name of the pre-tokenizer that cuts the probe as this one does."""
    from tokenizers import Tokenizer, normalizers

    wanted = Tokenizer.from_str(_read(raw).decode()).encode(_PROBE, add_special_tokens=False).ids
    for name in known_pre_tokenizers():
        found = pre_tokenizer(name, spec.name)
        made = Tokenizer.from_str(json.dumps({**data, "normalizer": None, "post_processor": None}))
        made.pre_tokenizer = found.build()
        if found.nfc:
            made.normalizer = normalizers.NFC()
        if made.encode(_PROBE, add_special_tokens=False).ids == wanted:
            return name
    raise EdgeqError(
        "the tokenizer cuts text in a way that llama.cpp has no name for", where=spec.name, hint="Export to onnx"
    )


def _adds_bos(raw: Path | bytes, spec: ModelSpec) -> bool:
    from tokenizers import Tokenizer

    ids = Tokenizer.from_str(_read(raw).decode()).encode("a").ids
    return spec.bos_id is not None and bool(ids) and ids[0] == spec.bos_id


def _template(files: Mapping[str, Path | bytes], config: Mapping[str, Any]) -> str | None:
    if "chat_template.jinja" in files:
        return _read(files["chat_template.jinja"]).decode()
    template = config.get("chat_template")
    return template if isinstance(template, str) else None
