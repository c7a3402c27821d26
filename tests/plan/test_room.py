"""Whether it fits: one memory or two, what is near the limit, and what would have to give."""

from __future__ import annotations

from dataclasses import replace

from edgeq.estimate import footprint
from edgeq.model.read import read_model
from edgeq.scheme import named_scheme


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


def test_the_last_tenth_of_the_memory_costs(make):
    """8 bits would leave 25 MB of a Raspberry Pi's memory; no one would run that."""
    from edgeq.device.catalog import catalog_device

    plan = make(catalog_device("rpi-5"), "3B")
    assert plan.recommended is not None and plan.recommended.verdict == "fits"
    assert any(c.scheme.name == "rtn-int8-g32" and c.verdict == "tight" for c in plan.candidates)


def test_a_phone_needs_what_the_same_library_needs_on_a_pc(make, laptop_of):
    def need(os, target):
        found = make(laptop_of(16, os=os), "3B", targets=(target,)).candidates
        return next(c.footprint for c in found if c.scheme.name == "rtn-int8-g32")

    phone, pc = need("Android 15", "onnxruntime/android"), need("Linux", "onnxruntime/cpu")
    assert phone.total == pc.total and (phone.overhead_basis, pc.overhead_basis) == ("as on a PC", "measured")


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


def test_the_verdict_tight_warns_near_the_limit(make, laptop_of):
    device = laptop_of(16)
    fits = next(c for c in make(device, "7B").candidates if c.scheme.name == "gguf-q4_k_m")
    limit = int(fits.footprint.total / 0.95)
    again = make(device, "7B", max_memory=limit).candidates
    assert next(c for c in again if c.scheme.name == "gguf-q4_k_m").verdict == "tight"


def test_a_smaller_batch_never_needs_more(make, laptop_of):
    one = {(c.scheme.name, c.target): c.footprint.total for c in make(laptop_of(64), "7B").candidates}
    four = {(c.scheme.name, c.target): c.footprint.total for c in make(laptop_of(64), "7B", batch=4).candidates}
    assert all(one[k] <= four[k] for k in four)


def test_container_limit_is_the_room_there_is(make, laptop_of):
    device = laptop_of(64)
    limited = replace(device, memory=replace(device.memory, limit_bytes=6 * 2**30))
    assert all(c.capacity == 6 * 2**30 for c in make(limited, "7B").candidates)
