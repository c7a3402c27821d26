"""A Plan as a newcomer reads it: the advice in words, its arithmetic, the alternatives, what is out, what to type."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from edgeq.cli.plan_words import arithmetic, asked, device_line, model_line, nothing, out_lines, speed_lines, why
from edgeq.plan.candidate import Candidate
from edgeq.plan.plan import Plan
from edgeq.plan.table import arranged
from edgeq.plan.targets import on_phone
from edgeq.plan.words import gigabytes, rate

ROWS, ROWS_PER_TARGET = 9, 3
_VERDICTS = {"fits": "", "tight": "[yellow], tight[/]", "offload": "[yellow], split[/]"}


def print_plan(plan: Plan, *, show_all: bool = False, console: Console | None = None) -> None:
    """The report of `edgeq plan`."""
    out = console or Console(highlight=False)
    out.print()
    out.print(
        _pairs([("Device", device_line(plan.device)), ("Model", model_line(plan)), ("Asked", asked(plan.request))])
    )
    for note in plan.notes:
        out.print(_pairs([("[yellow]Note[/]", f"[dim]{escape(_sentence(note))}[/]")]))
    if plan.recommended is None:
        _nothing_fits(out, plan)
    else:
        _recommended(out, plan, plan.recommended)
        _candidates(out, plan, show_all)
    _outside(out, plan)
    _next(out, plan)


def _pairs(rows: Iterable[tuple[str, str]], indent: int = 0) -> Padding:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True, min_width=9)
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(label, text)
    return Padding(table, (0, 0, 0, indent))


def _heading(out: Console, text: str) -> None:
    out.print()
    out.print(f"[bold]{text}[/]")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _recommended(out: Console, plan: Plan, best: Candidate) -> None:
    today = "" if best is plan.candidates[0] else ", the best that edgeq can make today"
    _heading(out, f"Recommended: [green]{best.scheme.name}[/] on [green]{best.target}[/]{today}")
    out.print(Padding(escape(why(plan, best)), (0, 0, 0, 2)))
    _heading(out, "Memory")
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True, min_width=9)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    rows = list(arithmetic(plan, best))
    for i, (label, amount, text) in enumerate(rows):
        last = i == len(rows) - 1
        table.add_row(label, f"[bold]{amount}[/]" if last else amount, escape(text))
    out.print(Padding(table, (0, 0, 0, 2)))
    _heading(out, "Speed")
    out.print(_pairs(((label, escape(text)) for label, text in speed_lines(plan, best)), indent=2))


def _candidates(out: Console, plan: Plan, show_all: bool) -> None:
    shown = arranged(plan.candidates, "rank") if show_all else _selection(plan)
    total = len(plan.candidates)
    more = "" if len(shown) == total else f", best of each target; --all shows all {total}"
    _heading(out, f"Candidates, best first for {plan.request.objective}[dim]{more}[/]")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    table.add_column("", no_wrap=True, min_width=1)
    for name in ("scheme", "on"):
        table.add_column(name, no_wrap=True)
    for name in ("GB", "tok/s", "max"):
        table.add_column(name, justify="right", no_wrap=True, min_width=6)
    table.add_column(" loss", no_wrap=True)
    for c in shown:
        table.add_row(*_row(c, recommended=c is plan.recommended))
    out.print(Padding(table, (0, 0, 0, 2)))
    every = " of all sequences" if plan.request.batch > 1 else ""
    legend = f"tok/s{every} expected with the context full, max: what the memory allows"
    if any(c.not_yet for c in shown):
        legend += "; - edgeq can't make it yet, the figures hold all the same"
    out.print(Padding(f"[dim]* recommended; {legend}[/]", (0, 0, 0, 2)))


def _row(c: Candidate, *, recommended: bool) -> tuple[str, ...]:
    mark = "[green]*[/]" if recommended else "[dim]-[/]" if c.not_yet else " "
    expected = c.expected.tps if c.expected else None
    memory = gigabytes(c.footprint.total)
    rates = (rate(expected), rate(c.decode_ceiling))
    return mark, c.scheme.name, c.target, memory, *rates, f" {c.quality.words}{_VERDICTS[c.verdict]}"


def _selection(plan: Plan) -> list[Candidate]:
    """The best few of each target, and the recommended one wherever it stands."""
    counts: dict[str, int] = {}
    shown: list[Candidate] = []
    for c in arranged(plan.candidates, "rank"):
        counts[c.target] = counts.get(c.target, 0) + 1
        if (counts[c.target] <= ROWS_PER_TARGET and len(shown) < ROWS) or c is plan.recommended:
            shown.append(c)
    return shown


def _nothing_fits(out: Console, plan: Plan) -> None:
    _heading(out, f"[red]{nothing(plan)}[/] What would have to give:")
    for sentence in plan.relief:
        out.print(_bullet(sentence))


def _outside(out: Console, plan: Plan) -> None:
    lines = list(out_lines(plan))
    if lines:
        _heading(out, "Out")
        for line in lines:
            out.print(_bullet(line))


def _bullet(text: str) -> Padding:
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_row("-", escape(text))
    return Padding(table, (0, 0, 0, 2))


def _elsewhere(plan: Plan) -> str:
    """Where to type the commands when the plan is for another machine than this one."""
    if on_phone(plan.device):
        return "Type these on a PC; an app on the phone then loads the exported folder."
    return f"The last one belongs on the device itself: {plan.device.name}."


def _next(out: Console, plan: Plan) -> None:
    best = plan.recommended
    if best is not None:
        _heading(out, "Next")
    for command in plan.next_commands:
        out.print(f"  [bold cyan]{escape(command)}[/]", soft_wrap=True)
    if plan.next_commands and best is not None and plan.device.origin != "local":
        out.print(Padding(f"[dim]{escape(_elsewhere(plan))}[/]", (0, 0, 0, 2)))
    if not plan.next_commands and best is not None:
        out.print(
            Padding(escape(_sentence(f"{best.not_yet}: make this one with its runtime's own tools.")), (0, 0, 0, 2))
        )
    out.print()
