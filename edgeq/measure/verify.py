"""`verify`: does the artifact compute what the checkpoint says? Runtimes fail silently, so every export is asked.

The runtime's logits are compared with the reference decoder's on the dequantized checkpoint, on a short varied text and
on random tokens, in one pass and token by token through the runtime's cache. What is left between the two is the
runtime's arithmetic, so it must be small, whatever the quantization cost:

- float activations: float32 rounding and the order of sums, below `FLOAT_LIMITS`.
- int8 activations (an artifact's option `accuracy_level` 4, `activation_bits` 8 or `dynamic_quantization`, or a
  checkpoint with 8-bit activations): every matmul rounds its input to 8 bits per group. SmolLM2-135M, which is as
  sensitive as small models are, shows 0.008 nats on text and 0.14 on random tokens, where no answer is likely and small
  errors turn everything. `INT8_LIMITS` leaves a few times that. A checkpoint with 8-bit activations rounds in the
  reference too, but not to the same codes: float32 and float64 sums decide enough of them otherwise to differ by 0.004
  nats by themselves.
- int8-tensor: dynamic activations with one scale for all tokens of a prompt, where the checkpoint has one a token:
  0.065 nats on text, 0.17 on random tokens.

A quantized KV cache adds its own rounding, which `CACHE_LIMITS` leaves room for. With one scale a channel, fixed for
all tokens, SmolLM2-135M loses 0.003 nats to an int8 cache and 0.3 to an int4 one (0.9 on random tokens), close to
what a fault may cost; caches with a scale a token (u8, u4) lose less. So decoding step by step keeps the limit of its
activations: it reads the same cache.

A graph with one wrong scale, a swapped head or a cache off by one is far outside of either: KL of 1 nat and more.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from edgeq.artifact import MANIFEST, Artifact
from edgeq.checkpoint.weights import Weights
from edgeq.errors import EdgeqError
from edgeq.files import write_json
from edgeq.jsonable import to_json
from edgeq.measure.divergence import Divergence, DivergenceMeter
from edgeq.measure.texts import built_in_texts, chunks, random_tokens
from edgeq.registry import Progress, Session, runtime

if TYPE_CHECKING:
    from edgeq.decoder.torch_model import TorchModel

Array = npt.NDArray[np.float32]
Path = Literal["float", "int8", "int8-tensor"]
RANDOM_TOKENS = 64
CHUNK = 256  # tokens of one pass
STEPS = 24  # tokens decoded one by one


@dataclass(frozen=True, slots=True)
class Limits:
    """What an artifact must keep to pass: mean KL in nats on text (also step by step against one pass), the share of
    positions with the same likeliest token there, and mean KL on random tokens."""

    mean_kl: float
    top1: float
    random_kl: float


FLOAT_LIMITS = Limits(mean_kl=1e-4, top1=0.98, random_kl=1e-3)
INT8_LIMITS = Limits(mean_kl=0.05, top1=0.85, random_kl=0.6)
LIMITS: dict[Path, Limits] = {
    "float": FLOAT_LIMITS,
    "int8": INT8_LIMITS,
    "int8-tensor": Limits(mean_kl=0.25, top1=0.7, random_kl=1.0),
}
# What an artifact's KV cache may add, beside the reference's in float32.
CACHE_LIMITS = {
    "f16": Limits(mean_kl=0.001, top1=0.98, random_kl=0.01),
    "int8": Limits(mean_kl=0.03, top1=0.85, random_kl=0.3),
    "int4": Limits(mean_kl=0.9, top1=0.5, random_kl=1.8),
}
CACHE_LIMITS |= {"bf16": CACHE_LIMITS["int8"], "u8": CACHE_LIMITS["int8"], "u4": CACHE_LIMITS["int4"]}


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification found.

    Attributes:
        verdict: `pass` or `fail`; `reasons` say why it failed.
        path: which limits apply.
        text, random: the artifact against the dequantized checkpoint, on text (None where the session has no
            tokenizer) and on random tokens.
        steps: decoding token by token against one pass, both through the runtime; None where the runtime gives no
            engine to step.
        original: the artifact against the unquantized model, on the text: what quantization cost. None unless asked.
    """

    verdict: Literal["pass", "fail"]
    reasons: tuple[str, ...]
    path: Path
    limits: Limits
    text: Divergence | None
    random: Divergence
    steps: Divergence | None
    original: Divergence | None
    date: str


def verify(
    artifact: Artifact,
    *,
    checkpoint: Weights,
    original: Weights | None = None,
    text: str | None = None,
    tokens: int = 1024,
    kld_limit: float | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Compare the runtime's logits with the reference's, token by token.

    Args:
        checkpoint: what the artifact was exported from.
        original: the unquantized model, for the loss of the quantization itself.
        text: instead of the built-in passages.
        tokens: at most so many of text.
        kld_limit: mean KL on text in nats, instead of the default of the artifact's path.

    Raises:
        EdgeqError: the artifact can't be opened, or is of another model than the checkpoint.
    """
    let_torch_sleep()
    from edgeq.decoder.torch_model import TorchModel

    _check_same_model(artifact, checkpoint.spec.vocab_size, checkpoint.spec.n_layers)
    session = runtime(artifact.runtime).open(artifact)
    try:
        texts = text_sequences(session, artifact, text, tokens)
        noise = random_tokens(checkpoint.spec.vocab_size, min(RANDOM_TOKENS, _context(artifact)))
        count = _Counter(progress, len(texts) * (2 if original else 1) + 2)
        reference = TorchModel(checkpoint)
        on_text = _compare(session, reference, texts, count) if texts else None
        on_noise = _compare(session, reference, [noise], count)
        steps = step_divergence(session, (texts or [noise])[0])
        count("step by step")
        loss = _compare(session, TorchModel(original), texts or [noise], count) if original else None
    finally:
        session.close()
    path = activation_path(artifact)
    limits = limits_of(artifact) if kld_limit is None else replace(limits_of(artifact), mean_kl=kld_limit)
    # Steps and one pass read the same cache: what its dtype costs is not between them.
    reasons = (*judge(on_text, on_noise, limits), *judge_steps(steps, LIMITS[path] if kld_limit is None else limits))
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return Verification("fail" if reasons else "pass", reasons, path, limits, on_text, on_noise, steps, loss, date)


def judge(text: Divergence | None, noise: Divergence, limits: Limits) -> Iterator[str]:
    """What is outside the limits, in words."""
    for what, found, limit in (("text", text, limits.mean_kl), ("random tokens", noise, limits.random_kl)):
        if found is None:
            continue
        if found.broken:
            yield f"on {what} {found.broken} of {found.tokens} positions have logits that are not numbers"
        elif found.mean_kl > limit:
            yield f"on {what} the mean KL divergence is {found.mean_kl:.2g} nats, the limit {limit:.2g}"
    if text is not None and text.top1 < limits.top1:
        yield f"the likeliest token agrees at {text.top1:.1%} of positions, the limit is {limits.top1:.0%}"


def judge_steps(steps: Divergence | None, limits: Limits) -> Iterator[str]:
    if steps is not None and steps.mean_kl > limits.mean_kl:
        yield f"decoding step by step differs from one pass by {steps.mean_kl:.2g} nats, the limit {limits.mean_kl:.2g}"


def activation_path(artifact: Artifact) -> Path:
    """Whether the artifact's matmuls round their inputs to 8 bits, and what shares a scale; its options say so."""
    options = artifact.options
    if options.get("activations") and options.get("activation_scales") == "tensor":
        return "int8-tensor"
    rounds = (
        int(options.get("accuracy_level") or 0) == 4
        or int(options.get("activation_bits") or 32) == 8
        or int(options.get("dynamic_quantization") or 0) > 0
        or bool(options.get("activations"))
    )
    return "int8" if artifact.scheme not in ("fp32", "fp16", "bf16") and rounds else "float"


def limits_of(artifact: Artifact) -> Limits:
    """Of its activations' path, and what its cache's dtype may add."""
    limits, cache = LIMITS[activation_path(artifact)], CACHE_LIMITS.get(str(artifact.options.get("kv_dtype")))
    if cache is None:
        return limits
    return Limits(limits.mean_kl + cache.mean_kl, min(limits.top1, cache.top1), limits.random_kl + cache.random_kl)


def record(artifact: Artifact, verification: Verification) -> Artifact:
    """Write the verification into the artifact's manifest."""
    kept = replace(artifact, verify=to_json(verification))
    write_json(artifact.path / MANIFEST, kept.to_json())
    return kept


def text_sequences(session: Session, artifact: Artifact, text: str | None, tokens: int) -> list[list[int]]:
    """The text as sequences of tokens within the model's context, `tokens` in all; none without a tokenizer."""
    tokenizer: Any = getattr(session, "tokenizer", None)
    if tokenizer is None:
        return []
    ids = list(tokenizer.encode(text if text is not None else "\n\n".join(built_in_texts())))
    found = chunks(ids[:tokens], min(CHUNK, _context(artifact)))
    if not found:
        raise EdgeqError("the text is too short to compare on", hint="Give two tokens or more")
    return found


def step_divergence(session: Session, ids: Sequence[int]) -> Divergence | None:
    """Half of the tokens in one pass, the rest one by one, against all of them in one pass, on the same runtime."""
    engine: Any = getattr(session, "engine", None)
    if engine is None:
        return None
    ids = list(ids)[: 2 * STEPS]
    start = max(1, len(ids) // 2)
    whole = session.logits(ids)
    engine.rewind(0)  # what is fed now is again `ids`, so that the session's view of the cache stays true
    rows = [np.array(engine.prefill(ids[at : min(at + engine.chunk, start)])) for at in range(0, start, engine.chunk)]
    steps = [rows[-1], *(np.array(engine.decode(token)) for token in ids[start:])]
    meter = DivergenceMeter()
    meter.add(whole[start - 1 :], np.stack(steps))
    return meter.result()


def _compare(session: Session, reference: TorchModel, sequences: list[list[int]], count: _Counter) -> Divergence:
    meter = DivergenceMeter()
    for ids in sequences:
        targets = np.array([*ids[1:], -1])
        meter.add(reference.logits(ids), _logits(session, ids), targets)
        count("comparing")
    return meter.result()


def _logits(session: Session, ids: Sequence[int]) -> Array:
    found = session.logits(ids)
    if found.ndim != 2 or found.shape[0] != len(ids):
        raise EdgeqError(f"the runtime gave logits of shape {found.shape} for {len(ids)} tokens")
    return found


def let_torch_sleep() -> None:
    """Have torch's idle OpenMP threads sleep instead of spin, where torch is not loaded yet.

    Two pools take turns here, torch's and the runtime's, and spinning threads of the one take the cores of the other:
    on two busy cores a verification took three times as long.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _check_same_model(artifact: Artifact, vocab_size: int, layers: int) -> None:
    for name, value in (("vocab_size", vocab_size), ("layers", layers)):
        if artifact.model.get(name, value) != value:
            raise EdgeqError(
                f"the artifact has {name} {artifact.model[name]}, the checkpoint {value}: they are different models",
                where=artifact.path,
                hint="Give the checkpoint it was exported from",
            )


def _context(artifact: Artifact) -> int:
    return int(artifact.model.get("max_positions", CHUNK))


class _Counter:
    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, what: str) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total, what)
