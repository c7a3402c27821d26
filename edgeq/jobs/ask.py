"""Ask a question of `edgeq.jobs.questions` in a short-lived process, and wait for its answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.jobs.job import Failure
from edgeq.jsonable import from_json, to_json

_PATIENCE_S = 120.0


def ask(question: str, request: dict[str, Any], *, again: bool = False) -> dict[str, Any]:
    """The answer. Blocks for as long as it takes to import what is needed: call it from a thread.

    Args:
        again: ask anew, though the same was asked before.

    Raises:
        EdgeqError: what the question raised, or that there was no answer.
    """
    if again:
        _answer.cache_clear()
    answer: dict[str, Any] = json.loads(_answer(question, json.dumps(request, sort_keys=True)))
    return answer


@lru_cache(maxsize=64)
def _answer(question: str, request: str) -> str:
    command = [sys.executable, "-P", "-m", "edgeq.jobs.ask", question]
    try:
        done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
        said = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise EdgeqError(
            "no answer in two minutes", where=question, hint="The machine is very busy: try again"
        ) from error
    except (OSError, ValueError) as error:
        raise EdgeqError("no answer", where=question, hint="`edgeq doctor` says what is missing") from error
    if "failure" in said:
        failure = from_json(Failure, said["failure"], question)
        raise EdgeqError(failure.what, where=failure.where, hint=failure.hint)
    return json.dumps(said["answer"])


def main() -> None:
    """Answer on stdout; whatever else is printed goes to stderr."""
    from edgeq.jobs.questions import QUESTIONS
    from edgeq.jobs.worker import failure_of

    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)
        with suppress(KeyboardInterrupt):
            try:
                said = {"answer": QUESTIONS[sys.argv[1]](json.load(sys.stdin))}
            except Exception as error:
                said = {"failure": to_json(failure_of(error))}
            json.dump(said, answer)


if __name__ == "__main__":
    main()
