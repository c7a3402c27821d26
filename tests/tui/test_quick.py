"""What keeps the window quick must not show: the same styles as Textual's, and nothing left of what is gone."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
from snapshot import settled
from textual.css.stylesheet import Stylesheet
from textual.pilot import Pilot
from textual.widget import Widget

from edgeq.journey import begin
from edgeq.tui import settling
from edgeq.tui.app import EdgeqApp
from edgeq.tui.screens.help import HelpScreen
from edgeq.tui.stylesheet import QuickStylesheet
from edgeq.tui.themes import DARK, LIGHT
from edgeq.tui.widgets.key_bar import KeyBar, keys_of
from edgeq.tui.widgets.prose import prose


@pytest.fixture
def app(monkeypatch):
    monkeypatch.setattr("edgeq.journey.save", lambda _: None)
    return EdgeqApp(replace(begin("/home/ada"), step="device"))


def styles(app: EdgeqApp) -> dict[int, dict[str, object]]:
    """Of each widget on any screen, and of its parts that have styles of their own."""
    found = {}
    for screen in app.screen_stack:
        for widget in screen.walk_children(Widget, with_self=True):
            parts = {
                f"{name}/{k}": v for name, of in widget._component_styles.items() for k, v in of.get_rules().items()
            }
            found[id(widget)] = dict(widget.styles.base.get_rules()) | parts
    return found


async def in_light(app: EdgeqApp, pilot: Pilot[None]) -> dict[int, dict[str, object]]:
    """With the help over the step, from dark to light and back and to light again."""
    await pilot.press("question_mark")
    for theme in (LIGHT, DARK, LIGHT):
        app.theme = theme.name
        await settled(pilot, 0.3)
    return styles(app)


async def test_another_theme_gives_every_widget_the_styles_that_textual_gives(app):
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot, 0.3)
        dark = styles(app)
        quick = await in_light(app, pilot)
        plain = Stylesheet(variables=app.get_css_variables())
        plain.source = app.stylesheet.source.copy()
        plain.reparse()
        for screen in app.screen_stack:
            plain.update(screen)
        assert styles(app) == quick
        assert len(dark) > 10 and any(quick[widget] != dark[widget] for widget in dark)


async def test_a_theme_is_parsed_once(app, monkeypatch):
    parsed = []
    async with app.run_test() as pilot:
        await in_light(app, pilot)
        from textual.css import stylesheet

        plain = stylesheet.parse
        monkeypatch.setattr(stylesheet, "parse", lambda *a, **k: parsed.append(a) or plain(*a, **k))
        for theme in (DARK, LIGHT):
            app.theme = theme.name
            await settled(pilot, 0.3)
        assert parsed == []
        app.stylesheet.add_source("Screen { background: red; }", ("here", "red"))
        app.stylesheet.reparse()
        assert len(parsed) == 1


async def test_a_screen_that_is_closed_leaves_nothing(app):
    async with app.run_test() as pilot:
        closed = []
        for _ in range(3):
            await pilot.press("question_mark")
            await settled(pilot, 0.3)
            assert isinstance(app.screen, HelpScreen)
            closed += [weakref.ref(w) for w in app.screen.walk_children(Widget, with_self=True)]
            closed += [weakref.ref(w._styles_cache) for w in app.screen.walk_children(Widget, with_self=True)]
            await pilot.press("escape")
            await settled(pilot, 0.3)
        gc.collect()
        left = [ref() for ref in closed[: 2 * len(closed) // 3] if ref() is not None]  # the last may still be in use
        assert len(closed) > 30 and left == []


def test_what_is_loaded_is_set_aside_once_a_name(monkeypatch):
    calls: list[str] = []
    monkeypatch.setattr(settling, "_settled", set())
    monkeypatch.setattr(settling.gc, "collect", lambda: calls.append("collect"))
    monkeypatch.setattr(settling.gc, "freeze", lambda: calls.append("freeze"))
    for name in ("plan", "model", "plan"):
        settling.settle(name)
    assert calls == ["collect", "freeze"] * 2


async def test_a_click_on_a_key_presses_it(app):
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot, 0.3)
        bar = app.screen.query_one(KeyBar)
        text = bar.render_line(0).text
        shown = keys_of(app.screen)
        assert shown and all(f"{key.label} {key.does}" in text for key in shown)
        at = text.index("Help") + bar.gutter.left
        await pilot.hover(KeyBar, offset=(at, 0))
        assert bar.under is not None and bar.under.does == "Help"
        await pilot.click(KeyBar, offset=(at, 0))
        await settled(pilot, 0.3)
        assert isinstance(app.screen, HelpScreen)
        await pilot.click(KeyBar, offset=(100, 0))  # beside the keys
        await settled(pilot, 0.3)
        assert isinstance(app.screen, HelpScreen)
        await pilot.click(KeyBar, offset=(2, 0))
        await settled(pilot, 0.3)
        assert not isinstance(app.screen, HelpScreen)


def test_prose_marks_terms_and_code():
    said = prose("\n**Group** is how many\nweights `rtn` takes.\n\nAnd no more.\n")
    assert said.plain == "Group is how many weights rtn takes.\n\nAnd no more."
    assert [(said.plain[s.start : s.end], s.style) for s in said.spans] == [("Group", "bold"), ("rtn", "bold $accent")]


def test_the_application_uses_the_quick_stylesheet(app):
    assert isinstance(app.stylesheet, QuickStylesheet)
