"""What is written of a job: how far it is, how it ended, also where files are damaged or the disk is full."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from edgeq.errors import EdgeqError
from edgeq.jobs import all_jobs, find_job, look, resume, shelf, start, words
from edgeq.jobs.control import wait
from edgeq.jobs.job import Event, Job, Look
from edgeq.jobs.teller import MOST_BYTES, Teller
from edgeq.jobs.worker import SPARE_BYTES

pytestmark = [pytest.mark.usefixtures("idle_work"), pytest.mark.skipif(sys.platform == "win32", reason="POSIX")]


@pytest.mark.parametrize(
    ("how", "what", "hint", "traced"),
    [
        ("edgeq", "no such thing", "Look elsewhere", False),
        ("memory", "out of memory", "Close other programs", False),
        ("module", "not installed: a_module_that_is_not_there", "edgeq doctor", False),
        ("system", "the system says: ", None, True),
        ("other", "unexpected RuntimeError: a fault", "report", True),
    ],
)
def test_a_failing_job_keeps_what_where_and_a_hint(how, what, hint, traced):
    seen = wait(start("fail", {"how": how}, "failing"), 60)
    assert seen.state == "failed"
    assert what in seen.failure.what
    assert hint is None or hint in seen.failure.hint
    assert ("Traceback" in seen.failure.trace) is traced
    assert how != "edgeq" or seen.failure.where == "over there"
    assert seen.event.what == "about to fail"


def test_a_crash_leaves_its_place_in_the_log():
    job = start("fail", {"how": "crash"}, "failing")
    seen = wait(job, 60)
    assert seen.state == "interrupted"
    assert "slow_worker.py" in (shelf.folder_of(job) / shelf.LOG).read_text()


def test_a_failed_job_can_begin_anew():
    job = start("fail", {"how": "edgeq"}, "failing")
    wait(job, 60)
    resume(job)
    assert wait(job, 60).state == "failed"


def test_a_kind_that_does_not_exist_fails_with_those_that_do():
    seen = wait(start("bake", {}, "a cake"), 60)
    assert (seen.state, seen.failure.what) == ("failed", "no kind of job named 'bake'")
    assert "quantize" in seen.failure.hint


def test_the_file_of_events_stays_small(until):
    job = start("chatter", {"seconds": 1.5}, "chatter")
    assert wait(job, 60).result["told"] > 100
    assert len(shelf.events(shelf.folder_of(job))) < 15


def test_a_long_file_of_events_is_cut(tmp_path):
    path = tmp_path / shelf.EVENTS
    teller = Teller(path)
    for n in range(1500):
        teller(n, 1500, "x" * 1000)
        teller._write()
    assert path.stat().st_size <= MOST_BYTES + 2000
    assert shelf.latest(tmp_path).done == 1499
    kept = [event.done for event in shelf.events(tmp_path)]
    assert kept == list(range(kept[0], 1500))
    assert len(kept) > 300


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize("name", [shelf.JOB, shelf.EVENTS, shelf.RESULT, shelf.ERROR, shelf.PROCESS])
def test_damaged_files_are_no_errors(name, text):
    job = Job("20260101-000000-count-abc", "count", {"to": 3}, "counting", "2026-01-01T00:00:00+00:00")
    shelf.put(job)
    (shelf.folder_of(job) / name).write_bytes(text)
    found = all_jobs()
    assert found == ([] if name == shelf.JOB else [job])
    told = text in (b"[]", b'"x"')  # JSON, though not what is expected there
    expected = {shelf.ERROR: "failed", shelf.RESULT: "done"}.get(name, "interrupted") if told else "interrupted"
    assert look(job).state == expected


def test_odd_process_notes_are_nobody_s():
    job = Job("20260101-000000-count-abc", "count", {"to": 3}, "counting", "2026-01-01T00:00:00+00:00")
    shelf.put(job)
    for noted in ({"pid": -1, "born": "x"}, {"pid": 0, "born": "x"}, {"pid": 1e400, "born": "x"}, {"pid": os.getpid()}):
        (shelf.folder_of(job) / shelf.PROCESS).write_text(json.dumps(noted))
        assert look(job).state == "interrupted"


def test_a_line_that_a_kill_cut_short_is_skipped():
    job = Job("20260101-000000-count-abc", "count", {"to": 3}, "counting", "2026-01-01T00:00:00+00:00")
    shelf.put(job)
    line = json.dumps({"active_s": 1.0, "done": 1, "total": 3, "what": "a", "more": {}})
    (shelf.folder_of(job) / shelf.EVENTS).write_text(f"{line}\n{line[:20]}\n")
    assert look(job).event.done == 1
    assert len(shelf.events(shelf.folder_of(job))) == 1


def test_a_place_that_can_t_be_written_says_so(own_home):
    own_home.mkdir()
    (own_home / "jobs").write_text("a file where the folder should be")
    with pytest.raises(EdgeqError, match="cannot write"):
        start("count", {"to": 1}, "counting")


def test_a_full_disk_at_the_start_leaves_no_job(monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgeq.jobs.control.process.begin", full)
    with pytest.raises(EdgeqError, match="No space left"):
        start("count", {"to": 1}, "counting")
    assert all_jobs() == []


def test_the_reason_has_its_room_on_a_full_disk(until):
    job = start("count", {"to": 10**6}, "counting")
    until(job, lambda seen: seen.event is not None)
    assert (shelf.folder_of(job) / shelf.SPARE).stat().st_size == SPARE_BYTES


def test_jobs_are_found_by_the_beginning_of_their_id():
    for name in ("20260101-000000-count-abc", "20260102-000000-count-abd"):
        shelf.put(Job(name, "count", {}, "counting", "2026-01-01T00:00:00+00:00"))
    assert find_job("20260102").id.endswith("abd")
    assert find_job("2026") is None
    assert find_job("") is None


def at(*steps: tuple[float, int, int]) -> Look:
    """A job that reported so: seconds, done, total."""
    teller = Teller(None)  # type: ignore[arg-type]
    for seconds, done, total in steps:
        teller._active = seconds
        teller(done, total, "")
    job = Job("x", "count", {}, "", "")
    return Look(job, "running", teller._latest)


def test_what_is_left_goes_by_the_pace_of_the_present_part():
    assert at((0, 0, 0)).remaining_s is None
    assert at((5, 0, 100)).remaining_s is None
    assert at((5, 10, 100)).remaining_s is None, "one step says nothing of the pace"
    assert at((5, 10, 100), (15, 30, 100)).remaining_s == pytest.approx(35)
    assert at((5, 10, 100), (15, 30, 100), (16, 1, 7), (18, 2, 7)).remaining_s == pytest.approx(10)
    assert at((1, 10, 100), (2, 100, 100)).remaining_s == 0
    assert at((1, 10, 100), (2, 150, 100)).remaining_s == 0


def test_what_an_earlier_run_had_done_is_not_this_one_s_pace():
    taken_up = at((0, 0, 1000), (2, 900, 1000), (12, 910, 1000))
    assert taken_up.remaining_s == pytest.approx(90)
    assert taken_up.event.rate == pytest.approx(1.0)


def test_an_event_of_an_older_edgeq_is_read():
    event = Event(1.0, 2, 3, "x")
    assert event.rate == pytest.approx(2.0)


def test_the_teller_writes_what_came_last(tmp_path):
    with Teller(tmp_path / shelf.EVENTS) as teller:
        teller(1, 10, "first")
        teller(2, 10, "second")
        end = time.monotonic() + 10
        while (last := shelf.latest(tmp_path)) is None or last.what != "second":
            assert time.monotonic() < end, "what came last is never told while the work goes on"
            time.sleep(0.02)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "just now"),
        (70, "just now"),
        (5 * 60, "5 minutes ago"),
        (100 * 60, "an hour ago"),
        (5 * 3600, "5 hours ago"),
        (30 * 3600, "yesterday"),
        (3 * 86400, "3 days ago"),
        (40 * 86400, "on 2026-01-01"),
    ],
)
def test_how_long_ago(seconds, said):
    now = datetime(2026, 2, 10, 12, tzinfo=UTC)
    assert words.ago(now - timedelta(seconds=seconds), now) == said


def test_what_goes_on_in_a_line():
    job = Job("a-b", "quantize", {}, "a title", "2026-01-01T00:00:00+00:00")
    event = Event(20.0, 42, 100, "layer", part_s=10.0, part_done=22)
    assert words.going_on(Look(job, "running", event)) == "runs now: 42%, 0:29 left"
    assert words.going_on(Look(job, "running")) == "runs now"
    assert words.going_on(Look(job, "paused", event)) == "paused at 42%"
    assert words.going_on(Look(job, "done", event, result={})) == ""
