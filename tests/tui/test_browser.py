"""A real browser: headless Chromium opens what `edgeq tui --serve` serves, and keys walk to the plan."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from making_data import write_model

aiohttp = pytest.importorskip("aiohttp")
pytest.importorskip("textual_serve")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 180.0
ESCAPES = re.compile(r"\x1b(\[[0-9;?<>=]*[A-Za-z~]|[()][A-Z0-9])")
PICTURES = os.environ.get("EDGEQ_BROWSER_PICTURES")  # a folder: what the page looks like at each step


async def until(seen: Callable[[], bool], said: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not seen():
        assert time.monotonic() < end, said()
        await asyncio.sleep(0.05)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[int]:
    """The port of a server that takes visitors."""
    port, model = free_port(), write_model(tmp_path / "tiny", layers=2)
    words = ["-P", "-m", "edgeq", "tui", "--serve", "--port", str(port), "--device", "rpi-5", "--folder", str(tmp_path)]
    server = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, cwd=model.parent)
    try:
        end = time.monotonic() + PATIENCE
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            assert server.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[int]:
    """The port on which a browser takes orders."""
    profile = tmp_path / "profile"
    words = ["--headless=new", "--no-sandbox", "--remote-debugging-port=0", "--window-size=1000,600", "--disable-gpu"]
    browser = subprocess.Popen(
        [str(CHROMIUM), *words, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.DEVNULL
    )
    try:
        told, end = profile / "DevToolsActivePort", time.monotonic() + PATIENCE
        while not (told.exists() and told.read_text().strip()):
            assert browser.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        yield int(told.read_text().split()[0])
    finally:
        browser.terminate()
        browser.wait(60)


class Page:
    """One tab: what it asks for, and what the application wrote to its terminal since the last key."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._sent, self._answers = socket, 0, {}
        self.asked: list[str] = []
        self.text = ""

    async def listen(self) -> None:
        async for message in self._socket:
            told = message.json()
            what, given = told.get("method"), told.get("params", {})
            if "id" in told:
                self._answers[told["id"]] = told
            elif what == "Network.requestWillBeSent":
                self.asked.append(given["request"]["url"])
            elif what == "Network.webSocketFrameReceived" and given["response"]["opcode"] == 2:
                written = base64.b64decode(given["response"]["payloadData"]).decode("utf-8", "replace")
                self.text += ESCAPES.sub("", written)

    async def order(self, method: str, **given: Any) -> dict[str, Any]:
        self._sent += 1
        mine = self._sent
        await self._socket.send_json({"id": mine, "method": method, "params": given})
        await until(lambda: mine in self._answers, lambda: f"no answer to {method}")
        assert "error" not in self._answers[mine], self._answers[mine]
        return dict(self._answers[mine]["result"])

    async def key(self, key: str, text: str | None = None) -> None:
        self.text = ""
        code = {"Enter": 13}.get(key, ord(key.upper()[0]))
        typed = {"text": key if text is None else text, "windowsVirtualKeyCode": code}
        await self.order("Input.dispatchKeyEvent", type="keyDown", key=key, **typed)
        await self.order("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    async def sees(self, *parts: str) -> None:
        await until(lambda: all(part in self.text for part in parts), lambda: f"waiting for {parts}: {self.text}")
        if PICTURES:
            await asyncio.sleep(1)
            picture = await self.order("Page.captureScreenshot", format="png")
            Path(PICTURES, f"{'-'.join(parts)[:30]}.png").write_bytes(base64.b64decode(picture["data"]))


async def test_another_site_s_page_is_refused(served: int) -> None:
    """It could reach the address too, and would press keys here."""
    async with aiohttp.ClientSession() as session:
        for origin in ("https://elsewhere.example", f"http://elsewhere.example:{served}", "null"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(f"http://127.0.0.1:{served}/ws", origin=origin)
            assert refused.value.status == 403


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
async def test_a_visitor_walks_to_the_plan(served: int, chromium: int) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.put(f"http://127.0.0.1:{chromium}/json/new?about:blank") as made:
            where = (await made.json())["webSocketDebuggerUrl"]
        async with session.ws_connect(where, max_msg_size=0) as socket:
            page = Page(socket)
            listening = asyncio.create_task(page.listen())
            await page.order("Network.enable")
            await page.order("Page.navigate", url=f"http://127.0.0.1:{served}/")
            await page.sees("Device", "Press n to choose a model")
            for kind in ("mousePressed", "mouseReleased"):  # into the terminal, as a person would
                await page.order("Input.dispatchMouseEvent", type=kind, x=500, y=450, button="left", clickCount=1)
            await page.key("n")
            await page.sees("Model", "Choose with", "tiny")
            await page.key("Enter", "\r")
            await page.sees("Plan", "edgeq's advice")
            listening.cancel()
    elsewhere = [url for url in page.asked if not url.startswith((f"http://127.0.0.1:{served}/", "data:", "about:"))]
    assert not elsewhere, "all comes from this machine"
