"""The named pre-tokenizers of byte-level BPE vocabularies in GGUF files (`tokenizer.ggml.pre`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeq.errors import EdgeqError

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
# cl100k (GPT-4), with digits in runs of up to three or one by one
_CL100K = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_TAIL}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_TAIL}"
_QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_TAIL}"
)
# o200k (GPT-4o): words split where the case changes
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"
)
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"
)
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_TAIL}",
)


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """How text is cut before merging.

    Attributes:
        splits: patterns applied one after another; empty with `gpt2` for GPT-2's own.
        gpt2: cut by GPT-2's pattern at last.
        digits: every digit stands alone.
        nfc: text is normalized to NFC first.
        ignore_merges: a word that is in the vocabulary is taken whole.
    """

    splits: tuple[str, ...] = ()
    gpt2: bool = False
    digits: bool = False
    nfc: bool = False
    ignore_merges: bool = False

    def build(self) -> Any:
        """The `tokenizers` pre-tokenizer."""
        from tokenizers import Regex, pre_tokenizers

        steps: list[Any] = [pre_tokenizers.Split(Regex(p), "isolated", invert=False) for p in self.splits]
        if self.digits:
            steps.append(pre_tokenizers.Digits(individual_digits=True))
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=self.gpt2))
        return steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)


_GPT2 = PreTokenizer(gpt2=True)
_DIGITS = PreTokenizer(gpt2=True, digits=True)
_LLAMA3 = PreTokenizer((_CL100K,), ignore_merges=True)
_KNOWN = {
    **dict.fromkeys(("default", "gpt-2", "gpt2", "phi-2", "olmo", "mpt"), _GPT2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), _DIGITS),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3"), _LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe"), PreTokenizer((_CL100K,))),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2"), PreTokenizer((_QWEN2,), nfc=True)),
    "qwen35": PreTokenizer((_QWEN35,), nfc=True),
    "gpt-4o": PreTokenizer((_O200K,)),
    "tekken": PreTokenizer((_TEKKEN,), ignore_merges=True),
    "deepseek-v3": PreTokenizer(_DEEPSEEK3),
}


def pre_tokenizer(name: object, where: object) -> PreTokenizer:
    """The pre-tokenizer of that name.

    Raises:
        EdgeqError: it is not known; guessing would give other tokens than the model was trained on.
    """
    if not isinstance(name, str) or name not in _KNOWN:
        raise EdgeqError(
            f"unknown pre-tokenizer {str(name)[:40]!r}", where=where, hint=f"Known: {', '.join(sorted(_KNOWN))}"
        )
    return _KNOWN[name]


def known_pre_tokenizers() -> tuple[str, ...]:
    """Their names, those that cut alike once: the first of them."""
    first: dict[PreTokenizer, str] = {}
    for name, made in _KNOWN.items():
        if name != "default":  # llama.cpp warns of it
            first.setdefault(made, name)
    return tuple(first.values())
