"""Textual's stylesheet, quicker where a person waits for it: another theme, and a step's own styles."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual.cache import LRUCache
from textual.color import Color
from textual.css.stylesheet import Stylesheet
from textual.screen import Screen
from textual.widget import Widget

if TYPE_CHECKING:
    from textual.css.styles import RulesMap
    from textual.dom import DOMNode

_AT_ONCE = 8  # hidden widgets that are given their styles in one go,
_LATER_S, _PAUSE_S = 0.1, 0.02  # when what is seen is drawn, and with room between for what a person does
_SOURCES = 512  # files and widgets' own styles that are kept parsed, a theme


class QuickStylesheet(Stylesheet):
    """The same rules and the same look as Textual's.

    Textual parses every source anew for a new theme, and for each screen that brings a file of its own. Here what is
    parsed once stays, a theme's apart from the other's.
    """

    _whole: ClassVar[bool] = False  # all that is seen is given its styles, and drawn once after it

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

    def update(self, root: DOMNode, animate: bool = False) -> None:
        """Give all in `root` its styles: what is seen at once, what is not a little later, so that a key need not wait.

        Textual calls it for another theme, and for the styles that a new screen brings.
        """
        seen, hidden = _parted(root)
        kind = type(self)
        kind._whole = True
        try:
            self.update_nodes(seen, animate=animate)
        finally:
            kind._whole = False
        for node in seen:
            _draw(node)
        for turn, start in enumerate(range(0, len(hidden), _AT_ONCE)):
            some = hidden[start : start + _AT_ONCE]
            root.set_timer(_LATER_S + turn * _PAUSE_S, partial(self._update_hidden, some))

    def _update_hidden(self, nodes: list[DOMNode]) -> None:
        self.update_nodes(node for node in nodes if node.is_attached)

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
        quiet = set(sorted(colours, key=lambda name: name.startswith("scrollbar"))[: None if cls._whole else -1])
        for name in changed:
            if name in quiet:
                base.set_rule(name, now[name])
            else:
                setattr(base, name, now.get(name))
        node.notify_style_update()


def _draw(node: DOMNode) -> None:
    """Have a widget drawn anew, and its scrollbars, which are no children of it."""
    if isinstance(node, Widget):
        node.refresh()
        if node.show_vertical_scrollbar:
            node.vertical_scrollbar.refresh()
        if node.show_horizontal_scrollbar:
            node.horizontal_scrollbar.refresh()


def _parted(root: DOMNode) -> tuple[list[DOMNode], list[DOMNode]]:
    """Those that are seen, and those that are not: not displayed, in one that is not, or in a screen beneath."""
    seen: list[DOMNode] = []
    hidden: list[DOMNode] = []
    under: set[DOMNode] = set()
    for node in root.walk_children(with_self=True):
        beneath = isinstance(node, Screen) and not node.is_current
        if beneath or node.parent in under or (isinstance(node, Widget) and not node.display):
            under.add(node)
            hidden.append(node)
        else:
            seen.append(node)
    return seen, hidden
