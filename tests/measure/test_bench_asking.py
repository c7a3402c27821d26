"""What is measured, as it is typed."""

from __future__ import annotations

import pytest

from edgeq.errors import EdgeqError
from edgeq.measure.asking import changed, options, typed
from edgeq.measure.bench import Workload


def test_each_field_is_read_and_said_again():
    work = Workload()
    assert [typed(work, n) for n in ("prompt_tokens", "tokens", "reps", "threads")] == ["32,128,512", "128", "5", ""]
    assert options(work) == []
    for name, text in (("prompt_tokens", "8,16"), ("tokens", "16"), ("reps", "2"), ("threads", "1")):
        work = changed(work, name, f" {text} ")
        assert typed(work, name) == text
    assert work == Workload((8, 16), 16, 16, 2, 1), "the prompt before the answer is no longer than the answer"
    assert options(work) == ["--prompt-tokens", "8,16", "--tokens", "16", "--reps", "2", "--threads", "1"]
    assert changed(work, "threads", "").threads is None
    assert changed(work, "tokens", "256").context == Workload().context


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("prompt_tokens", "8,x", "prompt lengths"),
        ("prompt_tokens", "", "prompt lengths"),
        ("prompt_tokens", "0", "prompt lengths"),
        ("tokens", "", "a number"),
        ("tokens", "0", "a number"),
        ("reps", "-1", "a number"),
        ("threads", "two", "a number"),
    ],
)
def test_what_can_not_be_measured_is_refused(name, text, said):
    with pytest.raises(EdgeqError, match=said):
        changed(Workload(), name, text)
