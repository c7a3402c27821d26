"""The keys that work now, in one line at the foot of a screen; a click presses one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

if TYPE_CHECKING:
    from textual.screen import Screen


@dataclass(frozen=True)
class Key:
    """A key that does something here.

    Attributes:
        name: as it is pressed; `label` as it is written.
        does: a word or two; `about` is longer, and may be empty.
    """

    name: str
    label: str
    does: str
    about: str
    works: bool

    @property
    def width(self) -> int:
        return len(self.label) + 1 + len(self.does)


class KeyBar(Widget):
    """One widget, where Textual's `Footer` has one a key and makes all of them anew whenever a key comes or goes."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES = {"key-bar--key"}  # noqa: RUF012
    DEFAULT_CSS = """
    KeyBar { dock: bottom; height: 1; color: $footer-foreground; background: $footer-background; }
    KeyBar .key-bar--key { color: $footer-key-foreground; text-style: bold; }
    """
    keys: reactive[tuple[Key, ...]] = reactive[tuple[Key, ...]](())
    under: reactive[Key | None] = reactive[Key | None](None)  # the mouse

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._look)

    def _look(self, screen: Screen[object]) -> None:
        if screen.app.app_focus and self.is_attached:  # without the terminal's focus the fields' keys are gone
            self.keys = keys_of(screen)

    def render_line(self, y: int) -> Strip:
        base, key = self.rich_style, self.get_component_rich_style("key-bar--key", partial=True)
        ground = Style(bgcolor=base.bgcolor)
        segments: list[Segment] = []
        for shown in self.keys:
            style = base + Style(dim=not shown.works or None, underline=shown == self.under or None)
            segments += [Segment(shown.label, style + key), Segment(f" {shown.does}", style), Segment(" ", ground)]
        return Strip(segments).adjust_cell_length(self.content_size.width, ground)

    def _at(self, x: int) -> Key | None:
        """The key at a place of the line, in characters."""
        start = self.gutter.left
        for shown in self.keys:
            if start <= x < start + shown.width:
                return shown
            start += shown.width + 1
        return None

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self.under = self._at(event.x)
        self.tooltip = self.under.about if self.under is not None and self.under.about else None

    def on_leave(self) -> None:
        self.under = None

    def on_mouse_down(self, event: events.MouseDown) -> None:
        pressed = self._at(event.x)
        if pressed is None:
            return
        if pressed.works:
            self.app.simulate_key(pressed.name)
        else:
            self.app.bell()


def keys_of(screen: Screen[object]) -> tuple[Key, ...]:
    """What a screen's keys do now: of several for one action the first, without those that are not to be shown."""
    found: dict[str, Key] = {}
    for active in screen.active_bindings.values():
        binding = active.binding
        if binding.show and binding.action not in found:
            label = screen.app.get_key_display(binding)
            found[binding.action] = Key(binding.key, label, binding.description, active.tooltip, active.enabled)
    return tuple(found.values())
