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
PROBE = (
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
        found["add_space_prefix"] = _prefixes(raw)
    else:
        if not merges:
            raise EdgeqError("a byte-level tokenizer without merges has no form in GGUF", where=spec.name)
        found["pre"] = _pre_name(raw, data, spec)
        found["merges"] = merges
        found["add_space_prefix"] = False
    ids = {"bos": spec.bos_id, "padding": spec.pad_id, **dict(zip(("eos", "eot", "eom"), spec.eos_ids, strict=False))}
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
    last = len(merges) + 1.0  # of what no merge makes
    return [float(-rank.get(t, 0 if len(t) == 1 else last)) for t in tokens]


def _pre_name(raw: Path | bytes, data: Mapping[str, Any], spec: ModelSpec) -> str:
    """The name of the pre-tokenizer that cuts the probe as this one does, and takes whole words alike."""
    from tokenizers import Tokenizer, normalizers

    own = Tokenizer.from_str(_read(raw).decode())
    wanted = _cuts(own.normalizer, own.pre_tokenizer)
    whole = bool(data["model"].get("ignore_merges"))
    for name in known_pre_tokenizers():
        found = pre_tokenizer(name, spec.name)
        if found.ignore_merges != whole:
            continue
        if _cuts(normalizers.NFC() if found.nfc else None, found.build()) == wanted:
            return name
    raise EdgeqError(
        "the tokenizer cuts text in a way that llama.cpp has no name for", where=spec.name, hint="Export to onnx"
    )


def _cuts(normalizer: Any, cutter: Any) -> list[str]:
    """The words of the probe, as the merges see them."""
    text = normalizer.normalize_str(PROBE) if normalizer else PROBE
    return [word for word, _ in cutter.pre_tokenize_str(text)] if cutter else [text]


def _prefixes(raw: Path | bytes) -> bool:
    """A space is put before a text, by a normalizer or a pre-tokenizer."""
    from tokenizers import Tokenizer

    found: list[str] = Tokenizer.from_str(_read(raw).decode()).encode("a", add_special_tokens=False).tokens
    return bool(found) and found[0].startswith("\u2581")


def _adds_bos(raw: Path | bytes, spec: ModelSpec) -> bool:
    from tokenizers import Tokenizer

    ids = Tokenizer.from_str(_read(raw).decode()).encode("a").ids
    return spec.bos_id is not None and bool(ids) and ids[0] == spec.bos_id


def _template(files: Mapping[str, Path | bytes], config: Mapping[str, Any]) -> str | None:
    if "chat_template.jinja" in files:
        return _read(files["chat_template.jinja"]).decode()
    template = config.get("chat_template")
    return template if isinstance(template, str) else None
