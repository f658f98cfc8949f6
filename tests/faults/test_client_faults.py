"""The client over real sockets, with a proxy that misbehaves between it and a real control plane.

Expected of every fault: a clear end within the deadline, nothing lost, nothing made twice, no secret in
any message.
"""

from __future__ import annotations

import contextlib
import email.utils
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pulumi_tutum import transport, waiting
from pulumi_tutum.client import Client, Detail
from pulumi_tutum.errors import (
    AuthError,
    Cancelled,
    Conflict,
    Gone,
    RateLimited,
    ServerError,
    TransportError,
    TutumError,
    WaitTimeout,
)
from tests.support import faults
from tests.support.faults import Exchange, Fault, FaultProxy
from tests.support.server import Server
from tests.support.tools import until

CREATE = ("POST", r"/api/v1/service/$")
FAR = 90.0
NOBODY = "00000000-0000-4000-8000-000000000000"
SECRET = "hunter22-very-secret"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(container_start_seconds=0.3) as running:
        yield running


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.url) as made:
        yield made


@pytest.fixture
def client(server: Server, proxy: FaultProxy) -> Iterator[Client]:
    """Through the proxy."""
    with Client(server.user, server.apikey, rest_host=proxy.url) as opened:
        yield opened


@pytest.fixture
def direct(server: Server) -> Iterator[Client]:
    """Past the proxy: what the control plane really has."""
    with Client(server.user, server.apikey, rest_host=server.url) as opened:
        yield opened


@pytest.fixture
def name(request: pytest.FixtureRequest, direct: Client) -> Iterator[str]:
    """A name of this test's own; services that have it are terminated at the end."""
    mine = f"f{abs(hash(request.node.nodeid)) % 10**12}"
    yield mine
    for service in direct.list_services(name=mine):
        if service["state"] not in ("Terminating", "Terminated"):
            waiting.until(direct, service["uuid"])
            direct.terminate_service(service["uuid"])


def body(name: str) -> dict[str, Any]:
    return {
        "image": "tutum/hello-world",
        "name": name,
        "container_envvars": [{"key": "PASS", "value": SECRET}],
    }


def soon(seconds: float = FAR) -> float:
    return time.monotonic() + seconds


def living(direct: Client, name: str) -> list[str]:
    return [s["uuid"] for s in direct.list_services(name=name) if not s["state"].startswith("Terminat")]


def running(now: Detail) -> bool | None:
    return True if now["state"] == "Running" else None


# -- reading ---------------------------------------------------------------------------------------

PASSING: dict[str, Fault] = {
    "reset before the server": faults.reset_before(),
    "reset after the server": faults.reset_after(),
    "429, seconds": faults.status(429, retry_after="1"),
    "429, a date": faults.status(429, retry_after=email.utils.formatdate(time.time(), usegmt=True)),
    "429, absurd": faults.status(429, retry_after="999999999999"),
    "429, negative": faults.status(429, retry_after="-5"),
    "429, nonsense": faults.status(429, retry_after="soon"),
    "500": faults.status(500),
    "503, empty": faults.answer(503),
    "504": faults.status(504),
    "truncated": faults.truncated(),
    "truncated JSON": faults.truncated_json(),
    "HTML": faults.html(),
    "invalid UTF-8": faults.invalid_utf8(),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_read_survives_a_fault_that_passes(
    client: Client, direct: Client, proxy: FaultProxy, name: str, fault: Fault
) -> None:
    made = direct.create_service(body(name))
    proxy.on(fault, "GET")
    assert client.get_service(made["uuid"], deadline=soon())["name"] == name
    assert proxy.count("GET") == 2


def test_a_read_survives_a_burst(client: Client, direct: Client, proxy: FaultProxy, name: str) -> None:
    made = direct.create_service(body(name))
    for code in (503, 500, 502, 503):
        proxy.on(faults.status(code), "GET")
    assert client.get_service(made["uuid"], deadline=soon())["name"] == name
    assert proxy.count("GET") == 5


LASTING: dict[str, tuple[Fault, type[TutumError], str]] = {
    "reset": (faults.reset_before(), TransportError, "broke the connection off"),
    "503": (faults.status(503), ServerError, "injected 503"),
    "429": (faults.status(429), RateLimited, "injected 429"),
    "no answer": (faults.hang(), TransportError, "did not answer in time"),
    "slow headers": (faults.slow_headers(0.1), TransportError, "did not answer in time"),
    "one byte at a time": (faults.drip(0.1), TransportError, "did not answer in time"),
    "truncated": (faults.truncated(), TransportError, "cut short|broke the connection off"),
    "HTML": (faults.html(), TransportError, "HTML page"),
    "wrong types": (faults.wrong_types(), TransportError, "not a service"),
    "invalid UTF-8": (faults.invalid_utf8(), TransportError, "not UTF-8"),
    "another service": (
        faults.edit(lambda s: {**s, "uuid": NOBODY}),
        TransportError,
        "another service",
    ),
}


@pytest.mark.parametrize(("fault", "kind", "said"), LASTING.values(), ids=LASTING)
def test_a_read_ends_clearly_when_the_fault_lasts(
    server: Server,
    client: Client,
    direct: Client,
    proxy: FaultProxy,
    name: str,
    fault: Fault,
    kind: type[TutumError],
    said: str,
) -> None:
    made = direct.create_service(body(name))
    proxy.on(fault, "GET", times=None)
    with pytest.raises(kind, match=said) as caught:
        client.get_service(made["uuid"], deadline=soon(1.0))
    assert server.apikey not in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "fault", [faults.hang(), faults.drip(0.5), faults.slow_headers(0.5), faults.status(503)]
)
def test_an_interruption_ends_a_request_wherever_it_stands(
    client: Client, direct: Client, proxy: FaultProxy, name: str, fault: Fault
) -> None:
    made = direct.create_service(body(name))
    stop = threading.Event()

    def stopping(exchange: Exchange) -> None:
        stop.set()
        fault(exchange)

    proxy.on(stopping, "GET", times=None)
    # Without the interruption it would go on until a deadline that is behind the test's own.
    with pytest.raises(Cancelled):
        client.get_service(made["uuid"], deadline=soon(1000), cancelled=stop)


@pytest.fixture
def deaf() -> Iterator[str]:
    """The address of a server that takes no connection: whatever is sent to it is dropped."""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):  # more than it may keep waiting
            waiting_one = opened.enter_context(socket.socket())
            waiting_one.setblocking(False)
            waiting_one.connect_ex(listener.getsockname())
        yield "http://{}:{}".format(*listener.getsockname())


def test_an_interruption_ends_a_connection_that_is_being_made(
    deaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "CONNECT_SECONDS", 1000.0)
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with Client("bob", "k3y-0123456789", rest_host=deaf) as client:
        with pytest.raises(Cancelled):
            client.get_service(NOBODY, deadline=soon(1000), cancelled=stop)
        with pytest.raises(TransportError, match="no connection in time") as caught:
            client.start_service(NOBODY, deadline=soon(0.5))
        assert not caught.value.sent


def test_credentials_do_not_follow_a_redirect(client: Client, server: Server, proxy: FaultProxy) -> None:
    with FaultProxy(server.url) as elsewhere:
        proxy.on(faults.redirect(elsewhere.url.replace("127.0.0.1", "localhost")), times=None)
        with pytest.raises(TransportError, match="redirects to localhost"):
            list(client.list_services())
        with pytest.raises(TransportError, match="redirects to localhost"):
            client.create_service(body("never"), key="0" * 40)
        assert elsewhere.requests() == []


def test_addresses_in_answers_are_never_followed(
    client: Client, direct: Client, server: Server, proxy: FaultProxy, name: str
) -> None:
    made = direct.create_service(body(name))
    with FaultProxy(server.url) as elsewhere:

        def poison(answer: Any) -> None:
            for service in answer.get("objects", [answer]):
                service["resource_uri"] = f"{elsewhere.url}/api/v1/service/{service['uuid']}/"
            answer.setdefault("meta", {})["next"] = f"{elsewhere.url}/api/v1/service/?offset=1"

        proxy.on(faults.edit(poison), "GET", times=None)
        found = client.find_service(name)
        assert found["uuid"] == made["uuid"]
        assert client.get_service(found["resource_uri"])["uuid"] == made["uuid"]
        client.start_service(found["resource_uri"])
        assert elsewhere.requests() == []


# -- actions ---------------------------------------------------------------------------------------

UNCERTAIN: dict[str, Fault] = {
    "reset before": faults.reset_before(),
    "reset after": faults.reset_after(),
    "504 after": faults.status(504, committed=True),
    "503 before": faults.status(503),
    "429": faults.status(429),
    "truncated": faults.truncated(),
}


@pytest.mark.parametrize("fault", UNCERTAIN.values(), ids=UNCERTAIN)
def test_an_action_is_never_sent_twice(
    client: Client, direct: Client, proxy: FaultProxy, name: str, fault: Fault
) -> None:
    made = direct.create_service(body(name))
    proxy.on(fault, "POST", "/start/")
    with pytest.raises((TransportError, ServerError, RateLimited)):
        client.start_service(made["uuid"], deadline=soon())
    assert proxy.count("POST", "/start/") == 1


def test_a_termination_is_never_sent_twice(
    client: Client, direct: Client, proxy: FaultProxy, name: str
) -> None:
    made = direct.create_service(body(name))
    proxy.on(faults.reset_after(), "DELETE")
    with pytest.raises(TransportError):
        client.terminate_service(made["uuid"], deadline=soon())
    assert proxy.count("DELETE") == 1
    assert living(direct, name) == []


def test_an_update_says_how_things_should_be_and_is_repeated(
    client: Client, direct: Client, proxy: FaultProxy, name: str
) -> None:
    made = direct.create_service(body(name))
    for fault in (faults.reset_after(), faults.status(503)):
        proxy.on(fault, "PATCH")
    changed = client.update_service(made["uuid"], {"target_num_containers": 3}, deadline=soon())
    assert changed["target_num_containers"] == 3
    assert proxy.count("PATCH") == 3


def test_a_create_without_a_key_is_never_sent_twice(
    client: Client, direct: Client, proxy: FaultProxy, name: str
) -> None:
    proxy.on(faults.reset_after(), *CREATE)
    with pytest.raises(TransportError) as caught:
        client.create_service(body(name), deadline=soon())
    assert caught.value.sent
    assert proxy.count(*CREATE) == 1
    assert len(living(direct, name)) == 1


# -- creating with a key ---------------------------------------------------------------------------

REPEATED: dict[str, tuple[Fault, int]] = {
    "reset before": (faults.reset_before(), 1),
    "reset after": (faults.reset_after(), 2),
    "429": (faults.status(429, retry_after="0"), 1),
    "502 before": (faults.status(502), 1),
    "503 after": (faults.status(503, committed=True), 2),
    "504 after": (faults.status(504, committed=True), 2),
    "500 after": (faults.status(500, committed=True), 2),
    "truncated": (faults.truncated(), 2),
    "truncated JSON": (faults.truncated_json(), 2),
    "HTML": (faults.html(), 2),
    "wrong types": (faults.wrong_types(), 2),
}


@pytest.mark.parametrize(("fault", "arrived"), REPEATED.values(), ids=REPEATED)
def test_a_create_with_a_key_makes_one_service(
    client: Client, direct: Client, proxy: FaultProxy, name: str, fault: Fault, arrived: int
) -> None:
    proxy.on(fault, *CREATE)
    made = client.create_service(body(name), key=f"key-of-{name}", deadline=soon())
    assert living(direct, name) == [made["uuid"]]
    assert proxy.count(*CREATE) == 2
    assert proxy.count(*CREATE, forwarded=True) == arrived


def test_a_create_survives_a_long_burst(client: Client, direct: Client, proxy: FaultProxy, name: str) -> None:
    for fault in (
        faults.reset_after(),
        faults.status(503),
        faults.status(504, committed=True),
        faults.truncated(),
    ):
        proxy.on(fault, *CREATE)
    made = client.create_service(body(name), key=f"key-of-{name}", deadline=soon())
    assert living(direct, name) == [made["uuid"]]
    assert proxy.count(*CREATE) == 5


def test_a_create_that_is_refused_is_not_repeated(client: Client, proxy: FaultProxy) -> None:
    with pytest.raises(TutumError):
        client.create_service({"image": "a", "memory": "much"}, key="key-of-nobody", deadline=soon())
    assert proxy.count(*CREATE) == 1


def test_a_create_under_a_closed_key_is_refused(client: Client, proxy: FaultProxy, name: str) -> None:
    client.create_service(body(name), key=f"key-of-{name}")
    assert client.close_keys([f"key-of-{name}"])
    with pytest.raises(Conflict, match="adopt"):
        client.create_service(body(name), key=f"key-of-{name}")
    assert proxy.count(*CREATE) == 2


# -- creating on a server that does not know keys --------------------------------------------------


def keyless(proxy: FaultProxy) -> None:
    """Makes the server one that has never heard of create keys."""

    def forget(exchange: Exchange) -> None:
        headers = {k: v for k, v in exchange.seen.headers.items() if k.lower() != "idempotency-key"}
        exchange.seen.headers = headers
        exchange.reply(exchange.forward())

    proxy.on(faults.status(404), "POST", "/key/close/", times=None)
    proxy.on(forget, *CREATE, times=None)


def lost(*, committed: bool) -> Fault:
    """A reset of a request without its key."""

    def fault(exchange: Exchange) -> None:
        exchange.seen.headers = {
            k: v for k, v in exchange.seen.headers.items() if k.lower() != "idempotency-key"
        }
        if committed:
            exchange.forward()
        exchange.reset()

    return fault


def test_without_keys_what_the_lost_request_made_is_found_by_its_records(
    client: Client, direct: Client, proxy: FaultProxy, name: str
) -> None:
    proxy.on(lost(committed=True), *CREATE)
    keyless(proxy)
    made = client.create_service(body(name), key=f"key-of-{name}", deadline=soon())
    assert living(direct, name) == [made["uuid"]]
    assert proxy.count(*CREATE) == 1


def test_without_keys_a_second_request_goes_out_when_the_first_made_nothing(
    client: Client, direct: Client, proxy: FaultProxy, name: str
) -> None:
    proxy.on(lost(committed=False), *CREATE)
    keyless(proxy)
    made = client.create_service(body(name), key=f"key-of-{name}", deadline=soon())
    assert living(direct, name) == [made["uuid"]]
    assert proxy.count(*CREATE) == 2


def test_without_keys_a_strangers_service_is_never_taken(
    client: Client, direct: Client, proxy: FaultProxy, name: str
) -> None:
    # Same name, same definition, made by somebody else just now: nothing shows that it is not ours.
    stranger = direct.create_service(body(name))
    proxy.on(lost(committed=False), *CREATE)
    keyless(proxy)
    with pytest.raises(Conflict) as caught:
        client.create_service(body(name), key=f"key-of-{name}", deadline=soon())
    assert stranger["uuid"] in str(caught.value)
    assert "adopt" in str(caught.value)
    assert living(direct, name) == [stranger["uuid"]]
    assert proxy.count(*CREATE) == 1


def test_without_keys_a_first_request_that_was_merely_slow_is_found(
    client: Client, direct: Client, proxy: FaultProxy, name: str
) -> None:
    looked = threading.Event()
    arrived = threading.Event()

    def slow(exchange: Exchange) -> None:
        """Reset now; the server gets it after the client has looked the name up."""
        exchange.seen.headers = {
            k: v for k, v in exchange.seen.headers.items() if k.lower() != "idempotency-key"
        }

        def later() -> None:
            looked.wait(FAR)
            exchange.forward()
            arrived.set()

        threading.Thread(target=later, daemon=True).start()
        exchange.reset()

    def after_it(exchange: Exchange) -> None:
        exchange.seen.headers = {
            k: v for k, v in exchange.seen.headers.items() if k.lower() != "idempotency-key"
        }
        arrived.wait(FAR)
        exchange.reply(exchange.forward())

    def look(exchange: Exchange) -> None:
        exchange.reply(exchange.forward())
        looked.set()

    proxy.on(faults.status(404), "POST", "/key/close/", times=None)
    proxy.on(slow, *CREATE)
    proxy.on(after_it, *CREATE, times=None)
    proxy.on(look, "GET", r"/api/v1/service/$")
    made = client.create_service(body(name), key=f"key-of-{name}", deadline=soon())
    assert living(direct, name) == [made["uuid"]]
    assert proxy.count(*CREATE) == 2


# -- waiting ---------------------------------------------------------------------------------------


def start(direct: Client, name: str) -> Detail:
    return direct.start_service(direct.create_service(body(name))["uuid"])


@pytest.mark.parametrize(
    "refusal", [faults.status(404), faults.answer(200, b"{}"), faults.hang(), faults.reset_before()]
)
def test_a_stream_that_cannot_be_had_is_done_without(
    client: Client, direct: Client, proxy: FaultProxy, name: str, refusal: Fault
) -> None:
    proxy.on(refusal, "GET", "/v1/events", times=None)
    with waiting.Waiter(client) as waiter:
        assert (
            waiter.wait(start(direct, name)["uuid"], verdict=running, deadline=soon())["state"] == "Running"
        )


def test_a_stream_that_is_dropped_is_opened_again(
    client: Client, direct: Client, proxy: FaultProxy, name: str
) -> None:
    made = direct.create_service(body(name))
    with waiting.Waiter(client) as waiter:
        ended: list[Detail] = []
        thread = threading.Thread(
            target=lambda: ended.append(waiter.wait(made["uuid"], verdict=running, deadline=soon())),
            daemon=True,
        )
        thread.start()
        until(lambda: proxy.websockets == 1, "the stream is open")
        proxy.drop_websockets()
        until(lambda: proxy.count("GET", "/v1/events") == 2, "the stream is opened again")
        direct.start_service(made["uuid"])
        thread.join(FAR)
    assert [service["state"] for service in ended] == ["Running"]


def test_a_half_open_stream_does_not_hold_a_wait(
    client: Client, direct: Client, proxy: FaultProxy, name: str
) -> None:
    made = direct.create_service(body(name))
    with waiting.Waiter(client) as waiter:
        ended: list[Detail] = []
        thread = threading.Thread(
            target=lambda: ended.append(waiter.wait(made["uuid"], verdict=running, deadline=soon())),
            daemon=True,
        )
        thread.start()
        until(lambda: proxy.websockets == 1, "the stream is open")
        proxy.freeze_websockets()
        direct.start_service(made["uuid"])
        thread.join(FAR)
    assert [service["state"] for service in ended] == ["Running"]


def test_a_create_needs_few_requests(client: Client, proxy: FaultProxy, name: str) -> None:
    with waiting.Waiter(client) as waiter:
        made = client.create_service(body(name), key=f"key-of-{name}")
        started = client.start_service(made["uuid"])
        waiter.wait(made["uuid"], verdict=running, deadline=soon(), service=started)
    assert proxy.count(path="/api/") <= 5, proxy.requests()


def test_the_control_plane_is_restarted_while_we_wait(tmp_path: Any) -> None:
    with (
        Server(container_start_seconds=1.5, data=tmp_path) as server,
        Client(server.user, server.apikey, rest_host=server.url) as client,
        waiting.Waiter(client) as waiter,
    ):
        started = client.start_service(client.create_service(body("web"))["uuid"])
        restart = threading.Thread(target=lambda: server.restart(kill=True), daemon=True)
        restart.start()
        reached = waiter.wait(started["uuid"], verdict=running, deadline=soon(), service=started)
        restart.join(FAR)
        assert reached["running_num_containers"] == 1
        assert len(living(client, "web")) == 1


def test_a_control_plane_that_hangs_ends_in_a_clear_timeout(
    client: Client, direct: Client, proxy: FaultProxy, name: str
) -> None:
    made = direct.create_service(body(name))
    proxy.on(faults.hang(), "GET", "/api/", times=None)
    with waiting.Waiter(client) as waiter, pytest.raises(WaitTimeout, match="did not answer"):
        waiter.wait(made["uuid"], verdict=running, deadline=soon(1.5))


def test_credentials_revoked_while_we_wait(
    client: Client, direct: Client, proxy: FaultProxy, name: str
) -> None:
    made = direct.create_service(body(name))
    proxy.on(faults.status(401), "GET", "/api/", skip=1, times=None)
    proxy.on(faults.status(401), "GET", "/v1/events", times=None)
    with waiting.Waiter(client) as waiter, pytest.raises(AuthError, match="TUTUM_AUTH"):
        waiter.wait(made["uuid"], verdict=running, deadline=soon())


def test_a_service_is_terminated_while_we_wait(
    client: Client, direct: Client, proxy: FaultProxy, name: str
) -> None:
    made = direct.create_service(body(name))

    def terminate() -> None:
        until(lambda: proxy.count("GET", "/api/") >= 1, "a read")
        direct.terminate_service(made["uuid"])

    threading.Thread(target=terminate, daemon=True).start()
    with waiting.Waiter(client) as waiter, pytest.raises(Gone, match=made["uuid"]):
        waiter.wait(made["uuid"], verdict=running, deadline=soon())


def test_a_service_is_scaled_while_we_wait(client: Client, direct: Client, name: str) -> None:
    started = start(direct, name)
    direct.update_service(started["uuid"], {"target_num_containers": 2})

    def both(now: Detail) -> bool | None:
        return True if now["state"] == "Running" and now["running_num_containers"] == 2 else None

    def scale() -> None:
        waiting.until(direct, started["uuid"], "Running")
        direct.scale_service(started["uuid"])

    threading.Thread(target=scale, daemon=True).start()
    with waiting.Waiter(client) as waiter:
        assert waiter.wait(started["uuid"], verdict=both, deadline=soon())["current_num_containers"] == 2


def test_jumps_of_the_wall_clock_change_nothing(
    client: Client, direct: Client, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    jumps = iter(range(10**6))
    # A clock that goes back an hour, then forward a day, at every look.
    monkeypatch.setattr(time, "time", lambda: now() + (86400 if next(jumps) % 2 else -3600))
    with waiting.Waiter(client) as waiter:
        assert (
            waiter.wait(start(direct, name)["uuid"], verdict=running, deadline=soon())["state"] == "Running"
        )
