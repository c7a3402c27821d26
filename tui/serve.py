"""The application in a browser, through textual-serve: on this machine's own address alone."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from edgeq.errors import EdgeqError

HOST = "127.0.0.1"
PAGE = Path(__file__).parent / "page"  # textual-serve's own asks a font of Google, and can't be seen before that ends


def serve(arguments: list[str], port: int) -> None:
    """Serve until interrupted; each visitor gets a process of the application.

    Args:
        arguments: of `edgeq tui`, for each of them.

    Raises:
        EdgeqError: textual-serve is not installed, or the port is taken.
    """
    try:
        from aiohttp import web
        from textual_serve.server import Server
    except ImportError as error:
        raise EdgeqError("--serve needs textual-serve", hint="pip install 'edgeq[tui]'") from error

    class OwnPageAlone(Server):
        """Any site that is open in the browser could reach this address; what its page asks is refused."""

        async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
            if request.headers.get("Origin") not in (f"http://{HOST}:{port}", f"http://localhost:{port}"):
                raise web.HTTPForbidden
            return await super().handle_websocket(request)

    command = shlex.join([sys.executable, "-P", "-m", "edgeq", "tui", *arguments])
    try:
        OwnPageAlone(command, host=HOST, port=port, title="edgeq", templates_path=PAGE).serve()
    except OSError as error:
        raise EdgeqError(
            f"cannot serve on port {port}: {error.strerror or error}", hint="Choose another --port"
        ) from error
