"""A registry that gives out images of one layer: enough of the protocol for an engine to pull from it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
from typing import Any


class Registry:
    """Listens on loopback, which engines trust without TLS; or at an address of which they are told to.

    `user` and `password` say who may pull; by default anyone.
    """

    def __init__(self, user: str = "", password: str = "", *, address: str = "127.0.0.1") -> None:
        self.credentials = base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
        self.blobs: dict[str, tuple[str, bytes]] = {}
        self.tags: dict[tuple[str, str], str] = {}
        #: Paths that were asked for, with the status of the answer.
        self.asked: list[tuple[str, int]] = []
        #: While this is not set, layers are not given out: a pull takes as long as that.
        self.gives = threading.Event()
        self.gives.set()
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if "/blobs/" in self.path:
                    registry.gives.wait()
                status, kind, body = registry._answer(self.path, self.headers.get("Authorization", ""))
                registry.asked.append((self.path, status))
                self.send_response(status)
                if status == 401:
                    self.send_header("WWW-Authenticate", 'Basic realm="test"')
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Docker-Content-Digest", _digest(body))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self._server.daemon_threads = True
        self.host = f"{address}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.gives.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def push(self, repository: str, tag: str, layer: bytes, config: dict[str, Any]) -> str:
        """Put an image of one layer (a tar file) under a tag; its ID."""
        packed = gzip.compress(layer, mtime=0)
        image = {
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
        text = json.dumps(image).encode()
        vendor = "application/vnd.docker"
        kinds = [f"{vendor}.container.image.v1+json", f"{vendor}.image.rootfs.diff.tar.gzip"]
        parts = []
        for kind, blob in zip(kinds, (text, packed), strict=True):
            self.blobs[_digest(blob)] = kind, blob
            parts.append({"mediaType": kind, "size": len(blob), "digest": _digest(blob)})
        kind = f"{vendor}.distribution.manifest.v2+json"
        manifest = {"schemaVersion": 2, "mediaType": kind, "config": parts[0], "layers": parts[1:]}
        body = json.dumps(manifest).encode()
        self.blobs[_digest(body)] = kind, body
        self.tags[repository, tag] = _digest(body)
        return _digest(text)

    def _answer(self, path: str, authorization: str) -> tuple[int, str, bytes]:
        if self.credentials and authorization != f"Basic {self.credentials}":
            return _error(401, "UNAUTHORIZED", "authentication required")
        if path in ("/v2", "/v2/"):
            return 200, "application/json", b"{}"
        repository, _, rest = path.removeprefix("/v2/").partition("/manifests/")
        digest = self.tags.get((repository, rest), rest) if rest else path.rpartition("/blobs/")[2]
        found = self.blobs.get(digest)
        return (200, *found) if found else _error(404, "MANIFEST_UNKNOWN", "manifest unknown")


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _error(status: int, code: str, message: str) -> tuple[int, str, bytes]:
    body = {"errors": [{"code": code, "message": message}]}
    return status, "application/json", json.dumps(body).encode()


def layer(busybox: bytes) -> bytes:
    """A layer with BusyBox as `sleep` and `sh`."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo("bin/busybox")
        info.size, info.mode = len(busybox), 0o755
        tar.addfile(info, io.BytesIO(busybox))
        for name in ("sleep", "sh", "env"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return file.getvalue()
