"""One HTTP request and its answer: the only module that knows `requests`. Imported at the first request.

What it adds to requests:
  - a deadline for the whole request. A read time-out only bounds the pause between two bytes, so a server
    that sends one byte a second could hold a caller for ever.
  - an end within a quarter of a second when the caller is interrupted, wherever the request stands.
  - redirects are never followed, cookies never kept, `.netrc` never read: credentials go where they were
    meant to go.
  - a proxy is used only where the caller does not forbid it.

It knows nothing of Tutum's API, and it repeats nothing: what may be repeated is decided in `client.py`.
"""

from __future__ import annotations

import http.client
import http.cookiejar
import io
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.util.wait import wait_for_read

from .errors import Cancelled, TransportError

#: Seconds for a connection to be made, and for a silence in the middle of an answer.
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 30.0
#: No answer of the API comes near; a server that sends more is not the API, or not sane.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
#: Threads that may talk at the same time without a connection being thrown away afterwards.
POOL_SIZE = 200
#: A server that asks for a longer pause is not believed.
ABSURD_SECONDS = 3600.0
_SLICE_SECONDS = 0.25


class Signal(Protocol):
    """What tells that the user wants to stop: `threading.Event` is one."""

    def is_set(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> Any: ...


@dataclass(frozen=True)
class Limit:
    """Until when (on the monotonic clock) a request may take, and what interrupts it."""

    deadline: float
    cancelled: Signal | None = None

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def check(self) -> None:
        """Raises Cancelled when the caller was interrupted."""
        if self.cancelled is not None and self.cancelled.is_set():
            raise Cancelled("interrupted")


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, read to its end. Header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Transport:
    """Sends requests to one control plane. Safe for many threads; the connections are pooled.

    Args:
        base: the address before every path.
        headers: sent with every request.
        ca_bundle: certificates to trust, instead of the system's.
        direct: never through a proxy, whatever the environment says.
    """

    def __init__(
        self, base: str, headers: Mapping[str, str], ca_bundle: str | None = None, *, direct: bool = False
    ) -> None:
        self._base = base
        self._headers = dict(headers)
        self._verify = _trusted(ca_bundle)
        self._proxies = {} if direct else requests.utils.get_environ_proxies(base)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(pool_connections=4, pool_maxsize=POOL_SIZE))

    def close(self) -> None:
        self._session.close()

    def send(
        self,
        method: str,
        path: str,
        limit: Limit,
        *,
        params: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, sent once.

        Args:
            path: what comes after the base address, from `/` on.

        Raises:
            TransportError: no answer; `sent` says whether the request may have reached the server.
            Cancelled: the caller was interrupted (the request may have reached the server).
        """
        limit.check()
        if limit.left() <= 0:
            raise TransportError(f"{method} {path}: no time left", sent=False)
        request = requests.PreparedRequest()
        request.prepare(
            method, self._base + path, {**self._headers, **(headers or {})}, params=params, data=body
        )
        _current.limit = limit
        try:
            response = self._session.send(
                request,
                stream=True,
                allow_redirects=False,
                timeout=(min(CONNECT_SECONDS, limit.left()), min(SILENCE_SECONDS, max(limit.left(), 0.001))),
                verify=self._verify,
                proxies=self._proxies,
                cert=None,
            )
            with response:
                return Answer(
                    response.status_code,
                    {name.lower(): value for name, value in response.headers.items()},
                    self._content(response, limit),
                )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            self._fail(error, method, path, limit)
        finally:
            _current.limit = None

    @staticmethod
    def _content(response: requests.Response, limit: Limit) -> bytes:
        parts: list[bytes] = []
        size = 0
        for part in response.raw.stream(64 * 1024, decode_content=True):
            parts.append(part)
            size += len(part)
            if size > MAX_ANSWER_BYTES:
                raise _Unusable(f"the answer is larger than {MAX_ANSWER_BYTES >> 20} MB")
            limit.check()
        return b"".join(parts)

    def _fail(self, error: Exception, method: str, path: str, limit: Limit) -> NoReturn:
        """The library's error as ours: one sentence, and whether the server may have got the request."""
        chain = list(_chain(error))

        def has(*kinds: type[BaseException]) -> bool:
            return any(isinstance(link, kinds) for link in chain)

        where = self._base
        if has(_Unusable):
            raise TransportError(f"{method} {path}: {error}") from None
        if has(requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, UnicodeError):
            raise TransportError(f"cannot reach {where}: it is not a usable address", sent=False) from None
        if has(requests.exceptions.SSLError, ssl.SSLError):
            reason = next(
                (str(link.reason) for link in chain if isinstance(link, ssl.SSLError) and link.reason), ""
            )
            raise TransportError(
                f"cannot reach {where}: TLS failed ({(reason or 'the certificate is not trusted').lower()}); "
                "set TUTUM_CA_BUNDLE (or tutum:caBundle) to the certificate to trust",
                sent=False,
            ) from None
        if has(requests.exceptions.ProxyError):
            raise TransportError(f"cannot reach {where}: the proxy refused or failed", sent=False) from None
        if has(requests.exceptions.ConnectTimeout, urllib3.exceptions.NewConnectionError, socket.gaierror):
            raise TransportError(
                f"cannot reach {where}: {_why_no_connection(chain)}; start the control plane with "
                "`pulumi-tutum serve`, or set TUTUM_REST_HOST (or tutum:restHost) to where it is",
                sent=False,
            ) from None
        if has(TimeoutError, requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
            late = "in time" if limit.left() <= 0 else f"for {SILENCE_SECONDS:.0f} seconds"
            raise TransportError(f"{method} {path}: {where} did not answer {late}") from None
        raise TransportError(f"{method} {path}: {where} broke the connection off ({_brief(chain)})") from None


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (a number, or an HTTP date); None when it makes no sense:
    negative, no number and no date, or longer than `ABSURD_SECONDS`."""
    if value is None:
        return None
    try:
        seconds = float(urllib3.Retry().parse_retry_after(value))
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError, TypeError):
        return None
    return seconds if 0 <= seconds <= ABSURD_SECONDS else None


# -- the deadline ----------------------------------------------------------------------------------


class _Current(threading.local):
    """The limit of the request that this thread is sending."""

    limit: Limit | None = None


_current = _Current()


class _Unusable(OSError):
    """An answer that is refused for what it is."""


class _Bounded(io.RawIOBase):
    """A socket's bytes as http.client reads them, each wait cut to the current request's limit."""

    def __init__(self, raw: io.RawIOBase, sock: Any) -> None:
        self._raw = raw
        self._sock = sock
        # A TLS connection may hold bytes that it has decrypted already: the socket then has nothing to
        # wait for.
        self._pending: Callable[[], int] = getattr(sock, "pending", lambda: 0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        limit = _current.limit
        if limit is not None and not self._pending():
            silent_until = time.monotonic() + SILENCE_SECONDS
            while True:
                limit.check()
                left = min(limit.left(), silent_until - time.monotonic())
                if left <= 0:
                    raise TimeoutError("timed out")
                if wait_for_read(self._sock, left if limit.cancelled is None else min(left, _SLICE_SECONDS)):
                    break
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Bounded(self.fp.detach(), sock))


class _Connecting:
    """Connects within the current request's limit. What happens meanwhile (a name is looked up, hands are
    shaken) knows no deadline as a whole and no interruption; so it has a thread of its own, which is left
    behind when it takes too long."""

    def connect(self) -> None:
        connect: Callable[[], None] = super().connect  # type: ignore[misc]
        limit, made = _current.limit, Future[None]()

        def work() -> None:
            try:
                connect()
            except BaseException as error:
                made.set_exception(error)
            else:
                made.set_result(None)

        try:
            threading.Thread(target=work, name="tutum-connect", daemon=True).start()
        except RuntimeError:
            # The process is ending.
            return connect()
        while not wait([made], _SLICE_SECONDS).done:
            if limit is not None and (limit.left() <= 0 or (limit.cancelled and limit.cancelled.is_set())):
                made.add_done_callback(lambda _: self.close())  # type: ignore[attr-defined]
                limit.check()
                raise urllib3.exceptions.ConnectTimeoutError("no connection in time")
        made.result()


class _Connection(_Connecting, urllib3.connection.HTTPConnection):
    response_class = _Response


class _TlsConnection(_Connecting, urllib3.connection.HTTPSConnection):
    response_class = _Response


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_POOLS = {"http": _Pool, "https": _TlsPool}


class _Adapter(HTTPAdapter):
    """requests' adapter with our connections; it repeats nothing (max_retries is 0)."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


# -- small things ----------------------------------------------------------------------------------


def _trusted(ca_bundle: str | None) -> str | bool:
    """What requests' `verify` should be: the given certificates, else the system's, else those requests
    brings."""
    if ca_bundle:
        return ca_bundle
    system = ssl.get_default_verify_paths()
    for path in (os.environ.get("REQUESTS_CA_BUNDLE"), system.cafile):
        if path and os.path.exists(path):
            return path
    return True


def _chain(error: BaseException) -> Any:
    """The error and everything it was made from: causes, contexts, urllib3's `reason`, and errors given as
    arguments."""
    seen: set[int] = set()
    todo: list[Any] = [error]
    while todo:
        link = todo.pop(0)
        if isinstance(link, BaseException) and id(link) not in seen:
            seen.add(id(link))
            yield link
            todo += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]


def _why_no_connection(chain: list[BaseException]) -> str:
    for link in chain:
        if isinstance(link, socket.gaierror):
            return "the host name is not known"
        if isinstance(link, ConnectionRefusedError):
            return "connection refused"
    if any(isinstance(link, (requests.exceptions.ConnectTimeout, TimeoutError)) for link in chain):
        return "no connection in time"
    return _brief(chain)


def _brief(chain: list[BaseException]) -> str:
    """The system's own words for what happened; never a text that could hold what was sent."""
    for link in chain:
        if isinstance(link, OSError) and link.strerror and not isinstance(link, requests.RequestException):
            return link.strerror.lower()
    if any(
        isinstance(link, (http.client.IncompleteRead, urllib3.exceptions.IncompleteRead)) for link in chain
    ):
        return "the answer was cut short"
    if any(isinstance(link, http.client.RemoteDisconnected) for link in chain):
        return "closed without an answer"
    return "not HTTP" if any(isinstance(link, http.client.HTTPException) for link in chain) else "broken"
