"""Readers of logs: `python -m bench.lines websocket|docker ...`; each a process of its own.

Both print `ready` when they are connected, read until they have all lines, and print how many seconds passed
since the first of them came. The lines of a container are numbered from 1 on, `<number> <text>`; a reader
fails when one of them is lost, comes twice or out of order.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import socket
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

_FRAME = re.compile(rb'\{"log": "(\d+) [^"]*", "source": "([^"]*)"[^}]*\}')
#: No text has this byte; a pong too many, for a length that looks like a ping, is allowed.
_PING = re.compile(rb"\x89\x04(.{4})", re.DOTALL)


class _Numbers:
    """The numbers that were read from each container."""

    def __init__(self) -> None:
        self.count = 0
        self._last: dict[str, int] = defaultdict(int)

    def add(self, source: str, number: int) -> None:
        before = self._last[source]
        # They have written before.
        if before and number != before + 1:
            raise RuntimeError(f"line {number} of {source} came after line {before}")
        self._last[source] = number
        self.count += 1


def websocket(url: str, authorization: str, lines: int, wait: bool) -> float:
    """Read log frames as they come over the socket, with as little as possible around it.

    Args:
        wait: read nothing before there is a line on standard input (pings are not answered meanwhile).
    """
    parts = urlsplit(url)
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\n"
        f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        f"Authorization: {authorization}\r\n\r\n"
    )
    numbers = _Numbers()
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=60) as peer:
        peer.sendall(request.encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += _received(peer)
        head, _, data = data.partition(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(head.decode("latin-1"))
        print("ready", flush=True)
        if wait:
            sys.stdin.readline()
        data = data or _received(peer)
        began = time.perf_counter()
        while True:
            end = 0
            for frame in _FRAME.finditer(data):
                numbers.add(frame[2].decode(), int(frame[1]))
                end = frame.end()
            if numbers.count >= lines:
                return time.perf_counter() - began
            for ping in _PING.finditer(data):
                peer.sendall(b"\x8a\x84\0\0\0\0" + ping[1])
            data = data[end:] + _received(peer)


def _received(peer: socket.socket) -> bytes:
    data = peer.recv(1 << 18)
    if not data:
        raise RuntimeError("the stream ended early")
    return data


def docker_py(url: str, label: str, lines: int) -> float:
    """Read with docker-py, one thread and one client for each container."""
    import docker

    client = docker.DockerClient(base_url=url)
    found = [c.id or "" for c in client.containers.list(filters={"label": [label]})]
    client.close()
    each = lines // len(found)
    clients = [docker.APIClient(base_url=url, timeout=60) for _ in found]
    streams = [
        client.logs(container, stream=True, follow=True, tail=0)
        for client, container in zip(clients, found, strict=True)
    ]
    print("ready", flush=True)
    began: list[float] = []

    def read(container: str, stream: object) -> None:
        numbers = _Numbers()
        rest = b""
        for chunk in stream:  # type: ignore[attr-defined]
            if not began:
                began.append(time.perf_counter())
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                numbers.add(container, int(line.partition(b" ")[0]))
            if numbers.count >= each:
                return
        raise RuntimeError("the stream ended early")

    with ThreadPoolExecutor(len(found)) as pool:
        list(pool.map(read, found, streams))
    took = time.perf_counter() - began[0]
    return took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("reader", choices=("websocket", "docker"))
    parser.add_argument("url")
    parser.add_argument("who", help="Authorization header; docker: a label")
    parser.add_argument("lines", type=int)
    parser.add_argument("--wait", action="store_true")
    given = parser.parse_args()
    if given.reader == "websocket":
        took = websocket(given.url, given.who, given.lines, given.wait)
    else:
        took = docker_py(given.url, given.who, given.lines)
    print(took)


if __name__ == "__main__":
    main()
