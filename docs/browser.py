"""The application in a browser, tried with real keys: `python docs/browser.py FOLDER KEY ...`.

Serves `edgeq tui --serve`, opens it in a headless Chromium, presses the keys one after the other, and writes a PNG of
what is seen after each to the folder. Needs `chromium` and what `edgeq[tui]` installs.
"""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

SIZE = 1280, 800
STILL_S = 1.5  # a page that has not changed for so long is done


class Page:
    """A page of Chromium, over its debugging protocol."""

    def __init__(self, channel: aiohttp.ClientWebSocketResponse) -> None:
        self._channel, self._calls = channel, 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._calls += 1
        await self._channel.send_json({"id": self._calls, "method": method, "params": params})
        while (said := await self._channel.receive_json()).get("id") != self._calls:
            pass
        found: dict[str, Any] = said["result"]
        return found

    async def press(self, key: str) -> None:
        """A character, or a name as `Enter` and `Escape`."""
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowDown": 40, "ArrowUp": 38, "Backspace": 8}
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        code = codes.get(key, ord(key.upper()) if len(key) == 1 and key.isalnum() else 0)
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    async def picture(self) -> bytes:
        """A PNG of the page once it stands still, or after half a minute."""
        seen, since, end = b"", time.monotonic(), time.monotonic() + 30
        while time.monotonic() - since < STILL_S and time.monotonic() < end:
            now = base64.b64decode((await self.call("Page.captureScreenshot"))["data"])
            if now != seen:
                seen, since = now, time.monotonic()
            await asyncio.sleep(0.25)
        return seen


async def opened(session: aiohttp.ClientSession, url: str, seconds: float = 60) -> Any:
    """What the address answers, once it does."""
    end = time.monotonic() + seconds
    while True:
        try:
            async with session.get(url) as answer:
                return await answer.json(content_type=None) if "json" in url else await answer.text()
        except aiohttp.ClientError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.2)


async def walk(folder: Path, keys: list[str], served: int, debugged: int) -> None:
    async with aiohttp.ClientSession() as session:
        await opened(session, f"http://127.0.0.1:{served}/")
        pages = await opened(session, f"http://127.0.0.1:{debugged}/json")
        address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        async with session.ws_connect(address, max_msg_size=0) as channel:
            page = Page(channel)
            await page.call("Page.navigate", url=f"http://127.0.0.1:{served}/")
            await asyncio.sleep(5)
            await page.call("Emulation.setFocusEmulationEnabled", enabled=True)
            await page.call("Runtime.evaluate", expression="document.querySelector('textarea').focus()")
            (folder / "0.png").write_bytes(await page.picture())
            for number, key in enumerate(keys, 1):
                await page.press(key)
                (folder / f"{number}-{key if key.isalnum() else ord(key)}.png").write_bytes(await page.picture())


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def main() -> None:
    folder, keys = Path(sys.argv[1]), sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    served, debugged = free_port(), free_port()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        chromium = ["chromium", "--headless=new", "--no-sandbox", f"--remote-debugging-port={debugged}"]
        chromium += [f"--user-data-dir={profile}", f"--window-size={SIZE[0]},{SIZE[1]}", "about:blank"]
        server = [sys.executable, "-P", "-m", "edgeq", "tui", "--serve", "--port", str(served)]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        begun = [subprocess.Popen(command, start_new_session=True, **quiet) for command in (server, chromium)]
        try:
            asyncio.run(walk(folder, keys, served, debugged))
        finally:
            for process in begun:  # with what they began
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


if __name__ == "__main__":
    main()
