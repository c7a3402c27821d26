"""`edgeq bench`: measure an artifact beside what the plan promised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgeq.cli.run_ import DEVICE_HELP, runtime_options

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from edgeq.benchmark import Benchmark, Samples
    from edgeq.measure.bench import Workload


def command(
    artifacts: list[Path] = typer.Argument(
        ..., metavar="ARTIFACT...", help="Folders that `edgeq export` made, or GGUF files; several are compared."
    ),
    compare: list[Path] = typer.Option([], "--compare", help="One more to compare with the first; may be repeated."),
    prompt_tokens: str = typer.Option("32,128,512", help="Prompt lengths to prefill, separated by commas."),
    tokens: int = typer.Option(128, help="New tokens of one decoding."),
    reps: int = typer.Option(5, help="Repetitions, besides a warm-up."),
    threads: str | None = typer.Option(
        None, help="Threads of the runtime [default: its own choice]; auto: several are tried, the best is kept."
    ),
    option: list[str] = typer.Option(
        [], "--option", "-O", help="An option of the runtime, as kv_dtype=q8_0; may be repeated. Not kept in the store."
    ),
    on: str | None = typer.Option(None, "--device", help=f"{DEVICE_HELP} Not kept in the store."),
    store: bool = typer.Option(True, "--store/--no-store", help="Keep the measurement for the next plan."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Measure speed, start and memory of an artifact, in a process of its own, beside what the plan promised.

    Several artifacts are measured in turns, and set beside the first.
    """
    from edgeq.measure.asking import of_tokens
    from edgeq.measure.bench import Workload

    own = runtime_options(option) | ({} if on is None else {"device": on})
    count = _threads_of(threads)
    asked = Workload(_numbers(prompt_tokens), reps=reps, threads=count if isinstance(count, int) else None)
    work = of_tokens(asked, tokens)
    paths, kept = [*artifacts, *compare], store and not own
    if len(paths) == 1:
        _measure(paths[0], work, own, tries=count == "auto", store=kept, as_json=as_json)
    else:
        _compare(paths, work, own, tries=count == "auto", store=kept, as_json=as_json)


def _measure(path: Path, work: Workload, own: dict[str, Any], *, tries: bool, store: bool, as_json: bool) -> None:
    from dataclasses import replace

    from rich.console import Console

    from edgeq.artifact import read_artifact
    from edgeq.cli.progress import steps
    from edgeq.device.load_ref import load_device
    from edgeq.jsonable import to_json
    from edgeq.measure.bench import bench
    from edgeq.measure.promise import promise_of
    from edgeq.measure.threads import fastest_threads, try_threads
    from edgeq.store import Store

    opened, tried = read_artifact(path), []
    device, kept = load_device("auto"), Store()
    if tries:
        with steps("trying threads", quiet=as_json) as progress:
            tried = try_threads(opened, device, options=own, progress=progress)
        if store:
            for one in tried:
                kept.add(one)
        work = replace(work, threads=fastest_threads(tried))
    with steps("measuring", quiet=as_json) as progress:
        promise = promise_of(opened, device, work)
        found = bench(opened, device, workload=work, promise=promise, options=own, progress=progress)
    if store:
        kept.add(found)
    if as_json:
        print(json.dumps(to_json(found), indent=2))
        return
    console = Console()
    render(found, console)
    if tried:
        speeds = ", ".join(f"{b.threads}: {b.decode.tps.median:.1f}" for b in tried)
        console.print(f"[dim]Tokens/s by threads: {speeds}.[/]", highlight=False)
    if store:
        console.print(f"[dim]Kept in {kept.path} for the next plan.[/]", highlight=False, soft_wrap=True)


def _compare(
    paths: list[Path], work: Workload, own: dict[str, Any], *, tries: bool, store: bool, as_json: bool
) -> None:
    from rich.console import Console

    from edgeq.cli import compare_report
    from edgeq.cli.progress import steps
    from edgeq.device.load_ref import load_device
    from edgeq.errors import EdgeqError
    from edgeq.jsonable import to_json
    from edgeq.measure.compare import compare, open_all
    from edgeq.store import Store

    if tries:
        hint = "Find the best number of each first: edgeq bench ARTIFACT --threads auto"
        raise EdgeqError("--threads auto takes one artifact", hint=hint)
    opened = open_all(paths)
    device, kept = load_device("auto"), Store()
    with steps("measuring in turns", quiet=as_json) as progress:
        found = compare(opened, device, workload=work, options=own, progress=progress)
    if store:
        for side in found.sides:
            kept.add(side.benchmark)
    if as_json:
        print(json.dumps(to_json(found), indent=2))
        return
    console = Console()
    compare_report.render(found, console)
    if store:
        console.print(f"[dim]Kept in {kept.path} for the next plan.[/]", highlight=False, soft_wrap=True)


def _threads_of(text: str | None) -> int | str | None:
    from edgeq.errors import EdgeqError

    if text is None or text == "auto":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise EdgeqError(f"--threads is {text!r}", hint="Give a number, or auto") from error


def _numbers(text: str) -> tuple[int, ...]:
    from edgeq.errors import EdgeqError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise EdgeqError(f"--prompt-tokens is {text!r}", hint="Use numbers with commas: 32,128,512") from error


def render(found: Benchmark, console: Console) -> None:
    """The benchmark as a table of at most 80 columns."""
    from rich.markup import escape

    console.print(f"[bold]{escape(found.model)}[/]  {escape(found.scheme)}  on {found.target}", highlight=False)
    console.print(f"[dim]{escape(found.device)}; {_threads(found.threads)}[/]", highlight=False)
    console.print(table_of(found))
    for line in found.warnings:
        console.print(f"[yellow]! {escape(line)}[/]", highlight=False)
    if not found.warnings:
        console.print(f"[dim]Other programs took {found.load_during:.0%} of the machine meanwhile.[/]", highlight=False)
    if found.promise.basis:
        console.print(f"[dim]Promised: {escape(found.promise.basis)}.[/]", highlight=False)


def _threads(count: int) -> str:
    return "the runtime's own number of threads" if not count else f"{count} thread{'s' if count > 1 else ''}"


def table_of(found: Benchmark) -> Table:
    """Each figure: measured, promised, their ratio, and the share of the ceiling."""
    from rich.table import Table

    from edgeq.measure.bench import ratio

    promise = found.promise
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for name in ("measured", "promised", "ratio", "of ceiling"):
        table.add_column(name, justify="right")
    for one in found.prefill:
        said = promise.prefill_tps if promise.prefill_tokens == one.tokens else None
        table.add_row(f"prefill {one.tokens}, tok/s", spread(one.tps), _number(said), _ratio(one.tps.median, said))
    for one in found.prefill:
        table.add_row(f"first token after {one.tokens}, s", f"{one.ttft_s.median:.3f}")
    speed, ceiling = found.decode.tps, ratio(found.decode.tps.median, promise.ceiling_tps)
    table.add_row(
        f"decode {found.decode.tokens}, tok/s",
        spread(speed),
        _number(promise.decode_tps),
        _ratio(speed.median, promise.decode_tps),
        "" if ceiling is None else f"{ceiling:.0%}",
        style="bold",
    )
    memory, said_memory = found.peak_bytes / 2**20, promise.memory_bytes and promise.memory_bytes / 2**20
    table.add_row("peak memory, MiB", f"{memory:.0f}", _number(said_memory, 0), _ratio(memory, said_memory))
    table.add_row("import, s", f"{found.import_s:.2f}")
    table.add_row("load, s", f"{found.load_s:.2f}")
    return table


def spread(samples: Samples) -> str:
    """`92.1 ± 2 %`: the median, and half the range of the repetitions."""
    digits = 1 if samples.median < 1000 else 0
    return f"{samples.median:.{digits}f} ±{samples.spread:3.0%}"


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _ratio(measured: float, promised: float | None) -> str:
    return "" if not promised else f"{measured / promised:.2f}"
