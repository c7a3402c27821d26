"""A progress bar on stderr, so that stdout stays the command's answer; none where nobody looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgeq.registry import Progress


@contextmanager
def steps(title: str, *, quiet: bool = False, remaining: bool = False) -> Iterator[Progress]:
    """A bar for one piece of work; the block gets the function to report to. It vanishes when the block ends.

    A total of 0 says that nobody knows how much there is to do. `remaining`: also say how much time is left.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.fields[title]}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        *((TextColumn("left"), TimeRemainingColumn()) if remaining else ()),
        TextColumn("[dim]{task.description}[/]"),
    )
    console = Console(stderr=True)
    with Bar(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("", total=None, title=title)

        def report(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total or None, description=what)

        yield report
