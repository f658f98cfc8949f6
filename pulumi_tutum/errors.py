"""The error tree: every error that this package raises on purpose.

    TutumError
      ConfigError              no or unusable credentials, address or file
      ValidationError          a request that would be wrong; carries `problems` (path, reason)
      TransportError           no usable answer came (refused, reset, timed out, not the API's JSON)
      ApiError                 the API answered with an error; carries status, message, method, path
        BadRequest       400, 415, 422
        AuthError        401, 403
        NotFound         404
        NotAllowed       405
        Conflict         409
        RateLimited      429
        ServerError      5xx
      WaitError                a service did not get where it should; carries the service as last seen
        UnexpectedState        it settled in a state from which it will not get there by itself
        Gone                   it was terminated by somebody else
        WaitTimeout            the deadline passed
        Cancelled              the user interrupted the run
      StreamError              a websocket could not be opened, or broke
      BackendError             (server) the backend could not do what was asked; its text is readable

The client maps a status to a class, the server raises the same classes and renders them:
`ApiError.for_status` and `ApiError.status` are the one table. No message ever contains a request body, a
credential or a value of an environment variable. Only what somebody catches has a class of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

__all__ = [
    "ApiError",
    "AuthError",
    "BackendError",
    "BadRequest",
    "Cancelled",
    "ConfigError",
    "Conflict",
    "Gone",
    "NotAllowed",
    "NotFound",
    "Problem",
    "RateLimited",
    "ServerError",
    "StreamError",
    "TransportError",
    "TutumError",
    "UnexpectedState",
    "ValidationError",
    "WaitError",
    "WaitTimeout",
]


class Problem(NamedTuple):
    """One thing that is wrong with an input: where (`container_ports[0].inner_port`), and what is allowed."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


class TutumError(Exception):
    """Base of every error of this package. `str()` of it is one readable message, safe to print."""


class ConfigError(TutumError):
    """Credentials, address or configuration are missing or unusable."""


class ValidationError(TutumError):
    """Inputs that break a rule of the specification. Nothing was sent."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


class TransportError(TutumError):
    """No usable answer: connection refused or reset, time-out, or an answer that is not the API's JSON.

    Attributes:
        sent: True when the request may have reached the server, so that its effect is unknown.
    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        self.sent = sent
        super().__init__(message)


class ApiError(TutumError):
    """The API answered with an error status.

    Attributes:
        status: the HTTP status.
        message: the API's own `error` text, shortened.
        method, path: the request, without its query.
        detail: the API's nested field messages (`{"service": {"image": [...]}}`), if it sent any.
        retry_after: seconds the server asked to wait, or None.
        action_uri: in the control plane, the Failed action that tells of the refusal; "" if there is none.
    """

    status: int = 500
    action_uri: str = ""
    _by_status: ClassVar[dict[int, type[ApiError]]] = {}

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        method: str = "",
        path: str = "",
        detail: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        if status is not None:
            self.status = status
        self.message = message
        self.method = method
        self.path = path
        self.detail = dict(detail or {})
        self.retry_after = retry_after
        super().__init__(f"{method} {path}: {self.status} {message}" if method else message)

    @classmethod
    def for_status(cls, status: int) -> type[ApiError]:
        """The class for an HTTP error status (400 to 599)."""
        return cls._by_status.get(status) or (ServerError if status >= 500 else BadRequest)


class BadRequest(ApiError):
    """400 (also 415, 422): the request itself is wrong, or the service's state forbids the action."""

    status = 400


class AuthError(ApiError):
    """401 or 403: the credentials are wrong, missing, or not enough."""

    status = 401


class NotFound(ApiError):
    """404: no such object."""

    status = 404


class NotAllowed(ApiError):
    """405: the endpoint does not have this method."""

    status = 405


class Conflict(ApiError):
    """409: another object has the same unique field, or the create key is closed."""

    status = 409


class RateLimited(ApiError):
    """429: too many requests; `retry_after` says for how long."""

    status = 429


class ServerError(ApiError):
    """5xx: the server failed or is overloaded."""

    status = 500


ApiError._by_status.update(
    {400: BadRequest, 401: AuthError, 403: AuthError, 404: NotFound, 405: NotAllowed, 409: Conflict}
)
ApiError._by_status.update({415: BadRequest, 422: BadRequest, 429: RateLimited})


class WaitError(TutumError):
    """A service did not get to its wanted state.

    Attributes:
        service: the service as last seen (the API's detail object), or None when it was never read.
        reasons: lines for the user: each failing container with exit code and reason, its last log lines.
    """

    def __init__(
        self, message: str, service: Mapping[str, Any] | None = None, reasons: Sequence[str] = ()
    ) -> None:
        self.service = dict(service) if service is not None else None
        self.reasons = list(reasons)
        super().__init__(message)


class UnexpectedState(WaitError):
    """The service settled in a state from which it does not reach the wanted one by itself."""


class Gone(WaitError):
    """The service was terminated while it was waited for."""


class WaitTimeout(WaitError):
    """The deadline passed."""


class Cancelled(WaitError):
    """The user interrupted the run; the service goes on by itself."""


class StreamError(TutumError):
    """A websocket could not be opened, was refused, or broke.

    Attributes:
        unauthorized: True when the credentials were refused, so that trying again is of no use.
    """

    def __init__(self, message: str, *, unauthorized: bool = False) -> None:
        self.unauthorized = unauthorized
        super().__init__(message)


class BackendError(TutumError):
    """A backend (simulated, docker, swarm) could not do what was asked. The text is shown to users.

    Attributes:
        transient: asking again may help (the engine does not answer); the control plane does so until its
            deadline.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        self.transient = transient
        super().__init__(message)
