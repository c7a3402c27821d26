"""A worker whose jobs do nothing of use, in the ways that jobs can: what tests of the processes begin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.jobs import work, worker


def count(request: dict[str, Any], tell: work.Tell) -> Any:
    """Count to `to` on one core, a step each `step_s`."""
    for done in range(request["to"]):
        until = time.monotonic() + request.get("step_s", 0.01)
        while time.monotonic() < until:
            pass
        tell(done + 1, request["to"], request.get("what", "counting"))
    return {"counted": request["to"]}


def family(request: dict[str, Any], tell: work.Tell) -> Any:
    """Begin a process that works on its own, and wait for it."""
    loop = "import sys, time\nwhile True:\n    open(sys.argv[1], 'a').write('x')\n    time.sleep(0.01)"
    child = subprocess.Popen([sys.executable, "-c", loop, request["trace"]])
    tell(1, 2, f"child {child.pid}")
    child.wait()


def fail(request: dict[str, Any], tell: work.Tell) -> Any:
    tell(1, 3, "about to fail")
    how = request["how"]
    if how == "edgeq":
        raise EdgeqError("no such thing", where="over there", hint="Look elsewhere")
    if how == "memory":
        raise MemoryError
    if how == "module":
        import a_module_that_is_not_there  # noqa: F401
    if how == "system":
        Path("/proc/nothing/here").read_bytes()
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    raise RuntimeError("a fault")


def chatter(request: dict[str, Any], tell: work.Tell) -> Any:
    """Report without end for so many seconds."""
    until, done = time.monotonic() + request["seconds"], 0
    while time.monotonic() < until:
        done += 1
        tell(done, 10**9, f"step {done}", text="x" * 1000)
    return {"told": done}


work.KINDS |= {"count": count, "family": family, "fail": fail, "chatter": chatter}

if __name__ == "__main__":
    worker.main()
