"""The tokenizer inside a GGUF file, as the files Hugging Face's `tokenizers` and edgeq's sessions read.

Two kinds: `gpt2`, byte-level BPE with its merges and the name of its pre-tokenizer; `llama`, SentencePiece BPE, where
a merge's rank is the score of the piece it makes. Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md;
pre-tokenizers: llama.cpp's `llama-vocab.cpp`, in the spelling of the models' own tokenizer.json.
"""

from __future__ import annotations

import json
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.model.gguf_file import GgufFile
from edgeq.model.gguf_ids import end_ids, token_id
from edgeq.model.gguf_pretokenizers import pre_tokenizer

UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4
_SPACE = "▁"


def tokenizer_files(file: GgufFile) -> dict[str, bytes]:
    """The tokenizer's files by name: `tokenizer.json`, `tokenizer_config.json`, `generation_config.json` and, where the
    file has a template, `chat_template.jinja`.

    Raises:
        EdgeqError: no tokenizer in the file, one of a kind that can't be converted, or a damaged one.
    """
    config = _config(file)
    files = {
        "tokenizer.json": _tokenizer(file).to_str(pretty=False).encode(),
        "tokenizer_config.json": _dump(config),
        "generation_config.json": _dump(_generation(file)),
    }
    if "chat_template" in config:
        files["chat_template.jinja"] = config["chat_template"].encode()
    return files


def _tokenizer(file: GgufFile) -> Any:
    """A `tokenizers.Tokenizer`."""
    try:
        import tokenizers
    except ImportError as error:
        raise EdgeqError(
            "converting a GGUF's tokenizer needs tokenizers", hint="pip install 'edgeq[quantize]'"
        ) from error
    kind = str(file.metadata.get("tokenizer.ggml.model"))[:40]
    builders = {"gpt2": _byte_level, "llama": _sentencepiece}
    if kind not in builders:
        raise EdgeqError(f"a GGUF tokenizer of kind {kind!r}", where=file.path, hint=f"Known: {', '.join(builders)}")
    try:
        made = builders[kind](file)
        made.add_tokens([_added(tokenizers, text, kind) for text, kind in _specials(file)])
    except EdgeqError:
        raise
    except Exception as error:  # the library's Rust side raises plain Exception on a bad vocabulary
        raise EdgeqError(f"the tokenizer is damaged: {error}", where=file.path) from error
    _add_template(made, file)
    return made


def _tokens(file: GgufFile) -> list[str]:
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens or not all(isinstance(t, str) for t in tokens):
        raise EdgeqError("the file has no vocabulary", where=file.path)
    if len(set(tokens)) != len(tokens):
        raise EdgeqError("the vocabulary names a token twice", where=file.path)
    return tokens


def _numbers(file: GgufFile, key: str, count: int) -> list[Any]:
    values = file.metadata.get(key)
    if not hasattr(values, "tolist") or len(values) != count:  # type: ignore[arg-type]
        raise EdgeqError(f"{key} should have {count} entries", where=file.path)
    listed: list[Any] = values.tolist()  # type: ignore[union-attr]
    return listed


def _byte_level(file: GgufFile) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers

    name = file.metadata.get("tokenizer.ggml.pre", "default")
    found = pre_tokenizer(name, file.path)
    pairs = [_pair(merge, file) for merge in file.metadata.get("tokenizer.ggml.merges", [])]
    vocab = {text: i for i, text in enumerate(_tokens(file))}
    made = Tokenizer(models.BPE(vocab=vocab, merges=pairs, ignore_merges=found.ignore_merges))
    if found.nfc:
        made.normalizer = normalizers.NFC()
    made.pre_tokenizer = found.build()
    made.decoder = decoders.ByteLevel()
    return made


def _pair(merge: Any, file: GgufFile) -> tuple[str, str]:
    left, gap, right = merge.partition(" ") if isinstance(merge, str) else ("", "", "")
    if not gap:
        raise EdgeqError("a merge of the tokenizer is not a pair", where=file.path)
    return left, right


def _sentencepiece(file: GgufFile) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokens = _tokens(file)
    scores = _numbers(file, "tokenizer.ggml.scores", len(tokens))
    vocab = {text: i for i, text in enumerate(tokens)}
    kinds = _kinds(file, len(tokens))
    unknown = next((t for t, k in zip(tokens, kinds, strict=True) if k == UNKNOWN), None)
    plain = {t: s for t, s, k in zip(tokens, scores, kinds, strict=True) if k not in (UNKNOWN, CONTROL)}
    model = models.BPE(vocab=vocab, merges=_merges(plain, vocab), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    made = Tokenizer(model)
    prefix = bool(file.metadata.get("tokenizer.ggml.add_space_prefix", True))
    spaces = normalizers.Replace(" ", _SPACE)
    made.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefix else spaces
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return made


def _merges(scores: dict[str, float], vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, best score first: what SentencePiece's greedy BPE does, as merges."""
    found: list[tuple[float, int, int, str, str]] = []
    for piece, score in scores.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in scores and right in scores:
                found.append((-score, vocab[left], vocab[right], left, right))
    found.sort()
    return [(left, right) for *_, left, right in found]


def _kinds(file: GgufFile, count: int) -> list[int]:
    if "tokenizer.ggml.token_type" not in file.metadata:
        return [1] * count
    return _numbers(file, "tokenizer.ggml.token_type", count)


def _specials(file: GgufFile) -> list[tuple[str, int]]:
    """Tokens matched before anything else, with their kinds."""
    tokens = _tokens(file)
    kinds = _kinds(file, len(tokens))
    wanted = (UNKNOWN, CONTROL, USER_DEFINED)
    return [(text, kind) for text, kind in zip(tokens, kinds, strict=True) if kind in wanted and text]


def _added(tokenizers: Any, text: str, kind: int) -> Any:
    return tokenizers.AddedToken(text, special=kind != USER_DEFINED, normalized=False)


def _add_template(made: Any, file: GgufFile) -> None:
    """The beginning and end tokens that encoding adds."""
    from tokenizers import processors

    bos = token_id(file, "bos") if _adds_bos(file) else None
    eos = token_id(file, "eos") if file.metadata.get("tokenizer.ggml.add_eos_token") is True else None
    if bos is None and eos is None:
        return
    tokens = _tokens(file)
    named = [(tokens[i], i) for i in (bos, eos) if i is not None]
    first, last = ([] if i is None else [tokens[i]] for i in (bos, eos))
    one = [*first, "$A", *last]
    two = [*one, *(f"{p}:1" for p in [*first, "$B", *last])]
    made.post_processor = processors.TemplateProcessing(single=one, pair=two, special_tokens=list(dict.fromkeys(named)))


def _adds_bos(file: GgufFile) -> bool:
    stated = file.metadata.get("tokenizer.ggml.add_bos_token")
    if isinstance(stated, bool):
        return stated
    # llama.cpp's defaults where the file is silent
    llama3 = str(file.metadata.get("tokenizer.ggml.pre")) in ("llama-bpe", "llama3", "llama-v3")
    return llama3 or str(file.metadata.get("tokenizer.ggml.model")) == "llama"


def _config(file: GgufFile) -> dict[str, Any]:
    tokens = _tokens(file)
    longest = file.metadata.get(f"{file.metadata.get('general.architecture')}.context_length")
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": _adds_bos(file),
        "clean_up_tokenization_spaces": False,
    }
    if isinstance(longest, int):
        config["model_max_length"] = longest
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        i = token_id(file, theirs)
        if i is not None:
            config[f"{ours}_token"] = tokens[i]
    template = file.metadata.get("tokenizer.chat_template")
    if isinstance(template, str) and template:
        config["chat_template"] = template
    return config


def _generation(file: GgufFile) -> dict[str, Any]:
    ends = list(end_ids(file))
    made: dict[str, Any] = {"eos_token_id": ends[0] if len(ends) == 1 else ends}
    made |= {"bos_token_id": token_id(file, "bos"), "pad_token_id": token_id(file, "padding")}
    return {k: v for k, v in made.items() if v is not None and v != []}


def _dump(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
