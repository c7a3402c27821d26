"""One candidate against its float model on one text: `python quality_harness.py REQUEST`; both sides speak JSON.

The text is cut as llama-perplexity cuts it, so that its figures and these are of the same tokens. Whatever holds
weights is run by edgeq's own decoder in float32: then only the weights differ, not the arithmetic of an engine.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Logits = Callable[[list[int]], Floats]  # ids of a chunk -> (tokens, vocabulary)


@dataclass(frozen=True, slots=True)
class Cut:
    """How a text becomes chunks.

    Attributes:
        chunks, length: at most so many, of exactly so many tokens each.
        bos: the token that begins a sequence, for models that want one.
    """

    chunks: int
    length: int
    bos: int | None = None

    def pieces(self, ids: Sequence[int]) -> list[list[int]]:
        """Consecutive whole chunks. With a BOS the text has it in front, and each chunk has it in place of its first
        token (llama.cpp's tools/perplexity/perplexity.cpp).

        Raises:
            ValueError: not even one chunk.
        """
        text = list(ids) if self.bos is None else [self.bos, *ids]
        count = min(self.chunks, len(text) // self.length)
        if count < 1:
            raise ValueError(f"{len(text)} tokens are less than a chunk of {self.length}")
        whole = [text[i * self.length : (i + 1) * self.length] for i in range(count)]
        return whole if self.bos is None else [[self.bos, *piece[1:]] for piece in whole]

    @property
    def scored(self) -> slice:
        """Positions whose prediction counts: of the second half, but for the last, whose next token is not there."""
        return slice(self.length // 2, self.length - 1)


def tokens(folder: Path, text: Path) -> tuple[list[int], int | None]:
    """Ids of a text without special ones, and the BOS the tokenizer would put in front, if any."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = tokenizer.encode("").ids
    content = text.read_text("utf-8").removesuffix("\n")  # as llama.cpp reads a prompt's file
    return tokenizer.encode(content, add_special_tokens=False).ids, special[0] if special else None


def cut_text(folder: Path, text: Path, chunks: int, length: int) -> tuple[Cut, list[list[int]]]:
    ids, bos = tokens(folder, text)
    cut = Cut(chunks, length, bos)
    return cut, cut.pieces(ids)


def compare(references: Iterator[Floats], candidate: Logits, pieces: list[list[int]], cut: Cut) -> dict[str, Any]:
    """Divergence over all scored positions; `error` is the standard error of the mean over chunks."""
    from edgeq.measure.divergence import DivergenceMeter

    meter, sums = DivergenceMeter(), [0.0]
    for reference, piece in zip(references, pieces, strict=True):
        targets = np.array(piece[cut.scored.start + 1 : cut.scored.stop + 1])
        meter.add(reference, candidate(piece)[cut.scored], targets)
        so_far = meter.result()
        sums.append(so_far.mean_kl * so_far.tokens)
    result = meter.result()
    each = cut.scored.stop - cut.scored.start
    means = [(b - a) / each for a, b in itertools.pairwise(sums)]
    return {
        "mean_kl": result.mean_kl,
        "error": statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else None,
        "p99_kl": result.p99_kl,
        "top1": result.top1,
        "perplexity": result.perplexity,
        "reference_perplexity": result.reference_perplexity,
        "tokens": result.tokens,
        "broken": result.broken,
    }


def reference_logits(model: Path, pieces: list[list[int]], cut: Cut, file: Path) -> Iterator[Floats]:
    """The float model's scored logits of each chunk; computed once, then read from `file`."""
    if not file.exists():
        run = weights_logits(model)
        unfinished = file.with_suffix(".part.npy")
        first = run(pieces[0])[cut.scored]
        held = np.lib.format.open_memmap(unfinished, "w+", np.float32, (len(pieces), *first.shape))
        for i, piece in enumerate(pieces):
            held[i] = run(piece)[cut.scored]
        held.flush()
        unfinished.rename(file)
    yield from np.load(file, mmap_mode="r")


def weights_logits(ref: Path) -> Logits:
    """A folder, GGUF file or neutral checkpoint, run by edgeq's decoder in float32."""
    import torch

    from edgeq.checkpoint.open import open_weights
    from edgeq.decoder.torch_model import TorchModel

    model = TorchModel(open_weights(ref), dtype=torch.float32, keep=True)
    return model.logits


def onnx_logits(folder: Path) -> Logits:
    """An export of onnxruntime-genai, run by onnxruntime as it stands."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    caches = [i for i in session.get_inputs() if i.name.startswith("past_key_values")]

    def run(piece: list[int]) -> Floats:
        feeds = {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32) for i in caches}
        feeds["input_ids"] = np.array([piece], np.int64)
        feeds["attention_mask"] = np.ones((1, len(piece)), np.int64)
        out: Floats = session.run(["logits"], feeds)[0][0].astype(np.float32)
        return out

    return run


def stored_logits(file: Path) -> Logits:
    """(chunks, tokens, vocabulary) that another program computed, chunk after chunk."""
    rest = iter(np.load(file, mmap_mode="r"))
    return lambda _: next(rest)


ENGINES: dict[str, Callable[[Path], Logits]] = {
    "weights": weights_logits,
    "onnx": onnx_logits,
    "logits": stored_logits,
}


def main() -> None:
    request = json.loads(sys.argv[1])
    model, text = Path(request["model"]), Path(request["text"])
    cut, pieces = cut_text(model, text, request["chunks"], request["length"])
    references = reference_logits(model, pieces, cut, Path(request["reference"]))
    candidate = ENGINES[request["engine"]](Path(request["candidate"]))
    print(json.dumps(compare(references, candidate, pieces, cut)))


if __name__ == "__main__":
    main()
