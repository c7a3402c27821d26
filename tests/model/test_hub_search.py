"""The hub's search: its answers, and a hub that does not answer. No network."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import huggingface_hub
import pytest
from huggingface_hub import errors as hub

from edgeq.model import hub_search
from edgeq.model.hub import Unreachable
from edgeq.model.hub_search import OnHub, search_hub


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    state = SimpleNamespace(answer=[], error=None, asked={})

    def list_models(self: Any, **asked: Any) -> list[Any]:
        state.asked = asked
        if state.error is not None:
            raise state.error
        return list(state.answer)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_models", list_models)
    monkeypatch.setattr(hub_search, "reachable", lambda: True)
    return state


def test_what_is_found(fake: SimpleNamespace) -> None:
    fake.answer = [
        SimpleNamespace(id="org/a", downloads=5, gated=False),
        SimpleNamespace(id="org/b", downloads=None, gated="manual"),
    ]
    assert search_hub("some words", 7) == [OnHub("org/a", 5, gated=False), OnHub("org/b", 0, gated=True)]
    assert (fake.asked["search"], fake.asked["limit"]) == ("some words", 7)


def test_a_hub_that_fails_is_out_of_reach(fake: SimpleNamespace) -> None:
    for error in (OSError("no route\nto host"), hub.HfHubHTTPError("503", response=MagicMock())):
        fake.error = error
        with pytest.raises(Unreachable, match="out of reach"):
            search_hub("x")


def test_offline_nothing_is_asked(fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_search, "reachable", lambda: False)
    with pytest.raises(Unreachable):
        search_hub("x")
    assert fake.asked == {}
