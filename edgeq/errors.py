"""The one error a user is meant to read: what was wrong, where, and what to do about it."""

from __future__ import annotations


class EdgeqError(Exception):
    """A problem with the user's input or machine, said in one line.

    Args:
        what: what is wrong, a short phrase without a final stop.
        where: the file, option or tensor it was found in.
        hint: what to do about it.

    The command line prints `error: WHAT (WHERE). HINT` and exits with 2; `--debug` adds the traceback.
    """

    def __init__(self, what: str, *, where: object = None, hint: str | None = None) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.hint = hint
        super().__init__(self.line)

    @property
    def line(self) -> str:
        place = f" ({self.where})" if self.where else ""
        way_out = f". {self.hint}" if self.hint else ""
        return " ".join(f"{self.what}{place}{way_out}".split())
