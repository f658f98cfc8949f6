"""The store: what it keeps, and the files it refuses and leaves alone."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pulumi_tutum.errors import ConfigError, ServerError
from pulumi_tutum.server.store import FILE, MemoryStore, Row, SqliteStore
from tests.unit.server.plane import Plane, run

ROWS = [Row("service", "1", 1, "{}"), Row("service", "2", 2, '{"a":1}'), Row("action", "1", 3, "{}")]


def test_keeps_what_was_written(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.write(ROWS, [])
    store.write([Row("service", "1", 1, '{"b":2}')], [("service", "2")])
    store.close()
    again = SqliteStore(tmp_path)
    assert list(again.load()) == [Row("service", "1", 1, '{"b":2}'), ROWS[2]]
    again.close()


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "new")
    store.write(ROWS, [])
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    for file in (tmp_path / "new").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file.name
    store.close()


def test_a_second_server_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    with pytest.raises(ConfigError, match="Another server uses the data folder"):
        SqliteStore(tmp_path)
    store.close()
    SqliteStore(tmp_path).close()


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:8192] = os.urandom(4096)
    path.write_bytes(content)


def newer(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.commit()
    db.close()


def stranger(path: Path) -> None:
    path.unlink()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE other (a)")
    db.execute("PRAGMA user_version=1")
    db.commit()
    db.close()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (damage, "is damaged"),
        (newer, "newer version of pulumi-tutum \\(format 99"),
        (stranger, "not a file of this program"),
        (
            lambda path: path.write_text("hello, I am a text file, not a database\n" * 300),
            "is damaged or no file",
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "is damaged"),
    ],
)
def test_unusable_files_are_refused_and_left_alone(tmp_path: Path, spoil: object, text: str) -> None:
    store = SqliteStore(tmp_path)
    store.write([Row("service", str(i), i, "x" * 500) for i in range(100)], [])
    store.close()
    path = tmp_path / FILE
    assert callable(spoil)
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=text) as refused:
        SqliteStore(tmp_path)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pulumi-tutum.lock", FILE]


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Cannot use the data folder"):
        SqliteStore(tmp_path / "file" / "below")


def test_a_killed_server_leaves_its_log_behind_and_nothing_is_lost(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from pulumi_tutum.server.store import SqliteStore, Row\n"
        "store = SqliteStore(sys.argv[1])\n"
        "for i in range(50): store.write([Row('service', str(i), i, '{}')], [])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == -9
    store = SqliteStore(tmp_path)
    assert [row.id for row in store.load()] == [str(i) for i in range(50)]
    store.close()


def test_fields_of_another_release_do_no_harm(tmp_path: Path) -> None:
    async def test() -> None:
        store = SqliteStore(tmp_path)
        async with Plane(store=store) as plane:
            ports = [{"protocol": "tcp", "inner_port": 80, "published": True}]
            uuid = await plane.up(container_ports=ports, bindings=[{"container_path": "/data"}])
            before = plane.containers(uuid)
        store = SqliteStore(tmp_path)
        rows = [Row(row.kind, row.id, row.seq, _with_more(row.data)) for row in store.load()]
        assert any("volumes" in row.data for row in rows)
        store.write(rows, [])
        async with Plane(store=store) as plane:
            assert plane.containers(uuid) == before

    run(test)


def _with_more(data: str) -> str:
    """A row as a release stores it that knows more."""
    row = json.loads(data)
    spec = row.get("spec") or {}
    for record in (row, *(row[name] for name in ("spec", "info", "image_info") if row.get(name))):
        record["more"] = 1
    for record in (*spec.get("ports", ()), *spec.get("volumes", ())):
        record["more"] = 1
    return json.dumps(row)


def test_a_locked_database_is_a_503_and_changes_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        store = SqliteStore(tmp_path)
        async with Plane(store=store) as plane:
            uuid = await plane.create(name="web")
            other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            before = plane.get(uuid)
            with pytest.raises(ServerError, match="database is locked") as refused:
                await plane.act(uuid, "start")
            assert refused.value.status == 503
            with pytest.raises(ServerError):
                await plane.create(name="other")
            with pytest.raises(ServerError):
                await plane.patch(uuid, run_command="/x")
            assert plane.get(uuid) == before
            assert len(plane.control.listing("service")) == 1
            assert plane.control.health()["status"] != "ok"
            other.execute("ROLLBACK")
            other.close()
            assert (await plane.act(uuid, "start")).body["state"] == "Starting"
            await plane.create(name="other")
            assert plane.control.health()["status"] == "ok"
            await plane.advance(2)
            assert plane.state(uuid) == "Running"

    run(test)


def test_what_happens_while_the_database_is_locked_is_stored_afterwards(tmp_path: Path) -> None:
    async def test() -> None:
        async with Plane(store=SqliteStore(tmp_path)) as plane:
            uuid = await plane.up(target_num_containers=2)
            other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            plane.backend.exit(plane.containers(uuid)[0]["uuid"], 7)
            await plane.advance()
            assert plane.state(uuid) == "Running"
            other.execute("ROLLBACK")
            other.close()
            await plane.advance(2)
            assert plane.state(uuid) == "Partly running"
            assert plane.containers(uuid)[0]["exit_code"] == 7

    run(test)


def test_a_full_disk_is_a_503_and_the_file_stays_sound(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys\n"
        "from pulumi_tutum.server.store import SqliteStore, Row\n"
        "from pulumi_tutum.errors import ServerError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "store = SqliteStore(sys.argv[1])\n"
        "store.write([Row('service', 'first', 1, '{}')], [])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))\n"
        "stored = []\n"
        "for i in range(100):\n"
        "    try:\n"
        "        store.write([Row('service', str(i), i + 2, 'x' * 10_000)], [])\n"
        "        stored.append(str(i))\n"
        "    except ServerError as error:\n"
        "        assert error.status == 503, error.status\n"
        "        break\n"
        "else:\n"
        "    sys.exit('never full')\n"
        "assert {r.id for r in store.load()} == {'first', *stored}\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "store.write([Row('service', 'last', 1000, '{}')], [])\n"
        "store.close()\n"
    )
    assert resource.RLIMIT_FSIZE
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    store = SqliteStore(tmp_path)
    found = {row.id for row in store.load()}
    assert {"first", "last"} <= found
    store.close()


def test_memory_keeps_nothing() -> None:
    store = MemoryStore()
    store.write(ROWS, [])
    assert list(store.load()) == []
    store.close()
