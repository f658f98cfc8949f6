"""Where records are kept: in memory only, or in one SQLite file that survives `kill -9` at any moment.

A store keeps rows (kind, id, JSON text) and writes sets of them at once, all or nothing. It knows nothing of
what is in them. The file is in WAL mode with `synchronous=NORMAL`: what was committed survives any death of
the process; a power failure may take the last moments with it, and never leaves the file broken.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from ..errors import ConfigError, ServerError

SCHEMA_VERSION = 1
#: Marks the file as ours ("Tutm").
APPLICATION_ID = 0x5475746D
FILE = "pulumi-tutum.sqlite3"
LOCK = "pulumi-tutum.lock"


class Row(NamedTuple):
    """One stored record; `seq` is its place in the order of creation."""

    kind: str
    id: str
    seq: int
    data: str


class Store(Protocol):
    """See the module's docstring."""

    def load(self) -> Iterable[Row]:
        """Everything, in order of creation."""
        ...

    def write(self, puts: Sequence[Row], drops: Sequence[tuple[str, str]]) -> None:
        """Commit all of it, or nothing and raise `ServerError` with status 503."""
        ...

    def close(self) -> None: ...


class MemoryStore:
    """Keeps nothing: the records of the running process are all there is."""

    def load(self) -> Iterable[Row]:
        return ()

    def write(self, puts: Sequence[Row], drops: Sequence[tuple[str, str]]) -> None:
        pass

    def close(self) -> None:
        pass


class SqliteStore:
    """One file in a folder, with a lock beside it, so that no second server works on it.

    Raises:
        ConfigError: the folder cannot be used, another server uses it, or the file is newer than this
            program, is not ours, or is damaged. The file is left as it is.
    """

    #: How long a write waits for somebody else's lock. Short: the event loop waits with it.
    BUSY_SECONDS = 0.05

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"Cannot use the data folder {self.folder}: {error.strerror}.") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise ConfigError(
                f"Another server uses the data folder {self.folder}; stop it or choose another."
            ) from None
        try:
            self._db = self._open(self.folder / FILE)
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self, path: Path) -> sqlite3.Connection:
        fresh = not path.exists() or path.stat().st_size == 0
        if not fresh:
            self._inspect(path)
        else:
            # Secrets are in it: nobody else may read it, from the first moment on.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        try:
            db = sqlite3.connect(path, timeout=self.BUSY_SECONDS, isolation_level=None)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            if fresh or not db.execute("PRAGMA user_version").fetchone()[0]:
                db.execute("BEGIN IMMEDIATE")
                db.execute(
                    "CREATE TABLE IF NOT EXISTS record (kind TEXT NOT NULL, id TEXT NOT NULL,"
                    " seq INTEGER NOT NULL, data TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID"
                )
                db.execute(f"PRAGMA application_id={APPLICATION_ID}")
                db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
                db.execute("COMMIT")
        except sqlite3.Error as error:
            raise ConfigError(f"Cannot use {path}: {error}.") from None
        return db

    @staticmethod
    def _inspect(path: Path) -> None:
        """Refuse a file that is not a sound one of ours, without writing a byte to it."""
        advice = "It was left as it is; move it away, or choose another data folder."
        wal = path.with_name(path.name + "-wal")
        # Immutable would not see the write-ahead log that a killed server left behind.
        mode = "mode=ro" if wal.exists() else "mode=ro&immutable=1"
        try:
            db = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=1)
            try:
                version = db.execute("PRAGMA user_version").fetchone()[0]
                application = db.execute("PRAGMA application_id").fetchone()[0]
                tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
                if not version and not tables:
                    return  # a server was killed while it made the file
                if application != APPLICATION_ID:
                    raise ConfigError(f"{path} is not a file of this program. {advice}")
                if version > SCHEMA_VERSION:
                    raise ConfigError(
                        f"{path} was written by a newer version of pulumi-tutum (format {version}, this one "
                        f"reads up to {SCHEMA_VERSION}). Upgrade pulumi-tutum. {advice}"
                    )
                verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
                if verdict != "ok" or "record" not in tables:
                    raise ConfigError(f"{path} is damaged ({verdict.splitlines()[0]}). {advice}")
            finally:
                db.close()
        except sqlite3.Error as error:
            raise ConfigError(f"{path} is damaged or no file of this program ({error}). {advice}") from None

    def load(self) -> Iterable[Row]:
        try:
            return [
                Row(*row) for row in self._db.execute("SELECT kind, id, seq, data FROM record ORDER BY seq")
            ]
        except sqlite3.Error as error:
            raise ConfigError(f"{self.folder / FILE} cannot be read: {error}.") from None

    def write(self, puts: Sequence[Row], drops: Sequence[tuple[str, str]]) -> None:
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT OR REPLACE INTO record (kind, id, seq, data) VALUES (?, ?, ?, ?)", puts)
            if drops:
                db.executemany("DELETE FROM record WHERE kind = ? AND id = ?", drops)
            db.execute("COMMIT")
        except sqlite3.Error as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise ServerError(
                f"The server cannot store anything now: {error}.", status=503, retry_after=1
            ) from error

    def close(self) -> None:
        self._db.close()
        os.close(self._lock)
