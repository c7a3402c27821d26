"""The commands that a plan ends with: what edgeq makes, and what it doesn't yet."""

from __future__ import annotations

import itertools

import pytest

from edgeq.scheme import named_scheme


def test_recommended_is_what_edgeq_can_make_and_its_commands_exist(make, laptop_of):
    from edgeq.cli.main import COMMANDS

    plan = make(laptop_of(16), "7B", targets=("onnxruntime/cpu",))
    best = plan.recommended
    assert best is not None and best.not_yet is None and best.target == "onnxruntime/cpu"
    assert best.scheme.method != "smoothquant"
    assert [c.split()[1] for c in plan.next_commands] == ["quantize", "export", "bench"]
    assert all(c.split()[1] in COMMANDS for c in plan.next_commands)
    assert "Qwen/Qwen2.5-7B" in plan.next_commands[0]


def test_a_type_of_llama_cpp_is_made_by_its_name(make, laptop_of):
    from edgeq.recipe import Recipe, recipe_for

    plan = make(laptop_of(16), "7B", targets=("llamacpp/cpu",))
    best = plan.recommended
    assert best is not None and best.not_yet is None and best.scheme.gguf_type is not None
    quantize, export, bench = plan.next_commands
    grid = f"gguf-{best.scheme.gguf_type.lower()}"
    assert f" --grid {grid} -o Qwen2.5-7B-Instruct-{best.scheme.name}" in quantize
    assert export == f"edgeq export Qwen2.5-7B-Instruct-{best.scheme.name} --to gguf"
    assert bench == f"edgeq bench Qwen2.5-7B-Instruct-{best.scheme.name}-gguf"
    recipe = recipe_for("m", best.scheme)
    assert isinstance(recipe, Recipe) and recipe.grid == grid
    assert all(c.not_yet for c in make(laptop_of(16), "7B").candidates if c.target == "llamacpp/cuda")


def test_a_model_that_a_gguf_cannot_say_has_no_command(make, laptop_of):
    found = make(laptop_of(16), "gemma-3-1b", targets=("llamacpp/cpu",)).candidates
    assert found and all(
        c.not_yet is None for c in found if c.scheme.linear.kind == "gguf" and c.scheme.name != "gguf-f16"
    )
    found = make(laptop_of(64), "deepseek-v2-lite", targets=("llamacpp/cpu",)).candidates
    assert found and all(c.not_yet for c in found)


@pytest.mark.parametrize(
    ("target", "export", "artifact"),
    [("onnxruntime/cpu", "", "-onnx"), ("openvino/cpu", " --to openvino", "-openvino")],
)
def test_the_commands_export_to_the_target(make, laptop_of, target, export, artifact):
    commands = make(laptop_of(16), "7B", targets=(target,)).next_commands
    folder = commands[0].split()[-1]
    assert commands[1:] == (f"edgeq export {folder}{export}", f"edgeq bench {folder}{artifact}")


def test_the_command_makes_the_scheme_that_was_planned(make, laptop_of):
    """Its options, read by `edgeq quantize`, give back the scheme's name."""
    from edgeq.recipe import Recipe

    plan = make(laptop_of(16), "7B", objective="size", targets=("onnxruntime/cpu",))
    words = plan.next_commands[0].split()
    options = {k.removeprefix("--").replace("-", "_"): v for k, v in itertools.pairwise(words) if "--" in k}
    recipe = Recipe(
        words[2],
        method=options.get("method", "rtn"),
        bits=int(options["bits"]),
        group_size=int(options["group_size"]),
        symmetric="--symmetric" in words,
    )
    assert plan.recommended is not None
    assert recipe.scheme == plan.recommended.scheme


def test_other_methods_are_planned_but_marked(make, laptop_of):
    plan = make(laptop_of(16), "7B")
    methods = {c.scheme.method for c in plan.candidates}
    assert {"rtn", "gptq", "awq", "awq+gptq", "autoround", "hqq", "smoothquant", "llama.cpp"} <= methods
    assert all(c.not_yet for c in plan.candidates if c.scheme.linear.kind == "float")
    onnx = {c.scheme.method for c in plan.candidates if c.target == "onnxruntime/cpu" and c.not_yet is None}
    assert {"rtn", "gptq", "awq", "awq+gptq", "autoround", "hqq", "smoothquant"} <= onnx


def test_a_model_the_decoder_cannot_run_has_no_command(make, laptop_of):
    plan = make(laptop_of(64), "deepseek-v2-lite")
    assert plan.candidates and plan.next_commands == ()
    onnx = [c for c in plan.candidates if c.target == "onnxruntime/cpu" and c.scheme.method == "rtn"]
    assert onnx and "softmax attention" in str(onnx[0].not_yet)


def test_a_mixture_is_made_like_a_dense_model(make, laptop_of):
    for name in ("qwen3-30b-a3b", "mixtral-8x7b", "gpt-oss-20b"):
        found = make(laptop_of(64), name)
        made = {c.scheme.method for c in found.candidates if c.target == "onnxruntime/cpu" and c.not_yet is None}
        assert {"rtn", "gptq", "awq"} <= made, name
        assert found.next_commands


def test_a_mixture_is_not_smoothed(make, laptop_of):
    from edgeq.plan.candidates import not_yet

    spec = make(laptop_of(64), "qwen3-30b-a3b").model
    assert "smooths" in str(not_yet(spec, named_scheme("w8a8-smooth"), "onnxruntime/cpu"))


def test_a_phone_has_no_bench_command(make, laptop_of):
    commands = make(laptop_of(8, os="Android 15"), "0.5B", targets=("onnxruntime/android",)).next_commands
    assert [c.split()[1] for c in commands] == ["quantize", "export"]


def test_the_export_command_asks_for_the_cache_that_was_planned(make, laptop_of):
    planned = make(laptop_of(32), "7B", kv_dtype="int8", targets=("onnxruntime/cpu",))
    assert any(c.startswith("edgeq export") and c.endswith(" --kv-dtype int8") for c in planned.next_commands)
    plain = make(laptop_of(32), "7B", targets=("onnxruntime/cpu",))
    assert plain.next_commands and not any("--kv-dtype" in c for c in plain.next_commands)


def test_the_plan_names_methods_that_there_are():
    """A list of its own, because planning loads not even numpy, which the methods do."""
    from edgeq.plan.candidates import METHODS, TEXTLESS
    from edgeq.quantize.methods import NAMED, find_method

    assert {*NAMED, "none"} >= METHODS >= TEXTLESS
    assert all(not find_method(name).needs for name in TEXTLESS)
