"""Chats in processes of their own: they answer, stop, die and are told of, and never outlive who began them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chat_data import POSITIONS, hear, write_artifact, write_model

from edgeq.errors import EdgeqError
from edgeq.jobs.chat import Chat, Done, Failed, News, Piece, Ready, Sampling
from edgeq.jobs.original import check_room, original_of
from edgeq.model.read import read_model

ASK = [{"role": "user", "content": "w1 w2 w3"}]
ENDLESS = Sampling(max_tokens=POSITIONS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("chat") / "tiny")


@pytest.fixture(scope="module")
def artifact(model: Path) -> Path:
    return write_artifact(model)


@pytest.fixture
def begin(artifact: Path) -> Iterator[Callable[..., Chat]]:
    """Chats that are closed after the test."""
    begun: list[Chat] = []

    def make(what: dict[str, str] | None = None, **options: object) -> Chat:
        begun.append(Chat(what or {"path": str(artifact)}, options))
        return begun[-1]

    yield make
    for chat in begun:
        chat.close()


def heard(kind: type[News]) -> Callable[[list[News]], bool]:
    return lambda said: any(isinstance(n, kind) for n in said)


def only(said: list[News], kind: type) -> list:
    return [n for n in said if isinstance(n, kind)]


def gone(pid: int, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_it_loads_answers_piece_by_piece_and_tells_how_fast(begin):
    chat = begin()
    [ready] = only(hear(chat, heard(Ready)), Ready)
    assert ready.load_s > 0
    assert ready.memory_bytes >= 0
    assert ready.template
    assert ready.context == 4096
    chat.send(ASK, Sampling(max_tokens=20))
    said = hear(chat, heard(Done))
    pieces, [done] = only(said, Piece), only(said, Done)
    assert [p.tokens for p in pieces] == list(range(1, 21))
    assert done.tokens == 20
    assert done.finish == "length"
    assert done.tps > 0
    assert done.ttft_s > 0


def test_greedy_answers_are_the_same_and_the_session_s_own(begin, artifact):
    import edgeq

    chat = begin()
    answers = []
    for _ in range(2):
        chat.send(ASK, Sampling(max_tokens=20))
        answers.append("".join(p.text for p in only(hear(chat, heard(Done)), Piece)))
        chat.reset()
    with edgeq.load(artifact) as session:
        assert answers == [session.chat(ASK, max_tokens=20)] * 2


def test_a_seed_makes_a_sampled_answer_the_same_again(begin):
    chat = begin()
    answers = []
    for seed in (1, 1, 2):
        chat.send(ASK, Sampling(temperature=5.0, seed=seed, max_tokens=20))
        answers.append("".join(p.text for p in only(hear(chat, heard(Done)), Piece)))
        chat.reset()
    assert answers[0] == answers[1] != answers[2]


def test_an_answer_is_stopped_and_the_chat_goes_on(begin):
    chat = begin(context=POSITIONS)
    chat.send(ASK, ENDLESS)
    hear(chat, heard(Piece))
    chat.stop()
    [done] = only(hear(chat, heard(Done)), Done)
    assert done.finish == "cancelled"
    assert done.tokens < POSITIONS
    chat.send(ASK, Sampling(max_tokens=3))
    assert only(hear(chat, heard(Done)), Done)[0].tokens == 3


def test_what_was_asked_before_a_reset_is_not_heard_after_it(begin):
    chat = begin(context=POSITIONS)
    chat.send(ASK, ENDLESS)
    hear(chat, heard(Piece))
    chat.stop()
    chat.reset()
    chat.send(ASK, Sampling(max_tokens=3))
    said = hear(chat, heard(Done))
    assert only(said, Done)[0].tokens == 3
    assert len(only(said, Piece)) == 3


def test_a_message_that_does_not_fit_is_refused_and_the_chat_goes_on(begin):
    chat = begin(context=32)
    chat.send([{"role": "user", "content": "w1 " * 50}], Sampling())
    [failed] = only(hear(chat, heard(Failed)), Failed)
    assert not failed.fatal
    assert "the context holds 32" in failed.error.what
    chat.send(ASK, Sampling(max_tokens=3))
    hear(chat, heard(Done))


def test_a_model_without_chat_template_goes_on_with_the_text(begin, tmp_path):
    chat = begin({"path": str(write_artifact(write_model(tmp_path / "plain", template=None)))})
    [ready] = only(hear(chat, heard(Ready)), Ready)
    assert not ready.template
    chat.send([*ASK, {"role": "assistant", "content": "w4"}, *ASK], Sampling(max_tokens=3))
    hear(chat, heard(Done))


def test_the_original_answers_through_torch(begin, model):
    pytest.importorskip("torch")
    found = original_of(str(model), read_model(str(model)))
    assert found.dtype == "f32"
    chat = begin({"model": found.model}, context=found.context)
    [ready] = only(hear(chat, heard(Ready)), Ready)
    assert ready.template
    chat.send(ASK, Sampling(max_tokens=5))
    assert only(hear(chat, heard(Done)), Done)[0].tokens == 5


def test_no_artifact_is_a_fatal_error_with_a_way_out(begin, tmp_path):
    chat = begin({"path": str(tmp_path / "gone")})
    [failed] = only(hear(chat, heard(Failed)), Failed)[:1]
    assert failed.fatal
    assert failed.error.what == "no such artifact folder"
    assert "edgeq export" in failed.error.hint


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_worker_is_told_of(begin):
    chat = begin(context=POSITIONS)
    chat.send(ASK, ENDLESS)
    hear(chat, heard(Piece))
    os.kill(chat.pid, signal.SIGKILL)
    [failed] = only(hear(chat, heard(Failed)), Failed)
    assert failed.fatal
    assert "killed" in failed.error.what
    chat.send(ASK, ENDLESS)  # into the void, without an exception
    chat.stop()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_worker_that_dies_leaves_its_last_words(begin, monkeypatch, tmp_path):
    (tmp_path / "dying.py").write_text("import sys; print('a\\nlast words', file=sys.stderr); sys.exit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("edgeq.jobs.chat.WORKER", "dying")
    [failed] = only(hear(begin(), heard(Failed)), Failed)
    assert failed.error.what == "the chat's process stopped with 3"
    assert failed.error.where == "last words"


def test_closing_ends_the_process_in_the_middle_of_an_answer(begin):
    chat = begin(context=POSITIONS)
    chat.send(ASK, ENDLESS)
    hear(chat, heard(Piece))
    chat.close()
    chat.close()
    assert gone(chat.pid)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("how", ["loading", "answering"])
def test_a_worker_does_not_outlive_a_killed_window(artifact, how):
    script = (
        "import sys, time; from edgeq.jobs.chat import *\n"
        f"c = Chat(dict(path=sys.argv[1]), dict(context={POSITIONS}))\n"
        "if sys.argv[2] == 'answering':\n"
        f"    c.send({ASK!r}, Sampling(max_tokens={POSITIONS}))\n"
        "    while not any(isinstance(n, Piece) for n in c.news()): time.sleep(0.01)\n"
        "print(c.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-P", "-c", script, str(artifact), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as window:
        pid = int(window.stdout.readline())
        window.kill()
    assert gone(pid)


def test_the_original_is_refused_where_it_does_not_fit(model):
    found = original_of(str(model), read_model(str(model)))
    check_room(found, free=found.needs)
    with pytest.raises(EdgeqError, match=r"needs about .* MB of memory, 1\.0 MB is free") as refused:
        check_room(found, free=1_000_000)
    assert "quantized model alone" in refused.value.hint
    with pytest.raises(EdgeqError, match="and the quantized model 50"):
        check_room(found, free=found.needs, beside=50_000_000)


def test_a_temperature_that_makes_no_sense_is_refused():
    with pytest.raises(EdgeqError, match="temperature"):
        Sampling(temperature=-1)
