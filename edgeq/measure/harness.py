"""Tasks of EleutherAI's lm-evaluation-harness (the `lm-eval` package), run on any model that edgeq can measure.

The adapter follows the package's `TemplateLM`: log-likelihoods of given answers, of whole texts, and greedy answers
(https://github.com/EleutherAI/lm-evaluation-harness/blob/main/docs/model_guide.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from edgeq.errors import EdgeqError
from edgeq.measure.divergence import log_softmax
from edgeq.measure.model import Measured

LONGEST_ANSWER = 256  # tokens, where a task does not say


def task_names(wanted: str | None) -> tuple[str, ...]:
    """The tasks in a list with commas.

    Raises:
        EdgeqError: lm-eval is not installed.
    """
    names = tuple(n.strip() for n in (wanted or "").split(",") if n.strip())
    if names and find_spec("lm_eval") is None:
        raise EdgeqError("tasks need a package that is not installed: lm-eval", hint="pip install lm-eval")
    return names


def run_tasks(model: Measured, tasks: Sequence[str], *, limit: int | None = None) -> dict[str, dict[str, float]]:
    """The figures of each task, by the package's own names (`acc,none`, `acc_stderr,none`, ...).

    Args:
        limit: questions of each task; None: all.

    Raises:
        EdgeqError: no such task, or its questions can't be had.
    """
    import lm_eval

    try:
        found: Any = lm_eval.simple_evaluate(model=adapter(model), tasks=list(tasks), limit=limit, bootstrap_iters=0)
    except (KeyError, ValueError, OSError, ConnectionError) as error:
        hint = "`lm-eval ls tasks` lists the names; questions are fetched from the hub"
        raise EdgeqError(f"lm-eval can't run the tasks: {str(error)[:160]}", hint=hint) from error
    return {
        task: {name: float(value) for name, value in figures.items() if isinstance(value, (int, float))}
        for task, figures in (found or {}).get("results", {}).items()
    }


def adapter(model: Measured) -> Any:
    """The model as an `lm_eval.api.model.LM`."""
    from lm_eval.api.model import TemplateLM

    class Adapter(TemplateLM):  # type: ignore[misc]
        """One sequence at a time through `Measured.logits`."""

        def __init__(self) -> None:
            super().__init__()
            self.tokens = Scorer(model)

        @property
        def eot_token_id(self) -> int:
            return self.tokens.end

        @property
        def prefix_token_id(self) -> int:
            return self.tokens.start

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            return self.tokens.encode(string)

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
            return [self.tokens.score(context, answer) for _, context, answer in requests]

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            return [self.tokens.score_text(request.args[0]) for request in requests]

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            return [self.tokens.answer(request.args[0], dict(request.args[1])) for request in requests]

    return Adapter()


class Scorer:
    """Log-likelihoods and greedy answers from a model's logits, in tokens."""

    def __init__(self, model: Measured) -> None:
        self._model = model
        self._tokenizer = model.tokenizer()
        ends = [i for i in (self._tokenizer.eos_id, model.bos_id) if i is not None]
        self.end: int = ends[0] if ends else 0
        self.start: int = self.end if model.bos_id is None else model.bos_id

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, special=False)
        return ids

    def score(self, context: Sequence[int], answer: Sequence[int]) -> tuple[float, bool]:
        """The log-likelihood (nats) of an answer after a context, and whether greedy decoding would give it.

        A sequence longer than the model's context loses its beginning, as in the package.
        """
        ids = [*context, *answer][-self._model.max_positions - 1 :]
        rows = log_softmax(self._logits(ids[:-1])[-len(answer) :])
        taken = np.asarray(ids[-len(rows) :])
        return float(rows[np.arange(len(rows)), taken].sum()), bool((rows.argmax(axis=1) == taken).all())

    def score_text(self, text: str) -> float:
        """The log-likelihood of a whole text, in windows of the model's context that do not overlap."""
        ids, longest = self.encode(text), self._model.max_positions
        total, before = 0.0, [self.start]
        for at in range(0, len(ids), longest):
            part = ids[at : at + longest]
            total += self.score(before, part)[0]
            before = part[-1:]
        return total

    def answer(self, prompt: str, options: dict[str, Any]) -> str:
        """Greedy, until one of the stop strings, an end token, or the number of tokens the task allows."""
        stops = options.get("until") or []
        stops = [stops] if isinstance(stops, str) else list(stops)
        most = int(options.get("max_gen_toks", LONGEST_ANSWER))
        room = self._model.max_positions - most
        ids = self.encode(prompt)[-max(1, room) :]
        made: list[int] = []
        for _ in range(most):
            token = int(self._logits([*ids, *made])[-1].argmax())
            if token == self._tokenizer.eos_id:
                break
            made.append(token)
            text = self._tokenizer.decode(made)
            if any(stop and stop in text for stop in stops):
                break
        text = self._tokenizer.decode(made)
        ends = [text.find(stop) for stop in stops if stop and stop in text]
        return str(text[: min(ends)] if ends else text)

    def _logits(self, ids: Sequence[int]) -> Any:
        return next(self._model.logits([ids], lambda _: None))
