"""The least that an ASGI server can do: the peer of the control plane. `python -m bench.bare BODY_FILE`.

It answers every request with the same bytes, on the control plane's HTTP server with the same settings, and
prints the same line when it listens.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn

_Message = dict[str, Any]


def bare_app(body: bytes) -> Callable[..., Awaitable[None]]:
    """An application that answers everything with `body`."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    rest = {"type": "http.response.body", "body": body}

    async def app(
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        await send(start)
        await send(rest)

    return app


def main() -> None:
    body = Path(sys.argv[1]).read_bytes()
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(bare_app(body), lifespan="off", access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
