"""Textual's stylesheet, quicker where a person waits for it: another theme, and a step's own styles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.cache import LRUCache
from textual.color import Color
from textual.css.stylesheet import Stylesheet

if TYPE_CHECKING:
    from textual.css.styles import RulesMap
    from textual.dom import DOMNode

_SOURCES = 512  # files and widgets' own styles that are kept parsed, a theme


class QuickStylesheet(Stylesheet):
    """The same rules and the same look as Textual's.

    Textual parses every source anew for a new theme, and for each screen that brings a file of its own. Here what is
    parsed once stays, a theme's apart from the other's.
    """

    def __init__(self, *, variables: dict[str, str] | None = None) -> None:
        super().__init__(variables=variables)
        self._parsed: dict[frozenset[tuple[str, str]], LRUCache[tuple[Any, ...], Any]] = {}
        self._take_up(self._variables)

    def set_variables(self, variables: dict[str, str]) -> None:
        self._parse_cache = LRUCache(1)  # the one that the theme before has is not to be cleared
        super().set_variables(variables)
        self._take_up(variables)

    def _take_up(self, variables: dict[str, str]) -> None:
        theme = frozenset(variables.items())
        self._parse_cache = self._parsed.setdefault(theme, LRUCache(_SOURCES))

    def reparse(self) -> None:
        self.parse()  # replaces the rules only when all of them are right

    @classmethod
    def replace_rules(cls, node: DOMNode, rules: RulesMap, animate: bool = False) -> None:
        """Give a node its rules. Of the colours that change only the last one has the node drawn anew.

        Each would by itself, with all that is in the node.
        """
        if animate:
            super().replace_rules(node, rules, animate)
            return
        base = node.styles.base
        before: dict[str, Any] = dict(base.get_rules())
        now: dict[str, Any] = dict(rules)
        changed = [name for name in before | now if before.get(name) != now.get(name)]
        colours = [name for name in changed if isinstance(before.get(name), Color) and isinstance(now.get(name), Color)]
        # A scrollbar's colour also has the scrollbar drawn, which is no child of the node: such a one is the last.
        quiet = set(sorted(colours, key=lambda name: name.startswith("scrollbar"))[:-1])
        for name in changed:
            if name in quiet:
                base.set_rule(name, now[name])
            else:
                setattr(base, name, now.get(name))
        node.notify_style_update()
