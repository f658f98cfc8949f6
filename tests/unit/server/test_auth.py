"""Credentials: every accepted spelling, nothing else, and what is kept on disk."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest

from pulumi_tutum.errors import ConfigError
from pulumi_tutum.server.auth import Authority, Principal, open_authority, split_header

BOB = Authority.of_key("bob", "s3cret:with:colons")


def basic(text: str) -> bytes:
    return b"Basic " + base64.b64encode(text.encode())


@pytest.mark.parametrize(
    "header",
    [
        b"ApiKey bob:s3cret:with:colons",
        b"apikey bob:s3cret:with:colons",
        b"  ApiKey   bob:s3cret:with:colons ",
        basic("bob:s3cret:with:colons"),
        b"basic " + base64.b64encode(b"bob:s3cret:with:colons"),
        # The tutum CLI sends the quotes of its file along.
        b'Basic "' + base64.b64encode(b"bob:s3cret:with:colons") + b'"',
        b"Basic " + base64.b64encode(b"bob:s3cret:with:colons").rstrip(b"="),
        b"Basic " + base64.encodebytes(b"bob:s3cret:with:colons"),
    ],
)
def test_accepted_spellings(header: bytes) -> None:
    assert BOB.recognise(header) == Principal("bob")
    assert BOB.recognise(header) == Principal("bob"), "the second time comes from the cache"


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"ApiKey",
        b"ApiKey bob",
        b"ApiKey bob:",
        b"ApiKey bob:s3cret",
        b"ApiKey bob:s3cret:with:colonsX",
        b"ApiKey BOB:s3cret:with:colons",
        b"ApiKey alice:s3cret:with:colons",
        b"Bearer s3cret:with:colons",
        b"Basic bob:s3cret:with:colons",
        b"Basic A",
        b"Basic \xff\xfe",
        b"ApiKey \xff\xfe:\xff",
        basic("bob:wrong"),
        basic("no colon"),
    ],
)
def test_refused(header: bytes) -> None:
    assert BOB.recognise(header) is None


def test_wrong_headers_are_not_remembered() -> None:
    authority = Authority.of_key("bob", "key")
    for i in range(5000):
        assert authority.recognise(b"ApiKey bob:wrong%d" % i) is None
    assert authority.recognise(b"ApiKey bob:key") == Principal("bob")


def test_short_token_ends() -> None:
    now = [1000.0]
    authority = Authority.of_key("bob", "key", now=lambda: now[0])
    token = authority.short_token()
    header = f"ApiKey bob:{token}".encode()
    assert authority.recognise(header) is not None
    assert authority.recognise(f"ApiKey alice:{token}".encode()) is None
    forged = f"t9999999999-{token.partition('-')[2]}"
    assert authority.recognise(f"ApiKey bob:{forged}".encode()) is None
    now[0] += 3601
    assert authority.recognise(header) is None


def test_split_header_keeps_colons_in_the_key() -> None:
    assert split_header(b"ApiKey u:a:b") == ("u", "a:b")


def test_environment_is_used_and_never_written(tmp_path: Path) -> None:
    opened = open_authority({"TUTUM_USER": "bob", "TUTUM_APIKEY": "s3cret"}, tmp_path)
    assert opened.made_apikey is None
    assert opened.authority.recognise(b"ApiKey bob:s3cret") == Principal("bob")
    assert not any("s3cret" in file.read_text() for file in tmp_path.iterdir())


def test_made_key_is_shown_once_and_kept_hashed(tmp_path: Path) -> None:
    first = open_authority({}, tmp_path / "new")
    assert first.made_apikey is not None
    kept = tmp_path / "new" / "auth.json"
    assert first.made_apikey not in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    again = open_authority({}, tmp_path / "new", may_make=False)
    assert again.made_apikey is None
    header = f"ApiKey {first.authority.user}:{first.made_apikey}".encode()
    assert again.authority.recognise(header) == Principal("admin")
    assert again.authority.recognise(b"ApiKey admin:" + first.made_apikey[::-1].encode()) is None


def test_tokens_survive_a_restart(tmp_path: Path) -> None:
    token = open_authority({}, tmp_path).authority.short_token()
    again = open_authority({}, tmp_path).authority
    assert again.recognise(f"ApiKey admin:{token}".encode()) is not None


def test_environment_wins_over_the_kept_key_and_leaves_it(tmp_path: Path) -> None:
    made = open_authority({}, tmp_path).made_apikey
    given = open_authority({"TUTUM_USER": "admin", "TUTUM_APIKEY": "given"}, tmp_path).authority
    assert given.recognise(b"ApiKey admin:given") is not None
    assert given.recognise(f"ApiKey admin:{made}".encode()) is None
    back = open_authority({}, tmp_path).authority
    assert back.recognise(f"ApiKey admin:{made}".encode()) is not None


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"TUTUM_APIKEY": "x"}, "TUTUM_USER is not"),
        ({"TUTUM_USER": "a b"}, "TUTUM_USER must be"),
        ({"TUTUM_USER": "-"}, "TUTUM_USER must be"),
    ],
)
def test_unusable_environment(environ: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        open_authority(environ, None)


def test_no_credentials_where_none_may_be_made() -> None:
    with pytest.raises(ConfigError, match="set TUTUM_USER and TUTUM_APIKEY"):
        open_authority({}, None, may_make=False)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"version": 99}', "\x00\xff", '{"version": 1, "key_hash": "zz"}']
)
def test_damaged_file_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "auth.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match="move"):
        open_authority({}, tmp_path)
    assert path.read_text() == content


def test_file_of_given_credentials_becomes_one_with_a_made_key(tmp_path: Path) -> None:
    open_authority({"TUTUM_USER": "bob", "TUTUM_APIKEY": "k"}, tmp_path)
    before = json.loads((tmp_path / "auth.json").read_text())
    made = open_authority({}, tmp_path)
    after = json.loads((tmp_path / "auth.json").read_text())
    assert made.made_apikey is not None
    assert after["token_key"] == before["token_key"]


@pytest.mark.parametrize("environ", [{}, {"TUTUM_USER": "bob", "TUTUM_APIKEY": "k3y"}])
def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path, environ: dict[str, str]) -> None:
    folder = tmp_path / "data"
    folder.write_text("no folder", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"Cannot write .*auth\.json: "):
        open_authority(environ, folder)
