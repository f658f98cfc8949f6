"""Where credentials and addresses come from: one function, one order.

Credentials, first match wins (tutum-api.md, section 1):
  1. `TUTUM_AUTH`, a whole Authorization header value. It stands above everything else, because the
     engine's `refresh` and `destroy` use the configuration of the last `up`: after a key rotation the
     environment is the way out.
  2. what the caller gives: `auth`, or `user` and `apikey` (Pulumi's configuration, a Provider's or
     Client's arguments)
  3. `TUTUM_USER` and `TUTUM_APIKEY` (either may complete what the caller gave)
  4. `TUTUM_USER` and `TUTUM_PASS`, the account's password
  5. `~/.tutum`, as the `tutum` command writes it

A Settings object never shows its credentials: not in `repr`, not in a pickle (which could end in a stack's
state).
"""

from __future__ import annotations

import base64
import binascii
import configparser
import ipaddress
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from .errors import ConfigError

__all__ = ["DEFAULT_REST_HOST", "DEFAULT_TIMEOUT_SECONDS", "Settings", "is_loopback", "resolve"]

DEFAULT_REST_HOST = "http://127.0.0.1:8280"
DEFAULT_TIMEOUT_SECONDS = 600.0

#: What stands in a pickle in the place of credentials.
_MASK = "[secret]"


@dataclass(frozen=True)
class Settings:
    """Everything needed to talk to one control plane as one user.

    Attributes:
        authorization: the value of the Authorization header.
        user: the account's name, "" when the header does not tell.
        rest_host: `http(s)://host[:port]`, without a trailing slash.
        stream_host: `ws(s)://host[:port]`, without a trailing slash.
        ca_bundle: path of a file (or folder) of certificates to trust, or None for the system's.
        timeout_seconds: how long an operation may take when nothing else says so.
        monitor_seconds: how long a container must run before it is up, when the program does not say so;
            None: not configured.
        source: where the credentials came from, in words for a message.
    """

    authorization: str = field(repr=False)
    user: str
    rest_host: str
    stream_host: str
    ca_bundle: str | None = None
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    monitor_seconds: int | None = None
    source: str = "the arguments"

    @property
    def secrets(self) -> list[str]:
        """Every form in which the credentials could appear in a text."""
        value = self.authorization.partition(" ")[2] or self.authorization
        pair = _pair(self.authorization)
        return [text for text in (self.authorization, value, pair[1] if pair else "") if len(text) >= 4]

    @property
    def usable(self) -> bool:
        """False for settings that came out of a pickle: the credentials did not travel."""
        return self.authorization != _MASK

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "authorization": _MASK}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def resolve(
    explicit: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    home: Path | None = None,
) -> Settings:
    """The settings that hold now.

    Args:
        explicit: `user, apikey, auth, rest_host, stream_host, ca_bundle, timeout_seconds,
            monitor_seconds`; None and "" mean "not given".
        environ: the environment (default: the process's own).
        home: the folder in which `.tutum` is looked for (default: the user's).

    Raises:
        ConfigError: one sentence that says what to set. It never holds a credential.
    """
    given = {name: value for name, value in (explicit or {}).items() if value is not None and value != ""}
    env = os.environ if environ is None else environ
    authorization, source = _credentials(given, env, Path.home() if home is None else home)
    rest_host = _address(
        given.get("rest_host") or env.get("TUTUM_REST_HOST") or DEFAULT_REST_HOST,
        ("http", "https"),
        "TUTUM_REST_HOST (or tutum:restHost)",
    )
    stream_host = _address(
        given.get("stream_host") or env.get("TUTUM_STREAM_HOST") or rest_host,
        ("ws", "wss", "http", "https"),
        "TUTUM_STREAM_HOST (or tutum:streamHost)",
    )
    pair = _pair(authorization)
    return Settings(
        authorization=authorization,
        user=pair[0] if pair else "",
        rest_host=rest_host,
        # http becomes ws, https becomes wss
        stream_host=re.sub("^http", "ws", stream_host),
        ca_bundle=_ca_bundle(given.get("ca_bundle") or env.get("TUTUM_CA_BUNDLE")),
        timeout_seconds=_timeout(given.get("timeout_seconds", DEFAULT_TIMEOUT_SECONDS)),
        monitor_seconds=_monitor(given.get("monitor_seconds")),
        source=source,
    )


def is_loopback(address: str) -> bool:
    """True for an address on this machine. Such a one is never asked through a proxy."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


# -- credentials -----------------------------------------------------------------------------------


def _credentials(given: Mapping[str, Any], env: Mapping[str, str], home: Path) -> tuple[str, str]:
    """The Authorization header's value, and where it came from."""
    if env.get("TUTUM_AUTH"):
        return _header(env["TUTUM_AUTH"], "TUTUM_AUTH"), "TUTUM_AUTH"
    if given.get("auth"):
        return _header(given["auth"], "auth"), "the given auth"
    user, apikey = given.get("user") or env.get("TUTUM_USER"), given.get("apikey") or env.get("TUTUM_APIKEY")
    if user and apikey:
        return _apikey(user, apikey), _where(given)
    if user and not given.get("user") and env.get("TUTUM_PASS"):
        return _basic(str(user), env["TUTUM_PASS"]), "TUTUM_USER and TUTUM_PASS"
    stored = _stored(home / ".tutum")
    # The file completes a user that is named elsewhere only if it is that user's file.
    pair = _pair(stored) if stored else None
    if stored and not apikey and (not user or (pair and pair[0] == user)):
        return stored, "~/.tutum"
    if apikey and pair and not user:
        key = "the given apikey" if given.get("apikey") else "TUTUM_APIKEY"
        return _apikey(pair[0], apikey), f"the user of ~/.tutum and {key}"
    if user:
        raise ConfigError(
            "no API key is set for the given user: set TUTUM_APIKEY, or run "
            "`pulumi config set --secret tutum:apikey`"
        )
    if apikey:
        raise ConfigError(
            "an API key is set, but no user: set TUTUM_USER, or run `pulumi config set tutum:user`"
        )
    raise ConfigError(
        "no credentials: set TUTUM_USER and TUTUM_APIKEY, or run `pulumi config set tutum:user` and "
        "`pulumi config set --secret tutum:apikey` (`pulumi-tutum serve` shows its own at the first start)"
    )


def _where(given: Mapping[str, Any]) -> str:
    if given.get("user") and given.get("apikey"):
        return "the given user and apikey (in Pulumi: tutum:user and tutum:apikey)"
    if given.get("apikey"):
        return "TUTUM_USER and the given apikey (in Pulumi: tutum:apikey)"
    return "the given user and TUTUM_APIKEY" if given.get("user") else "TUTUM_USER and TUTUM_APIKEY"


def _header(value: Any, name: str) -> str:
    text = str(value).strip()
    if not re.fullmatch(r"[\x21-\x7e]+ +[\x20-\x7e]+", text):
        raise ConfigError(f"{name} must be a whole Authorization header value, such as `ApiKey user:key`")
    return text


def _apikey(user: Any, apikey: Any) -> str:
    for name, value in (("user", user), ("apikey", apikey)):
        # Anything else could not be sent in a header, or would end it.
        if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x7e]+", value):
            raise ConfigError(f"the {name} must be a text of printable ASCII characters without spaces")
    if ":" in user:
        raise ConfigError("the user must not contain a colon")
    return f"ApiKey {user}:{apikey}"


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


def _pair(authorization: str) -> tuple[str, str] | None:
    """User and key of an `ApiKey` or `Basic` header value, or None if it cannot be taken apart."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            value = base64.b64decode(re.sub(r"[^A-Za-z0-9+/=]", "", value), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            return None
    user, colon, key = value.strip().partition(":")
    return (user, key) if colon else None


def _stored(path: Path) -> str | None:
    """The header value that `~/.tutum` stands for: `basic_auth`, which the `tutum` command writes in
    double quotes (one file is valid INI and TOML at once), else `user` and `apikey`. None when there is no
    file or nothing in it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"cannot read ~/.tutum: {reason}") from None
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        # Its own message quotes the lines, and they may hold the key.
        raise ConfigError(
            "~/.tutum is not a valid file: it needs a section [auth] with basic_auth = ..."
        ) from None
    if not parser.has_section("auth"):
        return None
    values = {key: value.strip().strip("\"'").strip() for key, value in parser.items("auth") if value}
    if values.get("basic_auth"):
        return _header("Basic " + values["basic_auth"], "basic_auth in ~/.tutum")
    if values.get("user") and values.get("apikey"):
        return _apikey(values["user"], values["apikey"])
    return None


# -- the rest --------------------------------------------------------------------------------------


def _address(value: Any, schemes: tuple[str, ...], name: str) -> str:
    """`scheme://host[:port][/prefix]` without a trailing slash."""
    text = str(value).strip()
    example = "for example http://127.0.0.1:8280"
    try:
        parts = urlsplit(text)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        raise ConfigError(f"{name} is not a valid address, {example}") from None
    if "@" in parts.netloc:
        # Shown to nobody: there may be a password in it.
        raise ConfigError(f"{name} must not contain credentials: set TUTUM_USER and TUTUM_APIKEY instead")
    wrong = (
        parts.scheme not in schemes
        or not parts.hostname
        or not port_is_good
        or parts.query
        or parts.fragment
        or not re.fullmatch(r"[\x21-\x7e]+", text)
    )
    if wrong:
        raise ConfigError(
            f"{name} must be an address that starts with {schemes[0]}:// or {schemes[1]}://, {example}"
        )
    # Those who know TUTUM_BASE_URL give the whole base.
    path = re.sub(r"/+(api/v1/?)?$", "", parts.path)
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _ca_bundle(value: Any) -> str | None:
    if not value:
        return None
    path = Path(str(value)).expanduser()
    if not os.access(path, os.R_OK):
        raise ConfigError(
            f"the CA bundle {path} cannot be read: set TUTUM_CA_BUNDLE (or tutum:caBundle) to a PEM file"
        )
    return str(path)


def _timeout(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if isinstance(value, bool) or not (0 < seconds < math.inf):
        raise ConfigError("timeout_seconds (tutum:timeoutSeconds) must be a number of seconds greater than 0")
    return seconds


def _monitor(value: Any) -> int | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if isinstance(value, bool) or not (0 <= seconds < math.inf) or not seconds.is_integer():
        raise ConfigError(
            "monitor_seconds (tutum:monitorSeconds) must be a whole number of seconds, 0 or more"
        )
    return int(seconds)
