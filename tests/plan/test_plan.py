from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest

from edgeq.benchmark import Benchmark, Decode, Promise, Samples, device_key
from edgeq.cli.plan_words import speed_lines
from edgeq.device.spec import Accelerator, Figure, KernelRate
from edgeq.errors import EdgeqError
from edgeq.estimate import footprint
from edgeq.jsonable import to_json
from edgeq.model.read import read_model
from edgeq.plan import Request, parse_size
from edgeq.plan.targets import TARGETS
from edgeq.scheme import named_scheme


def test_what_fits_is_ranked_and_what_does_not_says_why(make, laptop_of):
    plan = make(laptop_of(8), "8B")
    assert plan.candidates and plan.rejected
    assert all(c.footprint.total <= c.capacity for c in plan.candidates)
    assert all(c.reasons and c.short for c in plan.rejected)
    large = [c for c in plan.rejected if c.short == "too large"]
    assert large and all(c.footprint.total > c.capacity and "more than the" in c.reasons[0] for c in large)


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


@pytest.mark.parametrize("objective", ["quality", "speed", "size", "balanced"])
def test_objectives_order_as_they_say(make, laptop_of, objective):
    found = make(laptop_of(24), "7B", objective=objective).candidates
    first, others = found[0], [c for c in found if c.quality.kld <= 0.3]
    if objective == "quality":
        assert first.quality.kld == min(c.quality.kld for c in found)
    elif objective == "speed":
        assert first.expected.tps == max(c.expected.tps for c in others)
    elif objective == "size":
        assert first.footprint.total == min(c.footprint.total for c in others)
    else:
        assert first.quality.kld < 0.1 and first.expected.tps > 0.4 * max(c.expected.tps for c in others)


def test_nothing_fits_says_what_would_have_to_give(make, laptop_of):
    plan = make(laptop_of(8), "70B")
    assert not plan.candidates and plan.recommended is None and plan.next_commands == ()
    text = " ".join(plan.relief)
    assert "No context is short enough" in text and "More memory" in text and "Smaller model" in text


def test_a_shorter_context_that_would_fit_does_fit(make, laptop_of):
    """Gemma would take more than its weights for the cache: the context named must fit, 256 tokens more must not."""
    plan = make(laptop_of(8), "llama-3.1-8b", context=131072, targets=("llamacpp/cpu",), kv_dtype="f16")
    assert not plan.candidates
    words = next(r for r in plan.relief if r.startswith("Shorter context")).split()
    context, scheme = int(words[words.index("--context") + 1]), words[words.index("with") + 1]
    spec = read_model("llama-3.1-8b")
    capacity = 8 * 2**30

    def need(tokens):
        return footprint(spec, named_scheme(scheme), "llamacpp/cpu", tokens).total

    assert need(context) <= capacity < need(context + 256)
    assert make(laptop_of(8), "llama-3.1-8b", context=context, targets=("llamacpp/cpu",)).candidates


def test_too_slow_says_how_fast_it_could_be(make, laptop_of):
    plan = make(laptop_of(32), "7B", min_tps=1000)
    assert not plan.candidates
    assert any(r.startswith("Less speed") for r in plan.relief)
    assert {c.short for c in plan.rejected} >= {"too slow"}


def test_min_tps_keeps_only_the_quick_ones(make, laptop_of):
    plan = make(laptop_of(32), "7B", min_tps=5)
    assert plan.candidates and all(c.expected.tps >= 5 for c in plan.candidates)


def test_unknown_bandwidth_never_becomes_a_speed(make, laptop_of):
    plan = make(laptop_of(32, bandwidth=None), "7B", min_tps=5)
    assert plan.candidates
    for c in plan.candidates:
        assert c.expected is None and c.ceiling.decode_tps is None
        assert any("unknown" in r for r in c.reasons)


def test_max_memory_is_kept(make, laptop_of):
    plan = make(laptop_of(32), "7B", max_memory=6 * 10**9)
    assert plan.candidates and all(c.footprint.total <= 6e9 for c in plan.candidates)


def test_a_card_too_small_takes_part_of_the_layers(make, card_of):
    """Harmonic mix: slower than the card alone, faster than the processor alone."""
    plan = make(card_of(6), "14B", targets=("llamacpp/cuda", "llamacpp/cpu"))
    part = next(c for c in plan.candidates if c.scheme.name == "gguf-q4_k_m" and c.target == "llamacpp/cuda")
    alone = next(c for c in plan.candidates if c.scheme.name == "gguf-q4_k_m" and c.target == "llamacpp/cpu")
    assert part.verdict == "offload" and part.offload is not None
    assert 0 < part.offload.layers < part.offload.of == 40
    assert part.offload.gpu_bytes <= 6 * 2**30
    assert alone.ceiling.decode_tps < part.offload.decode_tps < part.ceiling.decode_tps


def test_a_split_is_weighed_against_both_memories(make, card_of):
    """An expert keeps as many layers on the card as it holds: faster than the processor alone, and prompts too."""
    best = make(card_of(8), "8B", context=65536, kv_dtype="q8_0").candidates[0]
    assert best.target == "llamacpp/cuda" and best.offload is not None
    assert best.room == 40 * 2**30 and best.offload.gpu_bytes + best.offload.cpu_bytes == best.footprint.total


def test_each_reader_of_a_batch_counts_not_all_together(make, card_of):
    """Eight readers at 18 tok/s each are not served as well by 16 bits as by six, twice as fast."""
    best = make(card_of(24), "8B", batch=8, targets=("llamacpp/cuda",)).candidates[0]
    assert best.scheme.name != "gguf-f16" and best.offload is None


def test_max_memory_holds_for_card_and_processor_together(make, card_of):
    plan = make(card_of(8), "14B", max_memory=11 * 10**9, targets=("llamacpp/cuda",))
    assert any(c.offload for c in plan.candidates)
    assert all(c.footprint.total <= 11e9 for c in plan.candidates)
    large = next(c for c in plan.rejected if c.scheme.name == "gguf-q8_0")
    assert "the 11.0 GB of card and processor together" in large.reasons[0]


def test_a_graphics_card_is_preferred_for_its_prompts(make):
    """Where processor and card read the same memory, decoding is much the same and the prompt decides."""
    from edgeq.device.catalog import catalog_device

    for device, target in (("dgx-spark", "llamacpp/cuda"), ("m1-max", "llamacpp/metal")):
        assert make(catalog_device(device), "8B").candidates[0].target == target
    assert make(catalog_device("snapdragon-8-elite"), "3B").candidates[0].target == "llamacpp/cpu"


def test_the_last_tenth_of_the_memory_costs(make):
    """8 bits would leave 25 MB of a Raspberry Pi's memory; no one would run that."""
    from edgeq.device.catalog import catalog_device

    plan = make(catalog_device("rpi-5"), "3B")
    assert plan.recommended is not None and plan.recommended.verdict == "fits"
    assert any(c.scheme.name == "rtn-int8-g32" and c.verdict == "tight" for c in plan.candidates)


def test_figures_belong_to_their_target(make, card_of):
    """A processor's candidates are bounded by its memory, a card's by its own, in whatever order targets are judged."""
    device = card_of(24)
    for names in (("llamacpp/cpu", "llamacpp/cuda"), ("llamacpp/cuda", "llamacpp/cpu"), ()):
        for model in ("8B", "30B-A3B", "8B"):
            for c in make(device, model, targets=names).candidates:
                on_card = not c.target.endswith("/cpu")
                assert c.ceiling.bandwidth == (device.accelerators[0] if on_card else device.memory).read_bandwidth
                read = c.ceiling.weight_bytes_read + c.ceiling.kv_bytes_read
                assert c.ceiling.decode_tps == pytest.approx((1000e9 if on_card else 50e9) / read)


def test_a_phone_needs_what_the_same_library_needs_on_a_pc(make, laptop_of):
    def need(os, target):
        found = make(laptop_of(16, os=os), "3B", targets=(target,)).candidates
        return next(c.footprint for c in found if c.scheme.name == "rtn-int8-g32")

    phone, pc = need("Android 15", "onnxruntime/android"), need("Linux", "onnxruntime/cpu")
    assert phone.total == pc.total and (phone.overhead_basis, pc.overhead_basis) == ("as on a PC", "measured")


def test_a_phone_has_no_bench_command(make, laptop_of):
    commands = make(laptop_of(8, os="Android 15"), "0.5B", targets=("onnxruntime/android",)).next_commands
    assert [c.split()[1] for c in commands] == ["quantize", "export"]


def test_fewer_sequences_and_a_smaller_cache_that_would_do_do(make, card_of):
    device = card_of(8, 8)
    asked = {"context": 32768, "batch": 16, "targets": ("llamacpp/cuda", "llamacpp/cpu")}
    plan = make(device, "8B", **asked)
    assert not plan.candidates
    words = next(r for r in plan.relief if r.startswith("Fewer sequences")).split()
    fewer = int(words[words.index("--batch") + 1])
    assert 1 <= fewer < 16
    assert make(device, "8B", **{**asked, "batch": fewer}).candidates
    tight = {"context": 131072, "targets": ("llamacpp/cpu",)}
    small = make(card_of(8, 16), "8B", **tight)
    assert not small.candidates
    words = next(r for r in small.relief if r.startswith("Smaller cache")).split()
    assert make(card_of(8, 16), "8B", kv_dtype=words[words.index("--kv-dtype") + 1], **tight).candidates


def test_a_shorter_context_that_is_quick_enough(make, laptop_of):
    device, asked = laptop_of(32, bandwidth=100e9), {"min_tps": 12.0, "targets": ("llamacpp/cpu",)}
    plan = make(device, "8B", context=65536, **asked)
    assert not plan.candidates
    words = next(r for r in plan.relief if r.startswith("Shorter context")).split()
    context = int(words[words.index("--context") + 1])
    assert 256 <= context < 65536
    assert make(device, "8B", context=context, **asked).candidates


def test_more_memory_counts_card_and_processor(make, card_of):
    plan = make(card_of(8, 8), "70B", targets=("llamacpp/cuda",))
    more = next(r for r in plan.relief if r.startswith("More memory"))
    assert "has 17.2 GB of card and processor together" in more


def test_more_vram_holds_more_layers(make, card_of):
    def layers(vram):
        found = make(card_of(vram), "14B", targets=("llamacpp/cuda",)).candidates
        return next(c.offload.layers for c in found if c.scheme.name == "gguf-q8_0")

    assert layers(6) < layers(8) < layers(12)


def test_targets_need_their_hardware(make, laptop_of):
    absent = dict(make(laptop_of(16), "7B").absent)
    assert "no NVIDIA GPU here" in absent["llamacpp/cuda"]
    assert "Android" in absent["onnxruntime/android"]
    phone = make(laptop_of(8, os="Android 15"), "0.5B")
    assert {c.target for c in phone.candidates} == {"onnxruntime/android", "llamacpp/cpu"}


def test_an_npu_takes_only_its_own_scheme(make, laptop_of):
    device = laptop_of(32, accelerators=(Accelerator("npu", "Intel AI Boost"),))
    plan = make(device, "1B", targets=("openvino/npu",))
    assert [c.scheme.name for c in plan.candidates] == ["gptq-int4-g128-sym"]
    other = laptop_of(32, accelerators=(Accelerator("npu", "Hexagon NPU"),))
    assert "not an Intel NPU" in dict(make(other, "1B").absent)["openvino/npu"]


def test_kv_dtype_is_the_runtimes_where_it_cannot_have_another(make, laptop_of):
    plan = make(laptop_of(32), "7B", kv_dtype="bf16")
    onnx = next(c for c in plan.candidates if c.target == "onnxruntime/cpu")
    assert any("keeps its cache in f32" in r for r in onnx.reasons)
    plan = make(laptop_of(32), "7B", kv_dtype="int8")
    used = {c.target: c.footprint.kv_dtype for c in plan.candidates}
    assert used == {"onnxruntime/cpu": "int8", "openvino/cpu": "int8", "llamacpp/cpu": "q8_0"}
    same = next(c for c in plan.candidates if c.target == "llamacpp/cpu")
    assert not any("keeps its cache" in r for r in same.reasons)  # q8_0 is what llama.cpp calls 8 bits


def test_the_export_command_asks_for_the_cache_that_was_planned(make, laptop_of):
    planned = make(laptop_of(32), "7B", kv_dtype="int8", targets=("onnxruntime/cpu",))
    assert any(c.startswith("edgeq export") and c.endswith(" --kv-dtype int8") for c in planned.next_commands)
    plain = make(laptop_of(32), "7B", targets=("onnxruntime/cpu",))
    assert plain.next_commands and not any("--kv-dtype" in c for c in plain.next_commands)


def test_a_context_beyond_the_models_is_noted(make, laptop_of):
    plan = make(laptop_of(64), "llama-2-7b", context=16384)
    assert any("beyond the 4,096 tokens" in n for n in plan.notes)


def benchmark(device, model, scheme, tps, ceiling_tps=None, context=128, load=0.0):
    runs = Samples.of([tps])
    return Benchmark(
        date="2026-11-01T00:00:00+00:00",
        device=device_key(device),
        target="onnxruntime/cpu",
        model=model,
        family="llama",
        scheme=scheme,
        artifact="a",
        artifact_bytes=1,
        threads=8,
        import_s=0.1,
        load_s=0.1,
        prefill=(),
        decode=Decode(64, context, runs),
        baseline_bytes=1,
        loaded_bytes=1,
        peak_bytes=1,
        load_before=0.0,
        load_during=load,
        promise=Promise(ceiling_tps=ceiling_tps),
    )


def test_a_measurement_here_is_believed_and_brought_to_the_context(make, laptop_of):
    device = laptop_of(16)
    known = (benchmark(device, "meta-llama/llama-3.1-8b", "rtn-int4-g32", 7.0),)
    plan = make(device, "llama-3.1-8b", known, context=160)
    best = next(c for c in plan.candidates if c.scheme.name == "rtn-int4-g32" and c.target == "onnxruntime/cpu")
    assert best.expected.basis == "measured here" and best.expected.tps == pytest.approx(7.0)
    full = make(device, "llama-3.1-8b", known, context=8192)
    slower = next(c for c in full.candidates if c.scheme.name == "rtn-int4-g32" and c.target == "onnxruntime/cpu")
    assert slower.expected.tps < 7.0 and "brought from 160 to 8,192" in slower.expected.detail


def test_other_models_measured_here_teach_the_share(make, laptop_of):
    device = laptop_of(16)
    known = tuple(benchmark(device, "small", "rtn-int4-g32", t, 100.0) for t in (30.0, 40.0, 80.0))
    plan = make(device, "7B", known)
    best = next(c for c in plan.candidates if c.scheme.name == "rtn-int4-g32" and c.target == "onnxruntime/cpu")
    assert best.expected.basis == "learned"
    assert best.expected.tps == pytest.approx(0.4 * best.ceiling.decode_tps)
    eight = next(c for c in plan.candidates if c.scheme.name == "rtn-int8-g32" and c.target == "onnxruntime/cpu")
    assert eight.expected.basis == "prior"


KERNELS = {
    "MatMulNBits-4-g32": 20e9,
    "MatMulNBits-4-g128": 25e9,
    "MatMulNBits-8-g32": 15e9,
    "MatMul-f32": 4e9,
    "GroupQueryAttention": 2e9,
    "glue": 1e9,
    "layer": 4e-5,
    "step": 1e-4,
}


def test_kernels_measured_here_come_before_a_learned_share_and_after_a_measurement(make, laptop_of):
    rates = tuple(KernelRate("onnxruntime/cpu", name, Figure(v, "", "measured")) for name, v in KERNELS.items())
    device = laptop_of(16, kernels=rates)
    learned = benchmark(device, "small", "rtn-int4-g32", 40.0, 100.0)
    measured = benchmark(device, "llama-3.1-8b", "rtn-int4-g32", 2.5)

    def expected(*known):
        found = make(device, "llama-3.1-8b", known, context=160, targets=("onnxruntime/cpu",)).candidates
        return next(c.expected for c in found if c.scheme.name == "rtn-int4-g32")

    assert expected(learned).basis == "kernels measured here"
    assert 1 < expected(learned).tps < 20e9 / 7.5e9
    assert expected(learned, measured).basis == "measured here"


def test_a_benchmark_beside_other_work_counts_only_where_nothing_better_is_known(make, laptop_of):
    rates = tuple(KernelRate("onnxruntime/cpu", name, Figure(v, "", "measured")) for name, v in KERNELS.items())
    plain = laptop_of(16)
    quiet = benchmark(plain, "llama-3.1-8b", "rtn-int4-g32", 6.0, 10.0)
    busy = benchmark(plain, "llama-3.1-8b", "rtn-int4-g32", 1.0, 10.0, load=0.5)  # the later of the two
    other = benchmark(plain, "small", "rtn-int4-g32", 40.0, 100.0)
    busy_other = benchmark(plain, "small", "rtn-int4-g32", 10.0, 100.0, load=0.5)

    def expected(*known, device=plain):
        found = make(device, "llama-3.1-8b", known, context=160, targets=("onnxruntime/cpu",)).candidates
        return next(c.expected for c in found if c.scheme.name == "rtn-int4-g32")

    assert expected(quiet, busy).tps == pytest.approx(6.0)
    assert expected(busy, device=laptop_of(16, kernels=rates)).basis == "kernels measured here"
    assert expected(other, busy_other, busy).detail.startswith("40% of the ceiling, as in 1 benchmark ")
    alone = expected(busy)
    assert (alone.basis, alone.tps) == ("measured here", pytest.approx(1.0)) and "beside other work" in alone.detail
    assert expected(busy_other).basis == "learned"


def test_a_plan_is_json(make, card_of):
    text = json.dumps(to_json(make(card_of(8), "30B-A3B")), allow_nan=False)
    assert json.loads(text)["request"]["context"] == 8192


def test_expected_speed_stays_below_the_ceiling(make, card_of):
    for c in make(card_of(24), "8B").candidates:
        assert c.expected is not None and c.decode_ceiling is not None
        assert 0 < c.expected.tps < c.decode_ceiling


def test_same_input_same_plan(make, laptop_of):
    assert make(laptop_of(16), "7B") == make(laptop_of(16), "7B")


def test_the_verdict_tight_warns_near_the_limit(make, laptop_of):
    device = laptop_of(16)
    fits = next(c for c in make(device, "7B").candidates if c.scheme.name == "gguf-q4_k_m")
    limit = int(fits.footprint.total / 0.95)
    again = make(device, "7B", max_memory=limit).candidates
    assert next(c for c in again if c.scheme.name == "gguf-q4_k_m").verdict == "tight"


@pytest.mark.parametrize(
    ("text", "size"), [("6GB", 6 * 10**9), ("5.5GiB", int(5.5 * 2**30)), ("800 mb", 8 * 10**8), ("4096", 4096)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["potato", "", "-1GB", "6 zebras", "1e3"])
def test_bad_sizes(text):
    with pytest.raises(EdgeqError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("context", 0, "context of 0"),
        ("batch", 0, "0 sequences"),
        ("min_tps", -1.0, "-1 tokens/s"),
        ("min_tps", float("nan"), "tokens/s"),
        ("kv_dtype", "f8", "unknown KV cache dtype"),
        ("objective", "fun", "unknown objective"),
        ("targets", ("llamacpp/abacus",), "unknown target"),
        ("max_memory", 0, "no memory"),
    ],
)
def test_bad_requests(field, value, message):
    with pytest.raises(EdgeqError, match=message) as error:
        Request(**{field: value})
    assert error.value.hint


def test_every_target_judges_every_scheme(laptop_of):
    from edgeq.plan.candidates import schemes

    for target in TARGETS.values():
        for scheme in schemes():
            support = target.support(scheme, laptop_of())
            assert support.level == "fast" or support.reason


def test_a_smaller_batch_never_needs_more(make, laptop_of):
    one = {(c.scheme.name, c.target): c.footprint.total for c in make(laptop_of(64), "7B").candidates}
    four = {(c.scheme.name, c.target): c.footprint.total for c in make(laptop_of(64), "7B", batch=4).candidates}
    assert all(one[k] <= four[k] for k in four)


def test_container_limit_is_the_room_there_is(make, laptop_of):
    device = laptop_of(64)
    limited = replace(device, memory=replace(device.memory, limit_bytes=6 * 2**30))
    assert all(c.capacity == 6 * 2**30 for c in make(limited, "7B").candidates)


def test_the_plan_names_methods_that_there_are():
    """A list of its own, because planning loads not even numpy, which the methods do."""
    from edgeq.plan.candidates import METHODS, TEXTLESS
    from edgeq.quantize.methods import NAMED, find_method

    assert {*NAMED, "none"} >= METHODS >= TEXTLESS
    assert all(not find_method(name).needs for name in TEXTLESS)


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
