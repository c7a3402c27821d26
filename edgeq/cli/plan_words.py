"""The sentences and figures of the plan's report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.markup import escape

from edgeq.amounts import count
from edgeq.device.spec import Accelerator, Device, Figure
from edgeq.estimate.buffers import CHUNK
from edgeq.estimate.gguf_header import header
from edgeq.estimate.kv import kv_bytes_per_token, state_bytes
from edgeq.estimate.onnx_file import onnx_data_bytes
from edgeq.estimate.pool import pool
from edgeq.model.spec import Attention, LatentAttention, ModelSpec
from edgeq.plan.candidate import Candidate
from edgeq.plan.obstacle import obstacle
from edgeq.plan.plan import Plan
from edgeq.plan.request import Request
from edgeq.plan.words import duration, gb, speed, tokens


def device_line(device: Device) -> str:
    """Processor, memory and bandwidth, each accelerator after them; markup."""
    memory, processor = device.memory, device.cpu
    chips = [(chip.name, _chip(chip)) for chip in device.accelerators]
    host = f"{memory.usable_bytes / 1e9:.1f} GB of memory free, {bandwidth(memory.read_bandwidth)}"
    threads = f"{processor.threads} thread{'s' if processor.threads != 1 else ''}"
    name = processor.name if device.origin == "local" else device.name
    own = next((text for chip, text in chips if chip == name), None)
    others = "".join(f"; {chip}{text}" for chip, text in chips if chip != name)
    if own is not None:  # a catalog's graphics card: it comes first, the machine around it after
        return f"[bold]{escape(name)}[/]{escape(own)}, in a machine with {threads}, {escape(host + others)}"
    return f"[bold]{escape(name)}[/], {threads}, {escape(host + others)}"


def _chip(chip: Accelerator) -> str:
    return f" with {chip.memory_bytes / 1e9:.1f} GB, {bandwidth(chip.read_bandwidth)}" if chip.memory_bytes else ""


def bandwidth(figure: Figure | None) -> str:
    if figure is None:
        return "read bandwidth unknown"
    return f"reads {figure.value / 1e9:.0f} GB/s ({figure.basis})"


def model_line(plan: Plan) -> str:
    """Name, size and shape; markup."""
    spec = plan.model
    total = f"{count(plan.parameters)} parameters"
    if plan.active_parameters < 0.95 * plan.parameters:
        total += f", {count(plan.active_parameters)} active"
    kinds = "tied embedding, " if spec.tied else ""
    source = f" [dim]({escape(_stands_for(spec))})[/]" if spec.origin == "class" else ""
    shape = f"{spec.n_layers} layers, {kinds}made for {tokens(spec.max_positions)}"
    return f"[bold]{escape(spec.name)}[/], {total}, {shape}{source}"


def _stands_for(spec: ModelSpec) -> str:
    """What a size or short name was taken to mean: the model whose shape is used."""
    return f"the shape of {spec.location}" if spec.location else "a reference architecture"


def asked(request: Request) -> str:
    parts = [f"{tokens(request.context)} of context"]
    if request.batch > 1:
        parts.append(f"{request.batch} sequences at once")
    if request.min_tps is not None:
        parts.append(f"at least {request.min_tps:g} tok/s")
    if request.max_memory is not None:
        parts.append(f"at most {gb(request.max_memory)}")
    if request.kv_dtype is not None:
        parts.append(f"{request.kv_dtype} cache")
    return ", ".join(parts)


def why(plan: Plan, c: Candidate) -> str:
    """The advice in two or three sentences."""
    need = c.footprint.total
    where = f"the card's {gb(c.capacity)}" if _dedicated(plan, c) else f"the {gb(c.capacity)} there is"
    if c.offload:
        first = (
            f"{c.offload.layers} of {c.offload.of} layers fit the card; the other {gb(c.offload.cpu_bytes)} "
            "stay with the processor."
        )
    else:
        room = "with room to spare" if need < 0.7 * c.capacity else "with little to spare"
        first = f"It takes {gb(need)} of {where}, {room}."
    pace = _expect(plan, c)
    loss = f" Expected loss of quality: {c.quality.words} (KL divergence about {c.quality.kld:.2g})."
    remarks = "".join(f" {r[:1].upper()}{r[1:]}." for r in c.reasons if not r.endswith("on the processor"))
    return first + pace + loss + remarks + _better(plan, c)


def nothing(plan: Plan) -> str:
    """What is said of a plan without candidates."""
    fast_enough = all(c.footprint.total > c.capacity for c in plan.rejected)
    return "Nothing fits." if fast_enough or not plan.rejected else "Nothing meets what was asked."


def verdict(plan: Plan, c: Candidate) -> str:
    """Why a candidate is in, and what it takes and gives; or why it is out, with the way out."""
    against = obstacle(plan, c)
    if against is None:
        return why(plan, c)
    what = f"{against.head}: {against.reason}. {against.hint}."
    return f"{what}\n\n{why(plan, c)}" if c.fits else what


def _expect(plan: Plan, c: Candidate) -> str:
    if c.expected is None:
        return " How fast it will be is unknown."
    batch = plan.request.batch
    each = c.expected.tps / batch
    first = c.expected_short.tps / batch if c.expected_short else each
    all_of_them = " for each sequence" if batch > 1 else ""
    if first < 1.15 * each:
        return f" Expect about {speed(each)}{all_of_them}, {_pace(each)}."
    later = f"{speed(each)} once all {tokens(plan.request.context)} are in use"
    return f" Expect about {speed(first)}{all_of_them} at first, {_pace(first)}, and {later}."


def _dedicated(plan: Plan, c: Candidate) -> bool:
    memory = pool(plan.device, c.target)
    return memory is not None and memory.dedicated and plan.request.max_memory is None


def _pace(tps: float) -> str:
    if tps < 3:
        return "slower than reading aloud"
    if tps < 8:
        return "about as fast as slow reading"
    return "as fast as reading" if tps < 20 else "faster than reading"


def _better(plan: Plan, c: Candidate) -> str:
    first = plan.candidates[0]
    if first is c or first.not_yet is None:
        return ""
    pace = f"about {speed(first.expected.tps / plan.request.batch)}, " if first.expected else ""
    return (
        f" {first.scheme.name} on {first.target} would do better ({pace}{gb(first.footprint.total)}, "
        f"loss {first.quality.words}), but {first.not_yet}."
    )


_RUNTIME_WORDS = {
    "measured": "libraries, tokenizer, what the kernels copy (as measured)",
    "as on a PC": "libraries, tokenizer, what the kernels copy (as on a PC)",
    "assumed": "libraries and contexts, assumed",
}


def arithmetic(plan: Plan, c: Candidate) -> Iterator[tuple[str, str, str]]:
    """(part, amount, how it comes about) of the memory, the total last."""
    need, request = c.footprint, plan.request
    bits = f"{count(plan.parameters)} weights at {c.bits_per_weight:.2f} bits"
    yield "weights", gb(need.weights), bits + _file_words(plan, c)
    yield "KV cache", gb(need.kv_cache), _cache_words(plan, c)
    yield "buffers", gb(need.activations), f"a prompt is read {min(CHUNK, request.context)} tokens at a time"
    yield "runtime", gb(need.overhead), _RUNTIME_WORDS[need.overhead_basis]
    if c.offload:
        split = f"{gb(c.offload.gpu_bytes)} on the card, {gb(c.offload.cpu_bytes)} with the processor"
        yield "total", gb(need.total), split
    else:
        yield "total", gb(need.total), f"of {gb(c.capacity)}: {gb(c.capacity - need.total)} to spare"


def _file_words(plan: Plan, c: Candidate) -> str:
    if c.scheme.gguf_type:
        return ", the file to the byte" if header(plan.model).exact else ", with the file's header"
    whole = c.target.startswith("onnxruntime") and onnx_data_bytes(plan.model, c.scheme) is not None
    return ", the file to the byte" if whole else ""


def _cache_words(plan: Plan, c: Candidate) -> str:
    spec, request = plan.model, plan.request
    each = kv_bytes_per_token(spec, kv_dtype=c.footprint.kv_dtype, target=c.target)
    if each == 0:
        return "recurrent state only, the same at any context"
    words = f"{tokens(request.context)} x {each:,} bytes, {c.footprint.kv_dtype}"
    if request.batch > 1:
        words += f", x {request.batch} sequences"
    held = each * request.context * request.batch
    if any(isinstance(x.mixer, Attention) and x.mixer.window for x in spec.layers):
        words += (
            "; sliding layers keep their window" if c.footprint.kv_cache < held else "; kept whole for sliding layers"
        )
    if any(isinstance(x.mixer, LatentAttention) for x in spec.layers):
        words += "; latent attention"
    return words + ("; and recurrent state" if state_bytes(spec) else "")


def speed_lines(plan: Plan, c: Candidate) -> Iterator[tuple[str, str]]:
    bound, batch = c.ceiling, plan.request.batch
    together = " in all" if batch > 1 else ""
    each_token = bound.weight_bytes_read + bound.kv_bytes_read
    if c.offload and c.offload.decode_tps:
        yield "at most", f"{speed(c.offload.decode_tps)}: card and processor read their parts in turn"
    elif bound.decode_tps and bound.bandwidth:
        times, step = (f"{batch} x ", "for one token of each sequence") if batch > 1 else ("", "a token")
        yield (
            "at most",
            (
                f"{speed(bound.decode_tps)}{together} = {times}{bound.bandwidth.value / 1e9:.1f} GB/s "
                f"({bound.bandwidth.basis}) / {gb(each_token)} read {step}, the context full; "
                f"{speed(bound.decode_tps_empty)} when it is empty"
            ),
        )
    if c.expected:
        yield "expected", f"{speed(c.expected.tps)}{together} ({c.expected.basis}): {c.expected.detail}"
    if c.expected_prompt:
        seconds = _seconds(bound.prompt / c.expected_prompt.tps)
        first = f"the first word of {tokens(bound.prompt)} of prompt takes {seconds}"
        yield "prompt", f"{speed(c.expected_prompt.tps)} ({c.expected_prompt.basis}): {first}"
    elif bound.prefill_tps and bound.ttft_s:
        first = f"the first word of {bound.prompt} tokens of prompt takes {_seconds(bound.ttft_s)} or more"
        yield "prompt", f"at most {speed(bound.prefill_tps)}: {first}"
    for reason in bound.missing:
        yield "unknown", reason
    quality = "published" if c.quality.kind == "published" else c.quality.kind
    yield "quality", f"KL divergence about {c.quality.kld:.2g}, {quality}: {c.quality.source}"
    needs = c.footprint.quantization
    if c.scheme.method not in {"none", "llama.cpp"}:
        hours = f", about {duration(needs.hours)}" if needs.hours is not None else ""
        yield "to make it", f"{gb(needs.ram)} of memory, {gb(needs.disk)} of disk{hours}"


def _seconds(s: float) -> str:
    return f"{s * 1000:.0f} ms" if s < 1 else f"{s:.1f} s" if s < 20 else duration(s / 3600)


def out_lines(plan: Plan) -> Iterator[str]:
    """Rejected candidates grouped by reason, and the targets this device can't run."""
    for short, members in _alike(plan.rejected):
        yield f"{_named(members)}: {short}{_example(short, members)}."
    absent: dict[str, list[str]] = {}
    for name, reason in plan.absent:
        if plan.request.targets or not name.endswith("/android"):
            absent.setdefault(reason, []).append(name)
    if absent:
        yield "; ".join(f"{', '.join(names)}: {reason}" for reason, names in absent.items()) + "."


def _alike(rejected: Sequence[Candidate]) -> Iterator[tuple[str, list[Candidate]]]:
    """Candidates out for one reason, targets together that lose the very same schemes."""
    by_target: dict[tuple[str, str], list[Candidate]] = {}
    for c in rejected:
        by_target.setdefault((c.short, c.target), []).append(c)
    same: dict[tuple[str, frozenset[str]], list[Candidate]] = {}
    for (short, _), members in by_target.items():
        same.setdefault((short, frozenset(c.scheme.name for c in members)), []).extend(members)
    for (short, _), members in same.items():
        yield short, members


def _example(short: str, members: list[Candidate]) -> str:
    if short not in {"too large", "too slow"}:
        return ""
    nearest = min(members, key=lambda c: c.footprint.total)
    who = "it" if len(members) == 1 else f"{nearest.scheme.name} on {nearest.target}"
    return f"; {who} {nearest.reasons[0]}" if short == "too large" else f"; {who}: {nearest.reasons[0]}"


def _named(members: list[Candidate]) -> str:
    """`fp32, fp16 on openvino/cpu, onnxruntime/cpu`."""
    names = list(dict.fromkeys(c.scheme.name for c in members))
    targets = list(dict.fromkeys(c.target for c in members))
    listed = ", ".join(names) if len(names) <= 5 else f"{', '.join(names[:4])} and {len(names) - 4} more"
    return f"{listed} on {', '.join(targets)}"
