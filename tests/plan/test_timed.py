"""What the plan says of speeds that whole models were timed for here, beside those it has to guess."""

from __future__ import annotations

from dataclasses import replace

from edgeq.cli.plan_words import speed_lines
from edgeq.device.spec import Figure, KernelRate


def _timed_here(laptop_of, *targets):
    """A laptop where whole models were timed on these targets."""
    rates = {"layer": 50e-6, "attention": 4e9, "attention-prefill": 18e9, "decode-Q4_0": 60e9, "prefill-Q4_0": 115e9}
    rates |= {"narrow-Q4_0": 90e9, "decode-Q8_0": 40e9, "prefill-Q8_0": 116e9}
    kernels = [KernelRate(t, name, Figure(value, "", "measured")) for t in targets for name, value in rates.items()]
    return laptop_of(kernels=tuple(kernels))


def test_a_timed_runtime_says_how_long_a_prompt_takes(make, laptop_of):
    found = make(_timed_here(laptop_of, "llamacpp/cpu"), "1B", targets=("llamacpp/cpu",))
    timed = next(c for c in found.candidates if c.scheme.name == "gguf-q4_0")
    assert timed.expected.basis == timed.expected_prompt.basis == "kernels measured here"
    words = dict(speed_lines(found, timed))
    seconds = timed.ceiling.prompt / timed.expected_prompt.tps
    assert f"the first word of 512 tokens of prompt takes {seconds:.1f} s" in words["prompt"]
    assert "(kernels measured here)" in words["prompt"] and "at most" not in words["prompt"]


def test_a_runtime_that_was_not_timed_says_at_most(make, laptop_of):
    found = make(laptop_of(), "1B", targets=("llamacpp/cpu",))
    assert all(c.expected_prompt is None for c in found.candidates)
    assert "at most" in dict(speed_lines(found, found.candidates[0]))["prompt"]
    assert not any("guess" in note for note in found.notes)  # nothing here is better known


def test_a_guess_before_measured_ones_is_told(make, laptop_of):
    some = make(_timed_here(laptop_of, "llamacpp/cpu"), "1B", targets=("llamacpp/cpu", "openvino/cpu"))
    guessed = some.recommended.expected.basis == "prior"
    assert any(f"the speed of {some.recommended.target} is a guess" in note for note in some.notes) == guessed
    slow = _timed_here(laptop_of, "llamacpp/cpu")
    slow = replace(slow, kernels=tuple(replace(k, figure=replace(k.figure, value=1e8)) for k in slow.kernels))
    told = make(slow, "1B", targets=("llamacpp/cpu", "openvino/cpu"), objective="speed")
    assert told.recommended.target == "openvino/cpu"
    assert any("the speed of openvino/cpu is a guess from other machines" in note for note in told.notes)
