"""Time from starting `edgeq tui` to the first paint, in a pseudo-terminal: python benchmarks/tui_start.py [--step plan]

The first paint is the first frame that holds the road's first word on the screen (`--until` says another). Each run is
a process of its own with an empty home; the median of ten is printed with the machine's load beside it.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import signal
import statistics
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path

TARGET_S = 0.7
PATIENCE_S = 30.0


def first_paint(arguments: list[str], until: bytes, size: tuple[int, int] = (120, 40)) -> float:
    """Seconds from the start of the process until `until` is on the screen.

    Raises:
        RuntimeError: it did not come, or the process ended before.
    """
    with tempfile.TemporaryDirectory() as home:
        command = [str(Path(sys.executable).with_name("edgeq")), "tui", *arguments]
        begun = time.perf_counter()
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(home)
            env = os.environ | {"EDGEQ_HOME": home, "TERM": "xterm-256color", "HF_HUB_OFFLINE": "1"}
            os.execve(command[0], command, env)
        try:
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
            return _wait(terminal, until) - begun
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(terminal)


def _wait(terminal: int, until: bytes) -> float:
    seen, end = b"", time.perf_counter() + PATIENCE_S
    while time.perf_counter() < end:
        if select.select([terminal], [], [], 0.5)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError as error:  # the process has gone
                raise RuntimeError(f"ended before it painted: {seen[-500:]!r}") from error
            if until in seen:
                return time.perf_counter()
    raise RuntimeError(f"nothing was painted: {seen[-500:]!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--until", default="Deliver", help="what has to be on the screen")
    parser.add_argument("arguments", nargs="*", help="of `edgeq tui`, after --")
    given = parser.parse_args()
    first_paint(given.arguments, given.until.encode())  # fills the system's file cache, compiles what is not yet
    seconds = [first_paint(given.arguments, given.until.encode()) for _ in range(given.runs)]
    python = sys.version.split()[0]
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    print(f"edgeq tui {' '.join(given.arguments)}: first paint ({given.until!r} on the screen)")
    print(f"  median {statistics.median(seconds):.2f} s of {given.runs} (target {TARGET_S} s)")
    print(f"  from {min(seconds):.2f} to {max(seconds):.2f} s; load of the last minute {load:.0%}, Python {python}")


if __name__ == "__main__":
    main()
