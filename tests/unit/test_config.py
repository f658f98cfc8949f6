"""Where credentials and addresses come from, in which order, and what is said when they are missing."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pulumi_tutum import config
from pulumi_tutum.client import Client
from pulumi_tutum.errors import ConfigError

PAIR = {"user": "bob", "apikey": "k3y-secret"}


def resolve(
    home: Path, explicit: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> config.Settings:
    return config.resolve(explicit, environ or {}, home=home)


def basic(pair: str) -> str:
    return base64.b64encode(pair.encode()).decode()


def test_every_source_wins_over_those_below_it(tmp_path: Path) -> None:
    (tmp_path / ".tutum").write_text(f'[auth]\nbasic_auth = "{basic("filed:k3y")}"\n')
    environ = {
        "TUTUM_PASS": "p4ss",
        "TUTUM_USER": "env",
        "TUTUM_APIKEY": "k3y",
        "TUTUM_AUTH": "ApiKey whole:k3y",
    }
    explicit = {**PAIR, "auth": "ApiKey given:k3y"}
    order = []
    for name in ("TUTUM_AUTH", "auth", "apikey", "TUTUM_APIKEY", "TUTUM_PASS", None):
        order.append((resolve(tmp_path, explicit, environ).user, resolve(tmp_path, explicit, environ).source))
        environ.pop(name or "", None)
        explicit.pop(name or "", None)
        if name == "apikey":
            explicit.pop("user")
        if name == "TUTUM_PASS":
            environ.pop("TUTUM_USER")
    assert [user for user, _ in order] == ["whole", "given", "bob", "env", "env", "filed"]
    assert [source for _, source in order] == [
        "TUTUM_AUTH",
        "the given auth",
        "the given user and apikey (in Pulumi: tutum:user and tutum:apikey)",
        "TUTUM_USER and TUTUM_APIKEY",
        "TUTUM_USER and TUTUM_PASS",
        "~/.tutum",
    ]


def test_user_and_key_are_sent_as_apikey_and_a_whole_header_as_it_is(tmp_path: Path) -> None:
    assert resolve(tmp_path, PAIR).authorization == "ApiKey bob:k3y-secret"
    whole = f"Basic {basic('bob:k3y')}"
    assert resolve(tmp_path, {}, {"TUTUM_AUTH": whole}).authorization == whole
    assert resolve(tmp_path, {}, {"TUTUM_AUTH": whole}).user == "bob"


def test_user_and_key_may_come_from_different_places(tmp_path: Path) -> None:
    settings = resolve(tmp_path, {"user": "bob"}, {"TUTUM_APIKEY": "k3y", "TUTUM_USER": "other"})
    assert settings.authorization == "ApiKey bob:k3y"
    assert settings.source == "the given user and TUTUM_APIKEY"


@pytest.mark.parametrize(
    "text",
    [
        f'[auth]\nbasic_auth = "{basic("bob:k3y")}"\n',
        f"[auth]\nbasic_auth = {basic('bob:k3y')}\n",
        f"\ufeff[auth]\nbasic_auth='{basic('bob:k3y')}'\nuser = other\napikey = other\n",
    ],
    ids=["quoted, as the tutum command writes it", "bare", "with a byte order mark and single quotes"],
)
def test_basic_auth_of_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / ".tutum").write_text(text, encoding="utf-8")
    settings = resolve(tmp_path)
    assert settings.authorization == f"Basic {basic('bob:k3y')}"
    assert settings.user == "bob"


def test_user_and_apikey_of_the_file(tmp_path: Path) -> None:
    (tmp_path / ".tutum").write_text("[auth]\nuser = bob\napikey = 50%-of-it\n")
    assert resolve(tmp_path).authorization == "ApiKey bob:50%-of-it"


def test_the_file_does_not_lend_its_key_to_another_user(tmp_path: Path) -> None:
    (tmp_path / ".tutum").write_text("[auth]\nuser = bob\napikey = k3y\n")
    assert resolve(tmp_path, {"user": "bob"}).authorization == "ApiKey bob:k3y"
    assert resolve(tmp_path, {"apikey": "n3w"}).authorization == "ApiKey bob:n3w"
    with pytest.raises(ConfigError, match="no API key is set"):
        resolve(tmp_path, {"user": "alice"})


@pytest.mark.parametrize("text", ["", "[other]\nuser = bob\n", "[auth]\nuser = bob\n", "[auth]\n"])
def test_a_file_without_credentials_is_no_file(tmp_path: Path, text: str) -> None:
    (tmp_path / ".tutum").write_text(text)
    with pytest.raises(ConfigError, match="no credentials: set TUTUM_USER and TUTUM_APIKEY"):
        resolve(tmp_path)


@pytest.mark.parametrize("content", [b"k3y-secret without a section", b"[auth]\nuser = \xff\xfe"])
def test_a_broken_file_is_named_but_not_quoted(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".tutum").write_bytes(content)
    with pytest.raises(ConfigError, match=r"~/\.tutum") as caught:
        resolve(tmp_path)
    assert "k3y-secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("explicit", "said"),
    [
        ({}, "set TUTUM_USER and TUTUM_APIKEY"),
        ({"user": "bob"}, "set TUTUM_APIKEY"),
        ({"apikey": "k3y"}, "set TUTUM_USER"),
        ({"auth": "just-a-key"}, "whole Authorization header"),
        ({"user": "bob", "apikey": "k3y\r\nX-Evil: 1"}, "apikey must be"),
        ({"user": "b:ob", "apikey": "k3y"}, "colon"),
        ({"user": "bób", "apikey": "k3y"}, "user must be"),
    ],
)
def test_bad_credentials_are_refused_in_one_sentence(
    tmp_path: Path, explicit: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        resolve(tmp_path, explicit)
    assert "\n" not in str(caught.value)
    assert "k3y" not in str(caught.value)


def test_addresses_in_their_order(tmp_path: Path) -> None:
    environ = {"TUTUM_REST_HOST": "https://env.example:8443/", "TUTUM_STREAM_HOST": "wss://stream.example"}
    assert resolve(tmp_path, PAIR).rest_host == "http://127.0.0.1:8280"
    assert resolve(tmp_path, PAIR).stream_host == "ws://127.0.0.1:8280"
    assert resolve(tmp_path, PAIR, environ).rest_host == "https://env.example:8443"
    assert resolve(tmp_path, PAIR, environ).stream_host == "wss://stream.example"
    given = resolve(tmp_path, {**PAIR, "rest_host": "https://given.example/api/v1/"}, {})
    assert (given.rest_host, given.stream_host) == ("https://given.example", "wss://given.example")
    assert resolve(tmp_path, {**PAIR, "stream_host": "http://s.example/v"}).stream_host == "ws://s.example/v"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:8280",
        "ftp://host",
        "http://",
        "http://host:0",
        "http://host:99999",
        "http://ho st",
        "http://h/?a=b",
    ],
)
def test_a_bad_address_is_refused_and_an_example_shown(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=r"TUTUM_REST_HOST.*http://127\.0\.0\.1:8280"):
        resolve(tmp_path, {**PAIR, "rest_host": address})


def test_credentials_in_an_address_are_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must not contain credentials") as caught:
        resolve(tmp_path, PAIR, {"TUTUM_REST_HOST": "http://bob:hunter2@host"})
    assert "hunter2" not in str(caught.value)


def test_ca_bundle(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("")
    assert resolve(tmp_path, PAIR).ca_bundle is None
    assert resolve(tmp_path, PAIR, {"TUTUM_CA_BUNDLE": str(bundle)}).ca_bundle == str(bundle)
    with pytest.raises(ConfigError, match="TUTUM_CA_BUNDLE"):
        resolve(tmp_path, {**PAIR, "ca_bundle": str(tmp_path / "none.pem")})


@pytest.mark.parametrize("value", ["soon", 0, -1, float("inf"), float("nan"), True, [1]])
def test_a_bad_timeout_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(ConfigError, match="timeout_seconds"):
        resolve(tmp_path, {**PAIR, "timeout_seconds": value})


def test_timeout(tmp_path: Path) -> None:
    assert resolve(tmp_path, PAIR).timeout_seconds == 600
    assert resolve(tmp_path, {**PAIR, "timeout_seconds": "90"}).timeout_seconds == 90


def test_credentials_are_shown_nowhere(tmp_path: Path) -> None:
    settings = resolve(tmp_path, PAIR)
    client = Client(settings=settings)
    for text in (repr(settings), str(settings), repr(client), str(client)):
        assert "k3y-secret" not in text
    for thing in (settings, client):
        assert b"k3y-secret" not in pickle.dumps(thing)


def test_what_comes_out_of_a_pickle_says_that_it_has_no_credentials(tmp_path: Path) -> None:
    client = pickle.loads(pickle.dumps(Client(settings=resolve(tmp_path, PAIR))))
    assert client.settings.rest_host == "http://127.0.0.1:8280"
    with pytest.raises(ConfigError, match="pickle"):
        client.get_service("8d5f6b1e-0a3c-4f5e-9b7d-1c2d3e4f5a6b")


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("http://127.0.0.1:1", True),
        ("http://127.9.9.9", True),
        ("ws://[::1]:80", True),
        ("http://localhost", True),
        ("http://web.localhost", True),
        ("http://10.0.0.1", False),
        ("https://localhost.example", False),
    ],
)
def test_loopback(address: str, local: bool) -> None:
    assert config.is_loopback(address) is local
