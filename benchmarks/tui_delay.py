"""How long a person waits for the guided application while it quantizes: `python benchmarks/tui_delay.py MODEL`.

The application runs in a pseudo-terminal with a real job, both on two cores. Measured are the delay of its event loop
(how much later than asked a sleep of 10 ms ends; how much of the processor it took for itself meanwhile, which is what
can be mended where other work made it late) and the time from a key to what it shows, and from the key that takes it
back, seen from outside: the runs of all windows, the help, the other theme. The bar is 100 ms. POSIX only.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from dataclasses import dataclass, replace
from pathlib import Path

from textual.color import Color
from textual.theme import Theme

from edgeq.tui.themes import DARK, LIGHT

BAR_MS = 100.0
ASKED_S = 0.01
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")  # places and colours, between the characters


@dataclass(frozen=True)
class Press:
    """A key that is pressed twice: it opens a screen and closes it, or changes the theme and changes it back.

    Attributes:
        there, back: what the terminal is told only then, as characters or as an escape sequence.
    """

    key: bytes
    there: bytes
    back: bytes


def ground(theme: Theme) -> bytes:
    """The escape sequence of a theme's background."""
    colour = Color.parse(theme.background or "")
    return b";".join(str(n).encode() for n in (48, 2, *colour.rgb))


BENEATH = b"Output lost"  # the step's screen under the one that a key opens
WAYS = ("there", "back")
PRESSES = (
    Press(b"j", b"state", BENEATH),
    Press(b"?", b"Quantizing writes", BENEATH),
    Press(b"t", ground(LIGHT), ground(DARK)),
)


def inside(model: str, scheme: str, folder: Path) -> None:
    """The application at the step quantize; the delays of its event loop go to `folder`."""
    from edgeq.journey import begin
    from edgeq.plan import Request
    from edgeq.tui.app import EdgeqApp

    late: list[tuple[float, float, float]] = []  # when, seconds late, seconds of the processor that the loop took

    async def probe() -> None:
        while True:
            before, worked = time.perf_counter(), time.thread_time()
            await asyncio.sleep(ASKED_S)
            late.append((time.time(), time.perf_counter() - before - ASKED_S, time.thread_time() - worked))

    async def run() -> None:
        probing = asyncio.create_task(probe())
        await EdgeqApp(replace(journey, step="quantize")).run_async()
        probing.cancel()

    journey = begin(folder / "models").with_model(model).with_choice(Request(context=512), scheme, "onnxruntime/cpu")
    asyncio.run(run())
    (folder / "late.json").write_text(json.dumps(late))


class Terminal:
    """A program in a pseudo-terminal of 120 by 40 characters."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self._fd, there = pty.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.process = subprocess.Popen(
            command, stdin=there, stdout=there, stderr=there, env=env, start_new_session=True
        )
        os.close(there)

    def press(self, key: bytes) -> None:
        os.write(self._fd, key)

    def until(self, text: bytes, seconds: float) -> float:
        """The seconds until the program wrote it.

        Raises:
            SystemExit: it did not, or ended.
        """
        begun, said = time.perf_counter(), b""
        while text not in said and text not in ESCAPES.sub(b"", said):
            left = begun + seconds - time.perf_counter()
            if left < 0 or self.process.poll() is not None:
                raise SystemExit(f"{text.decode()!r} never came")
            said += self.read(left)
        return time.perf_counter() - begun

    def read(self, seconds: float) -> bytes:
        ready, _, _ = select.select([self._fd], [], [], max(0.0, seconds))
        try:
            return os.read(self._fd, 1 << 16) if ready else b""
        except OSError:  # the program has closed its terminal
            return b""

    def drain(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self.read(left)


def measure(model: str, scheme: str, seconds: float) -> dict[str, list[float]]:
    """What was measured while the job was at work, in ms each time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = os.environ | {"EDGEQ_HOME": str(folder / "home"), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        command = [sys.executable, __file__, "--inside", name, "--scheme", scheme, model]
        terminal = Terminal(command, env)
        try:
            terminal.until(b"Press s", 120)
            terminal.press(b"s")
            terminal.until(b"Quantizing", 60)
            begun, took = time.time(), {(press.key, way): [] for press in PRESSES for way in WAYS}
            ended = begun
            while time.time() - begun < seconds and working(folder):
                for press in PRESSES:
                    for way, text in zip(WAYS, (press.there, press.back), strict=True):
                        terminal.drain(0.3)
                        terminal.press(press.key)
                        took[press.key, way].append(1000 * terminal.until(text, 30))
                ended = time.time()
            terminal.drain(0.5)
            terminal.press(b"q")
            while terminal.process.poll() is None:
                terminal.drain(0.1)
        finally:
            terminal.process.kill()
            stop(folder)
        laps = [lap for lap in json.loads((folder / "late.json").read_text()) if begun <= lap[0] <= ended]
    found = {"event loop, late": [1000 * late for _, late, _ in laps]}
    found["event loop, at work"] = [1000 * worked for _, _, worked in laps]
    return found | {f"key {key.decode()}, {way}": ms for (key, way), ms in took.items()}


def working(folder: Path) -> bool:
    """Whether the job is not at its end."""
    return not any((folder / "home" / "jobs").glob("*/result.json")) and not any(
        (folder / "home" / "jobs").glob("*/error.json")
    )


def stop(folder: Path) -> None:
    os.environ["EDGEQ_HOME"] = str(folder / "home")
    from edgeq.jobs import all_jobs, cancel

    for job in all_jobs():
        cancel(job)


def told(name: str, ms: list[float]) -> bool:
    """Print a row; whether it is under the bar."""
    ranked = sorted(ms)
    p99 = ranked[int(0.99 * (len(ranked) - 1))]
    good = p99 < BAR_MS
    figures = f"{ranked[len(ms) // 2]:9.1f} {p99:9.1f} {BAR_MS:7.0f} {ranked[-1]:9.1f}"
    print(f"{name:24} {len(ms):6} {figures}   {'ok' if good else 'SLOW'}")
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model")
    parser.add_argument("--scheme", default="gptq-int4-g32")
    parser.add_argument("--seconds", type=float, default=60, help="that are measured at most")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    if given.inside is not None:
        inside(given.model, given.scheme, given.inside)
        return
    found = measure(given.model, given.scheme, given.seconds)
    print(f"{given.model}, {given.scheme}, two cores, load {os.getloadavg()[0]:.1f}; ms, the bar is on p99\n")
    print(f"{'':24} {'times':>6} {'median':>9} {'p99':>9} {'bar':>7} {'max':>9}")
    good = [told(name, ms) for name, ms in found.items()]
    raise SystemExit(not all(good))


if __name__ == "__main__":
    main()
