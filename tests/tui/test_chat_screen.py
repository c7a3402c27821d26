"""The step chat, for real: a tiny artifact answers, the original beside it; stopped, killed, left and found again."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from making_data import guide, journey, problem, until
from snapshot import SIZES, THEMES, characters, check
from textual.pilot import Pilot
from textual.widgets import Input

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))

from chat_data import POSITIONS, write_artifact, write_model

from edgeq.artifact import Artifact
from edgeq.errors import EdgeqError
from edgeq.jobs.answers import Answer, Turn, parting
from edgeq.jobs.chat import Done, News, Piece, Ready
from edgeq.jobs.conversation import Conversation
from edgeq.jobs.original import Original
from edgeq.journey import Journey
from edgeq.measure.fastest import Choice
from edgeq.tui.app import EdgeqApp
from edgeq.tui.chatting import Chatting


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("chat") / "tiny")


@pytest.fixture(scope="module")
def artifact(model: Path) -> Path:
    return write_artifact(model)


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that go on until they are stopped."""
    monkeypatch.setattr(Chatting, "open_options", {"context": POSITIONS})


@pytest.fixture
def made(tmp_path: Path, model: Path, artifact: Path) -> Journey:
    """A journey that has its artifact."""
    return replace(journey(tmp_path, model), step="chat", checkpoint="made", artifacts=(str(artifact),))


def talk(app: EdgeqApp) -> Conversation:
    assert app.road.chatting is not None
    return app.road.chatting.talk


async def loaded(pilot: Pilot[None], tokens: int = 12) -> None:
    await until(pilot, lambda: pilot.app.road.chatting is not None)
    talk(pilot.app).sampling = replace(talk(pilot.app).sampling, max_tokens=tokens)
    await until(pilot, lambda: talk(pilot.app).partners["quantized"].state == "ready")
    await until(pilot, lambda: isinstance(pilot.app.screen.focused, Input))


async def ask(pilot: Pilot[None], text: str = "w1 q n") -> None:
    for letter in text:
        await pilot.press("space" if letter == " " else letter)
    await pilot.press("enter")
    await until(pilot, lambda: bool(talk(pilot.app).turns) and talk(pilot.app).turns[-1].question == text)


def answered(app: EdgeqApp, turns: int = 1) -> Callable[[], bool]:
    return lambda: len(talk(app).turns) == turns and not talk(app).busy


def worker(app: EdgeqApp, side: str = "quantized") -> int:
    return talk(app).partners[side].talker.pid


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def ended(pid: int, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not gone(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return gone(pid)


async def test_a_chat_and_the_original_beside_it(made: Journey):
    pytest.importorskip("torch")
    app = EdgeqApp(made)
    async with app.run_test(size=(120, 40)) as pilot:
        await loaded(pilot)
        await ask(pilot)  # its letters are text, not keys
        await until(pilot, answered(app))
        await until(pilot, lambda: "12 tokens · cut off at the limit" in characters(app))
        assert "You: w1 q n" in characters(app)
        await pilot.press("escape", "o")
        await until(pilot, lambda: "original" in talk(app).turns[-1].answers)
        await until(pilot, answered(app))  # what was asked last is compared at once
        both = talk(app).turns[-1].answers
        words = parting(both["quantized"], both["original"]).words
        await until(pilot, lambda: characters(app).count(words) == 2)
        pids = [worker(app), worker(app, "original")]
        await pilot.press("o")
        await until(pilot, lambda: talk(app).sides == ["quantized"] and gone(pids[1]))
        assert not app.screen.query_one("#original").display
        await pilot.press("i")
        await ask(pilot, "w5")
        await until(pilot, answered(app, 2))
        assert list(talk(app).turns[-1].answers) == ["quantized"]
    assert ended(pids[0])


async def test_an_answer_is_stopped(made: Journey, endless: None):
    app = EdgeqApp(made)
    async with app.run_test(size=(80, 24)) as pilot:
        await loaded(pilot, POSITIONS)
        await ask(pilot)
        await until(
            pilot, lambda: "esc to stop it" in guide(app) and talk(app).turns[0].answers["quantized"].tokens > 5
        )
        assert guide(app).endswith("twice, then n to deliver.")
        await pilot.press("escape")
        await until(pilot, answered(app))
        await until(pilot, lambda: "· stopped" in characters(app))
        assert isinstance(app.screen.focused, Input), "the line is still there to write in"
        await pilot.press("escape", "r")
        await until(pilot, lambda: talk(app).turns == [] and "You:" not in characters(app))
        await ask(pilot, "w3")


async def test_a_second_message_waits_for_the_first_answer(made: Journey, endless: None):
    app = EdgeqApp(made)
    async with app.run_test(size=(80, 24)) as pilot:
        await loaded(pilot, POSITIONS)
        await ask(pilot, "w1")
        await until(pilot, lambda: talk(app).answering is not None)
        await pilot.press("w", "2", "enter")
        await pilot.pause()
        assert len(talk(app).turns) == 1
        assert app.screen.query_one(Input).value == "w2", "nothing written is lost"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
async def test_a_killed_worker_is_said_and_loaded_again(made: Journey, endless: None):
    app = EdgeqApp(made)
    async with app.run_test(size=(80, 24)) as pilot:
        await loaded(pilot, POSITIONS)
        await ask(pilot)
        await until(pilot, lambda: talk(app).turns[0].answers["quantized"].tokens > 5)
        os.kill(worker(app), signal.SIGKILL)
        await until(pilot, lambda: "was killed" in problem(app))
        assert "then r, to load it again" in problem(app)
        assert not talk(app).busy
        await pilot.press("escape", "r")
        await until(pilot, lambda: talk(app).partners["quantized"].state == "ready" and problem(app) == "")
        talk(app).sampling = replace(talk(app).sampling, max_tokens=5)
        await ask(pilot, "w1")
        await until(pilot, answered(app, 2))
        assert talk(app).turns[1].answers["quantized"].tokens == 5, "the conversation goes on"


async def test_it_goes_on_while_another_step_is_shown_and_after_a_resize(made: Journey):
    app = EdgeqApp(made)
    async with app.run_test(size=(120, 40)) as pilot:
        await loaded(pilot, 400)
        await ask(pilot)
        pid = worker(app)
        await pilot.press("f1")
        await until(pilot, lambda: len(app.screen_stack) == 3)
        await pilot.press("escape")
        app.show_step("deliver")
        await until(pilot, lambda: app.screen.STEP == "deliver")
        app.show_step("chat")
        await until(pilot, lambda: app.step == "chat" and "You: w1 q n" in characters(app))
        await until(pilot, answered(app))
        assert talk(app).turns[0].answers["quantized"].tokens == 400
        assert worker(app) == pid
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "400 tokens" in characters(app))


async def test_another_model_closes_the_chat(made: Journey):
    app = EdgeqApp(made)
    async with app.run_test(size=(80, 24)) as pilot:
        await loaded(pilot)
        pid = worker(app)
        app.road.become(app.road.journey.with_model("another/model"))
        assert app.road.chatting is None
        await until(pilot, lambda: gone(pid))


@pytest.mark.parametrize(("state", "words"), [("gone", "no such artifact"), ("broken", "missing or truncated")])
async def test_an_artifact_that_is_gone_or_damaged_is_said_in_place(made, artifact, tmp_path, state, words):
    path = tmp_path / "broken"
    shutil.copytree(artifact, path)
    next(path.glob("*.onnx*")).unlink()
    app = EdgeqApp(replace(made, artifacts=(str(path if state == "broken" else tmp_path / "gone"),)))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: words in problem(app))
        await until(pilot, lambda: "press 5" in guide(app))


async def test_of_several_artifacts_those_that_open_are_offered(made: Journey, artifact: Path, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(artifact, other)
    app = EdgeqApp(replace(made, artifacts=(str(tmp_path / "gone"), str(artifact), str(other))))
    async with app.run_test(size=(120, 40)) as pilot:
        await loaded(pilot)
        assert [c.artifact.path for c in app.road.chatting.choices] == [other, artifact]
        pid = worker(app)
        await pilot.press("escape", "f")
        await until(pilot, lambda: app.road.chatting.at == 1)
        await until(pilot, lambda: talk(app).partners["quantized"].state == "ready" and gone(pid))


async def test_an_original_that_does_not_fit_is_refused_and_the_chat_goes_on(made: Journey, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise EdgeqError("the original needs 9 GB", hint="Close other programs")

    monkeypatch.setattr("edgeq.jobs.original.check_room", refuse)
    app = EdgeqApp(made)
    async with app.run_test(size=(80, 24)) as pilot:
        await loaded(pilot)
        await pilot.press("escape", "o")
        await until(pilot, lambda: "needs 9 GB" in problem(app))
        await pilot.press("i")
        await ask(pilot)
        await until(pilot, answered(app))


async def test_the_temperature_is_set_for_the_next_answers(made: Journey):
    app = EdgeqApp(made)
    async with app.run_test(size=(80, 24)) as pilot:
        await loaded(pilot)
        assert "always the likeliest token" in app.screen.query_one(Input).placeholder
        await pilot.press("escape", "e")
        await until(pilot, lambda: "temperature 0.3" in app.screen.query_one(Input).placeholder)
        await pilot.press("i")
        await ask(pilot)
        await until(pilot, answered(app))
        assert not talk(app).turns[0].greedy


def said(*pieces: str, finish: str = "eos") -> Answer:
    answer = Answer()
    for n, piece in enumerate(pieces, 1):
        answer.add(Piece(piece, n))
    answer.done = Done(len(pieces), 31.0, 0.2, finish)
    return answer


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (said("a", " b", " c"), said("a", " b", " d"), "The same for 2 tokens, then they differ"),
        (said("a", " be", " c"), said("a", " bo"), "The same for 1 token, then they differ"),
        (said("a"), said("b"), "They differ from the first token"),
        (said("a", " b"), said("a", " b"), "The same to the end: 2 tokens"),
        (said("a", " b"), said("a"), "The same for 1 token, then they differ"),
        (said("a", " b"), said("a", finish="cancelled"), "The same for 1 token so far"),
    ],
)
def test_where_two_answers_part(one: Answer, other: Answer, words: str):
    assert parting(one, other).words == words


# Pictures.

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
MADE = "/home/ada/SmolLM2-135M-Instruct-gptq-int4-g32"
QUESTION = "Which metals does a magnet attract?"
SAME = ("A", " magnet", " attracts", " iron", ",")
QUANTIZED = said(*SAME, " nickel", " and", " cobalt", ",", " and", " most", " steels", ".")
ORIGINAL = said(*SAME, " cobalt", " and", " nickel", ".", " Steel", " is", " mostly", " iron", ".")
KILLED = EdgeqError("the chat's process was killed, most likely for want of memory")


class Silent:
    """A chat that says nothing more."""

    def news(self) -> list[News]:
        return []

    def close(self) -> None:
        pass


def fixed(what: str) -> Chatting:
    made = Artifact(Path(f"{MADE}-onnx"), "onnxruntime", "SmolLM2-135M-Instruct", "gptq-int4-g32", {})
    talk = Conversation(lambda *_: Silent())
    for side, memory in (("quantized", 271_000_000), ("original", 640_000_000)):
        if side == "quantized" or what == "two":
            talk.open(side, {})
            talk.partners[side].state = "ready"
            talk.partners[side].ready = Ready(0.8, memory, True, 4096, 2)
    turn = Turn(QUESTION, answers={"quantized": replace(QUANTIZED)})
    if what == "two":
        turn.answers["original"] = replace(ORIGINAL)
    talk.turns.append(turn)
    if what == "error":
        talk.turns.append(Turn("And copper?", answers={"quantized": Answer("No", {2: 1}, None, KILLED)}))
        talk.partners["quantized"].state, talk.partners["quantized"].error = "failed", KILLED
    original = Original(MODEL, "bf16", 4096, 700_000_000)
    return Chatting([Choice(made)], model=MODEL, original=original, talk=talk)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("what", ["one", "two", "error"])
async def test_pictures(what, size, theme, monkeypatch):
    monkeypatch.setattr("edgeq.tui.chatting.chatting_of", lambda _: fixed(what))
    monkeypatch.setattr("edgeq.tui.chatting.Chatting.begin", lambda _: None)
    monkeypatch.setattr("edgeq.journey.save", lambda _: None)
    here = replace(journey(Path("/home/ada"), MODEL), step="chat", checkpoint=MADE, artifacts=(f"{MADE}-onnx",))
    app = EdgeqApp(here)
    async with app.run_test(size=size) as pilot:
        app.theme = theme
        await until(pilot, lambda: isinstance(app.screen.focused, Input))
        app.screen.query_one(Input).cursor_blink = False
        if what == "two":
            await pilot.press("escape")
        await check(pilot, f"chat-{what}-{size[0]}x{size[1]}-{theme.removeprefix('edgeq-')}")
