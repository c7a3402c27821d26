"""A report as Markdown: short tables, the recipe, the programs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from edgeq.amounts import amount
from edgeq.benchmark import Benchmark, Promise
from edgeq.deliver.report import Report, not_told
from edgeq.deliver.ways import Way
from edgeq.quantize.layer_rows import LayerRow

Cells = Sequence[str]


def markdown(report: Report) -> Iterator[str]:
    """The lines."""
    yield f"# {cell(report.title)}"
    yield ""
    yield f"Written by edgeq {report.edgeq} on {report.date[:10]}. Every file was compared with its checksum then."
    yield from _section("The artifact", _pairs(report.rows))
    if report.choice is not None:
        yield from _section("Device and model", _pairs([*report.choice.device, *report.choice.model]))
        yield from _section("The choice", _pairs(report.choice.chosen))
        if report.choice.others:
            yield from _section("Other candidates", table(("candidate", "expected"), report.choice.others))
    if report.quantization:
        yield from _section("Quantization", _pairs(report.quantization))
    if report.worst:
        yield from _section("Matrices that are furthest off", _worst(report.worst))
    if report.recipe is not None:
        yield from _section("Recipe", fenced(report.recipe, "toml"))
    if report.verify:
        yield from _section("Proof", _proof(report.verify))
    if report.benchmark is not None:
        yield from _section("Measured", _measured(report.benchmark, report.promise))
    for way in report.ways:
        yield from _section(f"Load it: {way.title}", _way(way))
    yield from _section("Do it again", fenced("\n".join(report.commands), "bash"))
    yield from _section("Files", table(("file", "bytes", "sha256"), _files(report)))
    if missing := list(not_told(report)):
        yield from _section("Not in this report", (f"- {cell(line)}" for line in missing))


def cell(text: str) -> str:
    """A text that stays in its cell and is no markup."""
    return re.sub(r"([\\|`*_<\[\]#])", r"\\\1", " ".join(text.split()))


def table(head: Cells, rows: Iterable[Cells]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell(str(text)) for text in row)} |"


def fenced(code: str, language: str) -> Iterator[str]:
    """A block whose fence is longer than any in it."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`+", code) or [""]))
    yield f"{fence}{language}"
    yield from code.rstrip("\n").split("\n")
    yield fence


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield ""
    yield f"## {title}"
    yield ""
    yield from lines


def _pairs(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    return table(("", ""), rows)


def _way(way: Way) -> Iterator[str]:
    yield cell(f"{way.install} ({way.versions})")
    if way.note:
        yield ""
        yield cell(way.note)
    yield ""
    yield from fenced(way.code, way.language)


def _worst(rows: Iterable[LayerRow]) -> Iterator[str]:
    head = ("matrix", "grid", "bits", "weights", "output, to nearest", "output, as stored", "fell back")

    def show(value: float | None) -> str:
        return "" if value is None else f"{value:.3g}"

    return table(
        head,
        (
            (
                r.name,
                r.grid,
                f"{r.bits:.2f}",
                *map(show, (r.weight_error, r.error_before, r.error_after)),
                r.fallback or "",
            )
            for r in rows
        ),
    )


def _proof(verify: dict[str, object]) -> Iterator[str]:
    yield f"Verdict: **{cell(str(verify.get('verdict', 'unknown')))}**."
    reasons = verify.get("reasons")
    yield from (f"- {cell(str(reason))}" for reason in (reasons if isinstance(reasons, list) else ()))
    found = [
        (name, verify[name]) for name in ("text", "random", "steps", "original") if isinstance(verify.get(name), dict)
    ]
    if not found:
        return
    yield ""
    names = ("tokens", "mean_kl", "p99_kl", "max_kl", "top1")
    head = ("against the checkpoint", "tokens", "mean KL", "p99 KL", "max KL", "top-1")
    yield from table(head, ((name, *(_number(d, n) for n in names)) for name, d in found))


def _number(values: object, name: str) -> str:
    value = values.get(name) if isinstance(values, dict) else None
    return f"{value:.4g}" if isinstance(value, int | float) else ""


def _measured(b: Benchmark, promise: Promise | None) -> Iterator[str]:
    said = promise or Promise()
    yield f"{cell(b.device)}, {b.date[:10]}, {b.threads or 'default'} threads."
    yield ""
    rows: list[Cells] = [_beside("decode, tok/s", b.decode.tps.median, said.decode_tps)]
    for one in b.prefill:
        promised = said.prefill_tps if said.prefill_tokens == one.tokens else None
        rows.append(_beside(f"prefill of {one.tokens}, tok/s", one.tps.median, promised))
    memory = None if said.memory_bytes is None else said.memory_bytes / 1e6
    rows.append(_beside("memory at the peak, MB", b.peak_bytes / 1e6, memory))
    rows.append(("load, s", f"{b.load_s:.2f}", "", ""))
    yield from table(("", "measured", "promised", "ratio"), rows)
    yield from ("", *(f"- {cell(line)}" for line in b.warnings)) if b.warnings else ()


def _beside(name: str, measured: float, promised: float | None) -> Cells:
    ratio = f"{measured / promised:.2f}" if promised else ""
    return name, f"{measured:,.1f}", "" if promised is None else f"{promised:,.1f}", ratio


def _files(report: Report) -> Iterator[Cells]:
    for name, entry in sorted(report.files.items()):
        yield name, amount(int(entry["bytes"])), str(entry.get("sha256", "not taken"))
