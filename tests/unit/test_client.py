"""The client against a stub over real sockets: what it sends, what it makes of answers, what it never
does."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pulumi_tutum import __version__, config
from pulumi_tutum.client import Client, Detail
from pulumi_tutum.errors import (
    ApiError,
    AuthError,
    BadRequest,
    Cancelled,
    Conflict,
    NotAllowed,
    NotFound,
    Problem,
    RateLimited,
    ServerError,
    TransportError,
    ValidationError,
)
from tests.support.stub import UUID, Call, HttpStub, Reply, page, service

KEY = "k3y-0123456789"
OTHER = "11111111-2222-4333-8444-555555555555"


def connect(stub: HttpStub, **arguments: Any) -> Client:
    return Client("bob", KEY, rest_host=stub.url, **arguments)


# -- what is sent ----------------------------------------------------------------------------------


def test_importing_the_client_imports_no_library() -> None:
    code = (
        "import sys, pulumi_tutum.client, pulumi_tutum.stream, pulumi_tutum.waiting\n"
        "print(sorted({'requests', 'urllib3', 'websocket'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_headers() -> None:
    with HttpStub(lambda call: service()) as stub, connect(stub, user_agent="deployer/2") as client:
        client.get_service(UUID)
        client.update_service(UUID, {"tags": []})
    get, patch = stub.calls
    assert get.headers["Authorization"] == f"ApiKey bob:{KEY}"
    assert get.headers["Accept"] == "application/json"
    assert get.headers["User-Agent"] == f"deployer/2 pulumi-tutum/{__version__}"
    assert "Content-Type" not in get.headers
    assert patch.headers["Content-Type"] == "application/json"


def test_a_whole_header_value_is_sent_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    value = "Basic " + base64.b64encode(b"bob:k3y").decode()
    monkeypatch.setenv("TUTUM_AUTH", value)
    with HttpStub(lambda call: service()) as stub, connect(stub) as client:
        client.get_service(UUID)
    assert stub.calls[0].headers["Authorization"] == value


def test_netrc_and_cookies_are_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login eve password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with (
        HttpStub(lambda call: Reply(service(), headers={"Set-Cookie": "a=b; Path=/"})) as stub,
        connect(stub) as client,
    ):
        client.get_service(UUID)
        client.get_service(UUID)
    assert [call.headers["Authorization"] for call in stub.calls] == [f"ApiKey bob:{KEY}"] * 2
    assert all("Cookie" not in call.headers for call in stub.calls)


def test_loopback_is_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing listens on port 9: a request through it would fail.
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with HttpStub(lambda call: service()) as stub, connect(stub) as client:
        assert client.get_service(UUID)["uuid"] == UUID


@pytest.mark.parametrize(
    ("use", "method", "path"),
    [
        (lambda c: c.get_service(UUID), "GET", f"/api/v1/service/{UUID}/"),
        (lambda c: c.get_service(f"/api/v1/service/{UUID}/"), "GET", f"/api/v1/service/{UUID}/"),
        (lambda c: c.update_service(UUID, {"memory": 64}), "PATCH", f"/api/v1/service/{UUID}/"),
        (lambda c: c.start_service(UUID), "POST", f"/api/v1/service/{UUID}/start/"),
        (lambda c: c.stop_service(UUID), "POST", f"/api/v1/service/{UUID}/stop/"),
        (lambda c: c.scale_service(UUID), "POST", f"/api/v1/service/{UUID}/scale/"),
        (lambda c: c.redeploy_service(UUID), "POST", f"/api/v1/service/{UUID}/redeploy/"),
        (lambda c: c.terminate_service(UUID), "DELETE", f"/api/v1/service/{UUID}/"),
        (lambda c: c.get_container(UUID), "GET", f"/api/v1/container/{UUID}/"),
        (lambda c: c.get_action(f"/api/v1/action/{UUID}/"), "GET", f"/api/v1/action/{UUID}/"),
        (lambda c: c.get_node(UUID), "GET", f"/api/v1/node/{UUID}/"),
        (lambda c: c.set_node_tags(UUID, ["a"]), "PATCH", f"/api/v1/node/{UUID}/"),
        (lambda c: c.create_service({"image": "a"}), "POST", "/api/v1/service/"),
        (lambda c: c.close_keys(["k"]), "POST", "/api/v1/key/close/"),
        (lambda c: c.request("GET", "/api/v1/auth/"), "GET", "/api/v1/auth/"),
    ],
)
def test_endpoints(use: Callable[[Client], Any], method: str, path: str) -> None:
    def respond(call: Call) -> Reply:
        return Reply(service(), headers={"X-Tutum-Action-URI": f"/api/v1/action/{OTHER}/"})

    with HttpStub(respond) as stub, connect(stub) as client:
        answer = use(client)
    assert [(call.method, call.path) for call in stub.calls] == [(method, path)]
    if isinstance(answer, Detail):
        assert answer.action_uri == f"/api/v1/action/{OTHER}/"


def test_bodies_and_parameters() -> None:
    with HttpStub(lambda call: service()) as stub, connect(stub) as client:
        client.redeploy_service(UUID, reuse_volumes=False)
        client.set_node_tags(UUID, ["front", "eu"])
        client.close_keys(["a", "b"])
        client.close_keys(["a"], [UUID])
        client.create_service({"image": "a"}, key="k3y")
    redeploy, tags, close, close_more, create = stub.calls
    assert redeploy.query == {"reuse_volumes": "false"}
    assert tags.body == {"tags": [{"name": "front"}, {"name": "eu"}]}
    assert close.body == {"keys": ["a", "b"]}
    assert close_more.body == {"keys": ["a"], "services": [UUID]}
    assert create.body == {"image": "a"}
    assert create.headers["Idempotency-Key"] == "k3y"


@pytest.mark.parametrize("reference", ["", "web", "../node", f"/api/v1/node/{UUID}/", f"{UUID}/start"])
def test_what_is_no_reference_is_refused_before_anything_is_sent(reference: str) -> None:
    with (
        HttpStub(lambda call: service()) as stub,
        connect(stub) as client,
        pytest.raises(ValidationError, match="uuid or resource URI of a service"),
    ):
        client.get_service(reference)
    assert stub.calls == []


def test_of_a_uri_only_the_uuid_is_used() -> None:
    with HttpStub(lambda call: service()) as stub, connect(stub) as client:
        client.get_service(f"https://evil.example/x/api/v1/service/{UUID.upper()}/")
    assert stub.calls[0].path == f"/api/v1/service/{UUID}/"


# -- lists -----------------------------------------------------------------------------------------


def numbered(n: int, **attributes: Any) -> dict[str, Any]:
    return service(uuid=f"00000000-0000-4000-8000-{n:012d}", **attributes)


def test_lists_are_paged_and_next_is_never_followed() -> None:
    everything = [numbered(n) for n in range(250)]

    def respond(call: Call) -> Any:
        assert call.path == "/api/v1/service/"
        offset = int(call.query["offset"])
        shown = everything[offset : offset + 100]
        answer = page(shown, offset=offset)
        # A next that points elsewhere must not matter.
        answer["meta"]["next"] = "https://evil.example/steal/" if offset + 100 < 250 else None
        return answer

    with HttpStub(respond) as stub, connect(stub) as client:
        assert [s["uuid"] for s in client.list_services()] == [s["uuid"] for s in everything]
    assert [call.query["offset"] for call in stub.calls] == ["0", "100", "200"]


def test_a_server_that_caps_the_page_loses_nothing() -> None:
    everything = [numbered(n) for n in range(60)]

    def respond(call: Call) -> Any:
        offset = int(call.query["offset"])
        return page(everything[offset : offset + 25], offset=offset, following=offset + 25 < 60)

    with HttpStub(respond) as stub, connect(stub) as client:
        assert len(list(client.list_services())) == 60


def test_a_server_that_ignores_the_offset_does_not_hold_us_for_ever() -> None:
    with HttpStub(lambda call: page([numbered(1)], following=True)) as stub, connect(stub) as client:
        assert len(list(client.list_services())) == 1
    assert len(stub.calls) == 2


def test_filters_hold_even_where_the_server_ignores_them() -> None:
    shown = [numbered(1, name="web"), numbered(2, name="db"), numbered(3, name="web", state="Stopped")]
    with HttpStub(lambda call: page(shown)) as stub, connect(stub) as client:
        assert [s["uuid"][-1] for s in client.list_services(name="web")] == ["1", "3"]
        assert [s["uuid"][-1] for s in client.list_services(name="web", state="Stopped")] == ["3"]
    assert stub.calls[1].query["name"] == "web"
    assert stub.calls[1].query["state"] == "Stopped"


def test_find_service_skips_the_dead_and_reads_the_detail() -> None:
    dead = [numbered(1, state="Terminated"), numbered(2, state="Terminating")]

    def respond(call: Call) -> Any:
        return numbered(3, containers=["x"]) if call.path.count("/") == 5 else page([*dead, numbered(3)])

    with HttpStub(respond) as stub, connect(stub) as client:
        assert client.find_service("web")["containers"] == ["x"]


def test_find_service_refuses_to_guess() -> None:
    with HttpStub(lambda call: page([numbered(1), numbered(2)])) as stub, connect(stub) as client:
        with pytest.raises(Conflict) as caught:
            client.find_service("web")
        for n in (1, 2):
            assert numbered(n)["uuid"] in str(caught.value)
        with pytest.raises(NotFound, match="'nothing'"):
            client.find_service("nothing")


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (401, AuthError),
        (403, AuthError),
        (404, NotFound),
        (405, NotAllowed),
        (409, Conflict),
        (415, BadRequest),
        (418, BadRequest),
        (429, RateLimited),
        (500, ServerError),
        (507, ServerError),
    ],
)
def test_a_status_becomes_its_class(status: int, kind: type[ApiError]) -> None:
    with (
        HttpStub(lambda call: Reply({"error": "because"}, status)) as stub,
        connect(stub) as client,
        pytest.raises(kind, match="because") as caught,
    ):
        client.start_service(UUID)
    assert caught.value.status == status
    assert (caught.value.method, caught.value.path) == ("POST", f"/api/v1/service/{UUID}/start/")
    assert len(stub.calls) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": "Service cannot be started"}, "400 Service cannot be started"),
        (
            {"service": {"image": ["is required", "is bad"]}},
            "400 service.image: is required; service.image: is bad",
        ),
        ({"error": {"name": ["taken"]}}, "400 error.name: taken"),
        ({"error": ""}, "400 the server gave no reason"),
        (b"<html><body><h1>Bad</h1></body></html>", "400 the server gave no reason"),
        (b"", "400 the server gave no reason"),
        (b'"plain"', "400 plain"),
        (b"\xff\xfe", "400 the server gave no reason"),
        ({"error": "line\none\r\n  two"}, "400 line one two"),
    ],
)
def test_every_shape_of_error_becomes_one_line(body: Any, said: str) -> None:
    with (
        HttpStub(lambda call: Reply(body, 400)) as stub,
        connect(stub) as client,
        pytest.raises(BadRequest) as caught,
    ):
        client.start_service(UUID)
    assert str(caught.value) == f"POST /api/v1/service/{UUID}/start/: {said}"


def test_nested_messages_are_kept_and_long_ones_cut() -> None:
    body = {"error": "x" * 10_000, "service": {"image": ["is required"]}}
    with (
        HttpStub(lambda call: Reply(body, 400)) as stub,
        connect(stub) as client,
        pytest.raises(BadRequest) as caught,
    ):
        client.start_service(UUID)
    assert caught.value.detail == {"service": {"image": ["is required"]}}
    assert len(str(caught.value)) < 700


def test_secrets_that_the_server_echoes_are_masked() -> None:
    def respond(call: Call) -> Reply:
        echo = f"bad request {json.dumps(call.body)} with {call.headers['Authorization']}"
        return Reply({"error": echo, "service": {"container_envvars": [echo]}}, 400)

    body = {
        "image": "a",
        "container_envvars": [{"key": "PASS", "value": "hunter22"}, {"key": "N", "value": "1"}],
    }
    with HttpStub(respond) as stub, connect(stub) as client, pytest.raises(BadRequest) as caught:
        client.create_service(body)
    shown = f"{caught.value} {caught.value.detail}"
    assert "hunter22" not in shown
    assert KEY not in shown
    assert '"value": "[secret]"' in shown


def test_a_401_names_the_source_and_the_way_out() -> None:
    with (
        HttpStub(lambda call: Reply(b"", 401)) as stub,
        connect(stub) as client,
        pytest.raises(AuthError) as caught,
    ):
        client.get_service(UUID)
    for words in ("tutum:user and tutum:apikey", "--run-program", "TUTUM_AUTH", "last `pulumi up`"):
        assert words in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([], "not an object"),
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html></html>", "HTML page"),
        (b'{"uuid": "8d5f', "cut short or damaged"),
        (b'{"name": "\xff"}', "not UTF-8"),
        (b'{"memory": NaN}', "not the API's JSON"),
        (b"[" * 100_000, "not the API's JSON"),
        ({}, "it has no uuid"),
        (service(uuid="web"), "its uuid is not one"),
        (service(uuid=OTHER), "another service"),
        ({**service(), "state": None}, "it has no state"),
        (service(containers="none"), "containers has the wrong type"),
        (service(running_num_containers=True), "running_num_containers has the wrong type"),
        (service(link_variables=3), "link_variables has the wrong type"),
    ],
)
def test_an_answer_that_is_not_the_apis_is_said_to_be_so(answer: Any, said: str) -> None:
    with (
        HttpStub(lambda call: Reply(answer)) as stub,
        connect(stub) as client,
        pytest.raises(TransportError, match=said),
    ):
        client.start_service(UUID)
    assert len(stub.calls) == 1


@pytest.mark.parametrize(
    "answer", [{}, {"objects": {}}, {"objects": [], "meta": None}, {"objects": [1], "meta": {}}]
)
def test_a_list_that_is_none_is_said_to_be_so(answer: Any) -> None:
    with (
        HttpStub(lambda call: answer) as stub,
        connect(stub) as client,
        pytest.raises(TransportError, match="not a list"),
    ):
        list(client.list_services())


def test_a_redirect_is_not_followed() -> None:
    with HttpStub(lambda call: service()) as elsewhere:
        target = elsewhere.url.replace("127.0.0.1", "localhost")
        with (
            HttpStub(lambda call: Reply(b"", 307, {"Location": target + call.path})) as stub,
            connect(stub) as client,
        ):
            with pytest.raises(
                TransportError, match="redirects to localhost; redirects are not followed"
            ) as caught:
                client.start_service(UUID)
            assert not caught.value.sent
        assert elsewhere.calls == []


def test_an_unreachable_host_is_one_clear_sentence() -> None:
    with (
        Client("bob", KEY, rest_host="http://127.0.0.1:9") as client,
        pytest.raises(TransportError) as caught,
    ):
        client.start_service(UUID)
    assert str(caught.value) == (
        "cannot reach http://127.0.0.1:9: connection refused; start the control plane with `pulumi-tutum "
        "serve`, or set TUTUM_REST_HOST (or tutum:restHost) to where it is"
    )
    assert not caught.value.sent


def test_an_unknown_name_is_said_to_be_unknown() -> None:
    with (
        Client("bob", KEY, rest_host="http://no-such-host.invalid") as client,
        pytest.raises(TransportError, match="host name is not known"),
    ):
        client.start_service(UUID)


def test_logs_of_a_container() -> None:
    with HttpStub(lambda call: {"logs": "one\ntwo\nthree\n"}) as stub, connect(stub) as client:
        assert client.container_logs(UUID, 2) == ["two", "three"]
    assert stub.calls[0].query == {"tail": "2"}


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_without_keys_is_told_apart(status: int) -> None:
    with HttpStub(lambda call: Reply({"error": "no"}, status)) as stub, connect(stub) as client:
        assert client.close_keys([]) is False
    with HttpStub(lambda call: {"closed": 0}) as stub, connect(stub) as client:
        assert client.close_keys([]) is True


def test_what_the_server_refuses_is_known_where_it_tells() -> None:
    with HttpStub(lambda call: Reply({"error": "no"}, 404)) as stub, connect(stub) as client:
        assert client.refused({"pid": "host"}) == []
    with (
        HttpStub(lambda call: {"refused": [{"path": "pid", "reason": "not here"}]}) as stub,
        connect(stub) as client,
    ):
        assert client.refused({"pid": "host"}) == [Problem("pid", "not here")]
    assert stub.calls[0].query == {"definition": '{"pid": "host"}'}
    with (
        HttpStub(lambda call: {"refused": True}) as stub,
        connect(stub) as client,
        pytest.raises(TransportError, match="not a list of problems"),
    ):
        client.refused({"pid": "host"})


def test_what_the_server_said_last_is_told_when_the_time_is_up_in_the_middle_of_an_attempt() -> None:
    over = threading.Event()

    def answer(call: Call) -> Reply:
        if len(stub.calls) > 1:
            over.wait(60)
        return Reply({"error": "down for maintenance"}, 503)

    with HttpStub(answer) as stub, connect(stub) as client:
        try:
            with pytest.raises(ServerError, match="down for maintenance"):
                client.get_service(UUID, deadline=time.monotonic() + 2)
        finally:
            over.set()
        assert len(stub.calls) > 1


# -- limits and threads ----------------------------------------------------------------------------


def test_nothing_is_sent_after_the_deadline_or_the_interruption() -> None:
    stopped = threading.Event()
    stopped.set()
    with HttpStub(lambda call: service()) as stub, connect(stub) as client:
        with pytest.raises(TransportError, match="no time left") as caught:
            client.start_service(UUID, deadline=time.monotonic() - 1)
        assert not caught.value.sent
        with pytest.raises(Cancelled):
            client.start_service(UUID, cancelled=stopped)
    assert stub.calls == []


def test_connections_are_shared_and_kept() -> None:
    ports: set[str] = set()
    barrier = threading.Barrier(50)

    def respond(call: Call) -> Any:
        return service()

    with HttpStub(respond) as stub, connect(stub) as client:

        def work() -> None:
            barrier.wait()
            for _ in range(4):
                ports.add(client.get_service(UUID)["uuid"])

        threads = [threading.Thread(target=work) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert ports == {UUID}
    assert len(stub.calls) == 200


def test_settings_can_be_shared_between_clients() -> None:
    settings = config.resolve({"user": "bob", "apikey": KEY}, {})
    assert Client(settings=settings).settings is settings
