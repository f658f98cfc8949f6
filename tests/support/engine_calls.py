"""Counts what is asked of an engine: a socket before the engine's own, which passes everything on.

with EngineCalls(engine.url) as calls, Server(backend="docker", node=[calls.url]) as server:
    ...
    assert calls.count("POST", r"/containers/create") == 1
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from tests.support.tools import until

_READ = 1 << 16
#: docker-py sends the head of a request at once, and begins none before the last one was answered.
_REQUEST = re.compile(rb"([A-Z]+) /v[0-9.]+(/[^ ?]*)[^ ]* HTTP/1\.")


class EngineCalls:
    """See the module's docstring.

    Attributes:
        url: stands for the engine's.
        seen: (method, path without version and query) of each request, in order.
    """

    def __init__(self, url: str) -> None:
        self._target = url.removeprefix("unix://")
        self._folder = Path(tempfile.mkdtemp(prefix="tutum-calls-"))
        self.url = f"unix://{self._folder / 'docker.sock'}"
        self.seen: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._folder / "docker.sock"))
        self._listener.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> EngineCalls:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            ends = [self._listener, *self._open]
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        until(lambda: not self._open, "all connections are closed")
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def count(self, method: str = "[A-Z]+", path: str = "/.*") -> int:
        """How many requests there were whose method and path match these patterns."""
        return len(self.matching(method, path))

    def matching(self, method: str = "[A-Z]+", path: str = "/.*") -> list[tuple[str, str]]:
        with self._lock:
            return [(m, p) for m, p in self.seen if re.fullmatch(method, m) and re.fullmatch(path, p)]

    def forget(self) -> None:
        """Count from now on."""
        with self._lock:
            self.seen.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                engine = socket.socket(socket.AF_UNIX)
                try:
                    engine.connect(self._target)
                except OSError:
                    client.close()
                    engine.close()
                    continue
                with self._lock:
                    self._open |= {client, engine}
                self._begin(self._serve, client, engine)

    def _begin(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        return thread

    def _serve(self, client: socket.socket, engine: socket.socket) -> None:
        answers = self._begin(self._pass, engine, client, False)
        self._pass(client, engine, True)
        answers.join()
        with self._lock:
            self._open -= {client, engine}
        client.close()
        engine.close()

    def _pass(self, source: socket.socket, sink: socket.socket, is_asking: bool) -> None:
        """Carry bytes one way until that end is closed; the other way goes on."""
        with contextlib.suppress(OSError):
            while data := source.recv(_READ):
                if is_asking and (found := _REQUEST.match(data)):
                    with self._lock:
                        self.seen.append((found[1].decode(), found[2].decode()))
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
