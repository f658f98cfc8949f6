"""Who may call: one account with one API key, and the tokens made from it.

Credentials come from `TUTUM_USER` and `TUTUM_APIKEY`, or are made at the first start, shown once and kept as
a salted hash in `<data>/auth.json` (mode 0600). A made key has 160 random bits and a given one never touches
the disk, so a fast hash is enough: there is nothing to guess.

A short token (`POST /api/v1/token/`) stands for the key for an hour. It is not stored:
`t<expiry>-<signature>`, the signature an HMAC under a key of this server's own (kept in the same file, so
that tokens survive a restart). Tokens of services (role `global`) are the control plane's, which knows when
they end.

Accepted forms of a credential, as tutum-api.md section 1 has them: `ApiKey user:key`; `Basic
base64(user:key)`, also in the quotes that the tutum CLI writes into its file; the pair `?user=&token=` of
websockets.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError

_FILE_VERSION = 1
_USER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]")
_TOKEN = re.compile(r"(t[0-9]{1,12})-([0-9a-f]{40})")
_TOKEN_SECONDS = 3600
#: Headers that were found good, so that each costs one lookup; forgotten all at once when there are too many.
_CACHE_SIZE = 1024


@dataclass(frozen=True)
class Principal:
    """Who a request comes from.

    Attributes:
        user: the account.
        service: uuid of the service whose token was used, which ends with the service. None: the account.
        expires: when a short token ends (seconds since the epoch), else None.
    """

    user: str
    service: str | None = None
    expires: float | None = None


class Authority:
    """Recognises credentials and makes short tokens. Comparing takes the same time whatever was wrong."""

    def __init__(
        self, user: str, key_hash: bytes, salt: bytes, token_key: bytes, now: Callable[[], float] = time.time
    ) -> None:
        self.user = user
        self._user_hash = _hash(salt, user)
        self._key_hash = key_hash
        self._salt = salt
        self._token_key = token_key
        self._now = now
        self._good: dict[bytes, Principal] = {}

    @classmethod
    def of_key(
        cls, user: str, apikey: str, token_key: bytes | None = None, now: Callable[[], float] = time.time
    ) -> Authority:
        """The authority for credentials in clear."""
        salt = secrets.token_bytes(16)
        return cls(user, _hash(salt, apikey), salt, token_key or secrets.token_bytes(32), now)

    def recognise(self, authorization: bytes) -> Principal | None:
        """Whose `Authorization` header value this is, or None."""
        # Keyed by a hash: the time of a lookup must say nothing about the header itself.
        digest = hashlib.sha256(authorization).digest()
        principal = self._good.get(digest)
        if principal is None:
            pair = split_header(authorization)
            principal = self.recognise_pair(*pair) if pair else None
            if principal is None:
                return None
            if len(self._good) >= _CACHE_SIZE:
                self._good.clear()
            self._good[digest] = principal
        if principal.expires is not None and principal.expires < self._now():
            return None
        return principal

    def recognise_pair(self, user: str, key: str) -> Principal | None:
        """Whose user name and key (or token) this is, or None."""
        user_is_right = hmac.compare_digest(_hash(self._salt, user), self._user_hash)
        if not hmac.compare_digest(_hash(self._salt, key), self._key_hash):
            return self._of_token(key) if user_is_right else None
        return Principal(self.user) if user_is_right else None

    def short_token(self) -> str:
        """A token that stands for the API key for an hour."""
        return self._sign(f"t{int(self._now()) + _TOKEN_SECONDS}")

    def _sign(self, claim: str) -> str:
        signature = hmac.new(self._token_key, claim.encode(), hashlib.sha256).hexdigest()[:40]
        return f"{claim}-{signature}"

    def _of_token(self, token: str) -> Principal | None:
        match = _TOKEN.fullmatch(token)
        if match is None or not hmac.compare_digest(self._sign(match[1]), token):
            return None
        expires = float(match[1][1:])
        return Principal(self.user, expires=expires) if expires >= self._now() else None


def split_header(authorization: bytes) -> tuple[str, str] | None:
    """User and key of an `Authorization` header value in any of the accepted forms, or None."""
    scheme, _, rest = authorization.strip().partition(b" ")
    scheme = scheme.lower()
    if scheme == b"basic":
        # What is no base64 is skipped: the tutum CLI sends the quotes of its file, and padding is ours to
        # add.
        encoded = _NOT_BASE64.sub(b"", rest)
        try:
            rest = base64.b64decode(encoded + b"=" * (-len(encoded) % 4))
        except binascii.Error:
            return None
    elif scheme != b"apikey":
        return None
    try:
        user, colon, key = rest.decode("utf-8").strip().partition(":")
    except UnicodeDecodeError:
        return None
    return (user.strip(), key.strip()) if colon else None


@dataclass(frozen=True)
class Opened:
    """What `open_authority` found. `made_apikey`: a key made just now, to be shown once."""

    authority: Authority
    made_apikey: str | None


def open_authority(environ: Mapping[str, str], data: Path | None, *, may_make: bool = True) -> Opened:
    """The authority of a server: from the environment, else from `data`, else made now (and kept in `data`).

    Args:
        may_make: False where nobody is there to read what was made: there must be credentials already.

    Raises:
        ConfigError: a user name that cannot be one, a file that cannot be read or written, no credentials.
    """
    user, apikey = environ.get("TUTUM_USER", "").strip(), environ.get("TUTUM_APIKEY", "").strip()
    if user and not _USER.fullmatch(user):
        raise ConfigError("TUTUM_USER must be 1 to 63 letters, digits, dots, hyphens and underscores.")
    if apikey and not user:
        raise ConfigError("TUTUM_APIKEY is set but TUTUM_USER is not; set both.")
    path = data / "auth.json" if data else None
    kept = _read(path) if path and path.exists() else {}
    token_key = _unhex(kept, "token_key", path) if kept else secrets.token_bytes(32)
    if apikey:
        if path and not kept:
            _write(path, {"token_key": token_key.hex()})
        return Opened(Authority.of_key(user, apikey, token_key), None)
    if "key_hash" in kept and (not user or user == kept.get("user")):
        salt, key_hash = _unhex(kept, "salt", path), _unhex(kept, "key_hash", path)
        return Opened(Authority(str(kept["user"]), key_hash, salt, token_key), None)
    if not may_make:
        raise ConfigError(
            "A server that other machines can reach needs credentials: set TUTUM_USER and TUTUM_APIKEY."
        )
    user, apikey = user or "admin", secrets.token_hex(20)
    salt = secrets.token_bytes(16)
    key_hash = _hash(salt, apikey)
    if path:
        _write(
            path,
            {"user": user, "salt": salt.hex(), "key_hash": key_hash.hex(), "token_key": token_key.hex()},
        )
    return Opened(Authority(user, key_hash, salt, token_key), apikey)


def _hash(salt: bytes, text: str) -> bytes:
    return hashlib.sha256(salt + text.encode("utf-8", "surrogatepass")).digest()


def _read(path: Path) -> dict[str, object]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(kept, dict) or kept.get("version") != _FILE_VERSION:
            raise ValueError
    except (OSError, ValueError):
        raise ConfigError(
            f"{path} is not a credentials file of this version; move it away to start anew."
        ) from None
    return kept


def _unhex(kept: Mapping[str, object], name: str, path: Path | None) -> bytes:
    try:
        return bytes.fromhex(str(kept[name]))
    except (KeyError, ValueError):
        raise ConfigError(f"{path} has no usable {name!r}; move the file away to start anew.") from None


def _write(path: Path, values: Mapping[str, object]) -> None:
    """Whole or not at all, readable by the owner only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"version": _FILE_VERSION, **values}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror}.") from None
