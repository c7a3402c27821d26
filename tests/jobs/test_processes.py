"""Processes of jobs: they outlive who began them, stop and go on, end, and are never taken for another's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from edgeq.errors import EdgeqError
from edgeq.jobs import all_jobs, cancel, control, find_job, forget, look, pause, process, resume, shelf, start
from edgeq.jobs.control import wait

pytestmark = [pytest.mark.usefixtures("idle_work"), pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")]


def worker_of(job):
    return psutil.Process(shelf.load(shelf.folder_of(job) / shelf.PROCESS)["pid"])


def ended(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_job_runs_to_its_result():
    job = start("count", {"to": 5}, "counting to five")
    seen = wait(job, 60)
    assert (seen.state, seen.result, seen.share) == ("done", {"counted": 5}, 1.0)
    assert (seen.event.done, seen.event.total, seen.event.what) == (5, 5, "counting")


def test_a_job_outlives_the_process_that_began_it_and_is_found_again():
    code = "from edgeq.jobs import control, start\ncontrol.WORKER = 'slow_worker'\n"
    code += "print(start('count', {'to': 300}, 'counting').id)"
    said = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    job = find_job(said.strip())
    assert job is not None
    assert [j.id for j in all_jobs("count")] == [job.id]
    assert look(job).state == "running"
    assert wait(job, 60).result == {"counted": 300}


def test_a_paused_job_does_nothing_and_stays_paused_when_its_starter_is_gone(until):
    code = "from edgeq.jobs import control, look, pause, start\nimport time\ncontrol.WORKER = 'slow_worker'\n"
    code += "job = start('count', {'to': 400}, 'counting')\n"
    code += "while look(job).event is None: time.sleep(0.02)\npause(job)\nprint(job.id)"
    said = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    job = find_job(said.strip())
    until(job, lambda seen: seen.state == "paused")
    before, cpu = look(job), sum(worker_of(job).cpu_times()[:2])
    time.sleep(1)
    after = look(job)
    assert after.state == "paused"
    assert after.event == before.event
    assert sum(worker_of(job).cpu_times()[:2]) == cpu
    resume(job)
    assert wait(job, 60).state == "done"


def test_a_pause_returns_when_the_job_stands_still():
    """A process that gets no processor stops late, and a look in between would call it running."""
    job = start("count", {"to": 1000}, "counting")
    seen, real = [], psutil.Process.status
    late = iter(["running", "sleeping"])

    def status(one):
        seen.append(next(late, None) or real(one))
        return seen[-1]

    worker = worker_of(job)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control, "_worker", lambda folder: worker)
        patch.setattr(psutil.Process, "status", status)
        pause(job)
    assert seen[:2] == ["running", "sleeping"] and seen[-1] == "stopped"
    assert look(job).state == "paused"


def test_a_resume_reaches_a_job_that_has_not_got_to_its_pause():
    job = start("count", {"to": 5}, "counting")
    pause(job)
    stopped = look(job)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control, "look", lambda job: replace(stopped, state="running"))  # as a busy machine shows it
        resume(job)
    assert wait(job, 60).state == "done"


def test_a_pause_stops_the_children_too(tmp_path, until):
    trace = tmp_path / "trace"
    job = start("family", {"trace": str(trace)}, "family")
    until(job, lambda _: trace.exists() and trace.stat().st_size > 2)
    pause(job)
    size = trace.stat().st_size
    time.sleep(0.3)
    assert trace.stat().st_size == size
    resume(job)
    until(job, lambda _: trace.stat().st_size > size)


def test_the_active_clock_leaves_pauses_out(until):
    job = start("count", {"to": 100, "step_s": 0.02}, "counting")
    until(job, lambda seen: seen.event is not None)
    pause(job)
    time.sleep(4)
    resume(job)
    seen = wait(job, 60)
    assert seen.state == "done"
    assert 1.0 < seen.event.active_s < 4


def test_cancel_ends_the_job_and_its_children(tmp_path, until):
    job = start("family", {"trace": str(tmp_path / "trace")}, "family")
    child = int(until(job, lambda seen: seen.event is not None).event.what.split()[1])
    cancel(job)
    assert look(job).state == "cancelled"
    assert not psutil.pid_exists(child)


def test_a_paused_job_can_be_cancelled(until):
    job = start("count", {"to": 10**6}, "counting")
    until(job, lambda seen: seen.event is not None)
    pause(job)
    cancel(job)
    assert look(job).state == "cancelled"


def test_a_killed_worker_shows_as_interrupted_and_begins_anew(until):
    job = start("count", {"to": 200}, "counting")
    until(job, lambda seen: seen.event is not None)
    os.kill(worker_of(job).pid, signal.SIGKILL)
    seen = until(job, lambda seen: seen.state != "running")
    assert (seen.state, seen.rss_bytes) == ("interrupted", 0)
    resume(job)
    assert look(job).state == "running"
    assert wait(job, 60).state == "done"


def test_what_a_killed_worker_left_running_is_ended_before_the_next_begins(tmp_path, until):
    trace = tmp_path / "trace"
    job = start("family", {"trace": str(trace)}, "family")
    child = int(until(job, lambda seen: seen.event is not None).event.what.split()[1])
    os.kill(worker_of(job).pid, signal.SIGKILL)
    until(job, lambda seen: seen.state == "interrupted")
    assert psutil.pid_exists(child)
    resume(job)
    assert ended(child)
    assert look(job).state == "running"


def test_what_was_left_running_is_ended_though_the_killed_worker_is_a_zombie_yet(tmp_path, until):
    code = "from edgeq.jobs import control, start\nimport sys\ncontrol.WORKER = 'slow_worker'\n"
    code += "print(start('family', {'trace': sys.argv[1]}, 'family').id, flush=True)\nsys.stdin.readline()"
    command = [sys.executable, "-P", "-c", code, str(tmp_path / "trace")]
    window = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)
    job = find_job(window.stdout.readline().strip())
    child = int(until(job, lambda seen: seen.event is not None).event.what.split()[1])
    dead = worker_of(job)
    dead.kill()
    until(job, lambda seen: seen.state == "interrupted")
    assert dead.status() == psutil.STATUS_ZOMBIE
    resume(job)
    assert ended(child)
    assert worker_of(job).pid != dead.pid
    window.communicate("\n")


def test_two_windows_that_resume_begin_one_worker(until):
    job = start("count", {"to": 10**6}, "counting")
    until(job, lambda seen: seen.event is not None)
    cancel(job)
    code = "import sys, time\nfrom edgeq.jobs import control, find_job, resume\ncontrol.WORKER = 'slow_worker'\n"
    code += "job = find_job(sys.argv[1])\nprint('ready', flush=True)\nsys.stdin.readline()\n"
    code += "control._launch(job)  # as a window that saw it cancelled a moment ago"
    windows = [
        subprocess.Popen([sys.executable, "-P", "-c", code, job.id], stdin=-1, stdout=-1, text=True) for _ in range(4)
    ]
    for window in windows:
        assert window.stdout.readline() == "ready\n"
    for window in windows:
        window.stdin.write("\n")
        window.stdin.flush()
    for window in windows:
        assert window.wait(60) == 0
        window.stdin.close()
        window.stdout.close()
    until(job, lambda seen: seen.event is not None)
    folder = str(shelf.folder_of(job))
    workers = [p.pid for p in psutil.process_iter(["cmdline"]) if folder in (p.info["cmdline"] or [])]
    assert workers == [worker_of(job).pid]
    assert look(job).state == "running"


def test_resuming_a_running_job_begins_no_second(until):
    job = start("count", {"to": 10**6}, "counting")
    pid = worker_of(job).pid
    resume(job)
    control._launch(job)
    assert worker_of(job).pid == pid


def test_another_process_with_the_same_id_is_not_the_job_s():
    job = start("count", {"to": 1}, "counting")
    wait(job, 60)
    folder = shelf.folder_of(job)
    (folder / shelf.RESULT).unlink()
    noted = shelf.load(folder / shelf.PROCESS)
    # This test's own process, as if the id of a worker that was killed had been given again.
    (folder / shelf.PROCESS).write_text(json.dumps({**noted, "pid": os.getpid()}))
    assert look(job).state == "interrupted"
    pause(job)  # which would stop this test
    cancel(job)
    assert look(job).state == "interrupted"


def test_no_zombie_is_left(until):
    job = start("count", {"to": 10**6}, "counting")
    pid = worker_of(job).pid
    until(job, lambda seen: seen.event is not None)
    os.kill(pid, signal.SIGKILL)
    until(job, lambda seen: seen.state == "interrupted" and not psutil.pid_exists(pid))


def test_a_zombie_of_another_window_counts_as_ended(until):
    code = "from edgeq.jobs import control, start\nimport sys\ncontrol.WORKER = 'slow_worker'\n"
    code += "print(start('count', {'to': 1}, 'counting').id, flush=True)\nsys.stdin.readline()"
    window = subprocess.Popen([sys.executable, "-P", "-c", code], stdin=-1, stdout=-1, text=True)
    job = find_job(window.stdout.readline().strip())
    assert wait(job, 60).state == "done"
    assert worker_of(job).status() == psutil.STATUS_ZOMBIE
    window.communicate("\n")


def test_a_job_at_work_can_t_be_forgotten(until):
    job = start("count", {"to": 10**6}, "counting")
    with pytest.raises(EdgeqError, match="at work"):
        forget(job)
    cancel(job)
    forget(job)
    assert all_jobs() == []


def test_a_done_job_is_not_done_again():
    job = start("count", {"to": 1}, "counting")
    wait(job, 60)
    with pytest.raises(EdgeqError, match="done"):
        resume(job)


def test_work_that_is_not_measured_gives_way(until):
    job = start("count", {"to": 10**6}, "counting")
    until(job, lambda seen: seen.event is not None)
    assert worker_of(job).nice() > psutil.Process().nice()


def test_relative_paths_are_from_where_the_job_was_begun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = start("count", {"to": 10**6}, "counting")
    monkeypatch.chdir("/")
    cancel(job)
    resume(job)
    assert Path(worker_of(job).cwd()) == tmp_path


def test_birth_tells_processes_apart():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1)
    assert process.birth(child.pid) not in (None, process.birth(os.getpid()))
    assert process.living(child.pid, process.birth(child.pid)) is not None
    child.communicate(b"\n")
    assert process.birth(2**22 + 1) is None
    assert process.living(10**30, "x") is None
