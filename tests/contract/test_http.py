"""The conventions of HTTP that all endpoints share (tutum-api.md section 2)."""

from __future__ import annotations

import json
import uuid as uuids
from typing import Any
from urllib.parse import quote

import pytest
import requests

from pulumi_tutum.server.http import MAX_BODY_BYTES
from tests.contract.conftest import V1, Api

SERVICES = f"{V1}/service/"
NOBODY = "7eaf7fff-882c-4f3d-9a8f-a22317ac00ce"


@pytest.fixture(scope="module")
def uuid(api: Api) -> str:
    return str(api.create()["uuid"])


# -- answers


def test_headers_and_the_order_of_keys(api: Api, uuid: str) -> None:
    for path in (f"{SERVICES}{uuid}/", f"{SERVICES}{uuid}", SERVICES):
        answer = api.call("GET", path)
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["Vary"] == "Accept, Authorization, Cookie"
        assert "Server" not in answer.headers
        assert_sorted(json.loads(answer.text, object_pairs_hook=list))


def assert_sorted(value: Any) -> None:
    """`value` was read with objects as lists of pairs."""
    if isinstance(value, list):
        pairs = [item for item in value if isinstance(item, tuple)]
        assert [key for key, _ in pairs] == sorted(key for key, _ in pairs)
        for item in value:
            assert_sorted(item[1] if isinstance(item, tuple) else item)


@pytest.mark.parametrize(
    "spelling",
    ["/api/v1/service/{}/", "/api/v1/service/{}", "//api/v1/service/{}/", "/api//v1///service/{}//"],
)
def test_slashes(api: Api, uuid: str, spelling: str) -> None:
    # The path is sent as it is written: libraries tidy it up.
    with requests.Session() as session:
        prepared = session.prepare_request(
            requests.Request("GET", api.server.url, headers=api.server.headers)
        )
        prepared.url = api.server.url + spelling.format(uuid)
        answer = session.send(prepared, allow_redirects=False, timeout=60)
    assert answer.status_code == 200
    assert answer.json()["uuid"] == uuid


@pytest.mark.parametrize("path", [SERVICES, SERVICES.rstrip("/"), "//api/v1/service"])
def test_post_without_redirect(api: Api, path: str) -> None:
    url = api.server.url + path
    answer = api.call("POST", url, json={"image": api.backend.image, "name": api.name()})
    assert answer.status_code == 201


def test_head_is_get_without_a_body(api: Api, uuid: str) -> None:
    get, head = api.call("GET", f"{SERVICES}{uuid}/"), api.call("HEAD", f"{SERVICES}{uuid}/")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["Content-Length"] == str(len(get.content))
    assert api.call("HEAD", f"{SERVICES}{NOBODY}/").status_code == 404


def test_options_names_the_methods(api: Api, uuid: str) -> None:
    answer = api.call("OPTIONS", f"{SERVICES}{uuid}/")
    assert answer.status_code == 204
    assert answer.content == b""
    assert answer.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", f"{SERVICES}{NOBODY}/", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("DELETE", SERVICES, "GET, HEAD, OPTIONS, POST"),
        ("GET", f"{SERVICES}{NOBODY}/start/", "OPTIONS, POST"),
        ("TRACE", SERVICES, "GET, HEAD, OPTIONS, POST"),
        ("PROPFIND", SERVICES, "GET, HEAD, OPTIONS, POST"),
        ("POST", f"{V1}/container/", "GET, HEAD, OPTIONS"),
    ],
)
def test_methods_that_are_not_there(api: Api, method: str, path: str, allow: str) -> None:
    answer = api.call(method, path, json={"a": 1})
    assert answer.status_code == 405
    assert answer.headers["Allow"] == allow


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/",
        "/api/v1/",
        "/api/v2/service/",
        f"{V1}/services/",
        f"{V1}/service/{NOBODY}/nothing/",
        f"{V1}/service/{NOBODY}/",
        f"{V1}/service/not-a-uuid/",
        f"{V1}/container/{NOBODY}/",
        f"{V1}/stack/{NOBODY}/",
        f"{V1}/action/{NOBODY}/",
        f"{V1}/node/{NOBODY}/",
        f"{V1}/nodecluster/{NOBODY}/",
        f"{V1}/volume/{NOBODY}/",
        f"{V1}/volumegroup/{NOBODY}/",
        f"{V1}/provider/nobody/",
        f"{V1}/region/nobody/nowhere/",
        f"{V1}/nodetype/nobody/nothing/",
        f"{V1}/az/nobody/nowhere/nothing/",
        f"{V1}/tag/nobody/",
        f"{V1}/image/nobody/nothing/",
        f"{V1}/image/nobody/nothing/tag/none/",
        f"{V1}/service/{NOBODY}/trigger/",
        f"{V1}/service/{NOBODY}/trigger/{NOBODY}/",
        f"{V1}/service/..%2f..%2fetc%2fpasswd/",
        f"{V1}/service/%00/",
        f"{V1}/service/%ff%fe/",
        f"{V1}/service/%zz/",
        f"{V1}/service/{quote('ü' * 200)}/",
        f"{V1}/service/" + "a" * 8000,
        "/../../etc/passwd",
        "/api/v1/service/../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/v1/openapi.json/more",
        "/v1/events/",
    ],
)
def test_nothing_there(api: Api, path: str) -> None:
    api.refused(404, "GET", path)


# -- credentials


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", SERVICES),
        ("GET", f"{SERVICES}{NOBODY}/"),
        ("POST", SERVICES),
        ("PATCH", f"{SERVICES}{NOBODY}/"),
        ("DELETE", f"{SERVICES}{NOBODY}/"),
        ("POST", f"{SERVICES}{NOBODY}/start/"),
        ("GET", f"{V1}/auth/"),
        ("POST", f"{V1}/token/"),
    ],
)
@pytest.mark.parametrize("header", [None, "ApiKey bob:wrong", "Basic !!!", "Bearer x", "", "ApiKey \xa0:ÿ"])
def test_credentials_are_needed(api: Api, method: str, path: str, header: str | None) -> None:
    headers = {"Authorization": header.encode("latin-1") if header else header}
    answer = api.call(method, path, headers=headers, json={"image": "x"})
    assert answer.status_code == 401
    assert answer.json() == {"error": "Wrong or missing credentials"}
    assert "ApiKey" in answer.headers["WWW-Authenticate"]


def test_every_spelling_of_the_credentials(api: Api) -> None:
    user, key = api.server.auth
    for options in (
        {"headers": {"Authorization": f"ApiKey {user}:{key}"}},
        {"auth": (user, key), "headers": {"Authorization": None}},
    ):
        body = api.ok("GET", f"{V1}/auth/", **options)
        assert body["objects"] == [{"key": key, "username": user}]


def test_a_short_token_stands_for_the_key(api: Api) -> None:
    token = api.ok("POST", f"{V1}/token/", 201)["token"]
    header = {"Authorization": f"ApiKey {api.server.user}:{token}"}
    api.ok("GET", SERVICES, headers=header)


def test_open_paths_need_none(api: Api) -> None:
    for path in ("/health", "/health/", f"{V1}/openapi.json"):
        api.ok("GET", path, headers={"Authorization": None})


# -- bodies


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        (415, b"{", "application/json"),
        (415, b"not json", None),
        (415, b'{"image": NaN}', "application/json"),
        (415, b'{"image": Infinity}', "application/json"),
        (415, b"\xff\xfe\x00", "application/json"),
        (415, b'{"image": "\xff"}', "application/json"),
        (415, b'{"image": 1' + b"0" * 5000 + b"}", "application/json"),
        (415, b"image=x", "application/x-www-form-urlencoded"),
        (415, b'{"image": "x"}', "text/plain"),
        (415, b'{"image": "x"}', "multipart/form-data; boundary=x"),
        (415, b'{"image": "x"}', "application/json; charset=latin-1"),
        (415, b'{"image": "x"}', "a" * 5000),
        (400, b"[]", "application/json"),
        (400, b"null", "application/json"),
        (400, b'"text"', "application/json"),
        (400, b"1", "application/json"),
        (400, b"{}", "application/json"),
        (400, b"", "application/json"),
        (400, b'{"image": "a", "image": "b"}', "application/json"),
        (400, b'{"image": "a", "tags": [{"name": "a", "name": "b"}]}', "application/json"),
        (400, b'{"image": "\\ud800"}', "application/json"),
        (400, b'{"image": "a", "run_command": "\\udfff"}', "application/json"),
        (400, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "application/json"),
        (400, b'{"a":' * 40 + b"1" + b"}" * 40, "application/json"),
        (400, b'{"image": ' + b"[" * 40 + b"]" * 40 + b"}", "application/json"),
        (400, b'{"image": {"a": 1}}', "application/json"),
        (400, b'{"image": 1e999}', "application/json"),
        (400, b'{"image": "x", "target_num_containers": 1e999}', "application/json"),
        (400, b'{"image": "x", "target_num_containers": -1}', "application/json"),
        (400, b'{"image": "x", "target_num_containers": 1e30}', "application/json"),
        (400, b'{"image": "x", "memory": 99999999999999999999}', "application/json"),
        (400, b'{"image": "x\\u0000"}', "application/json"),
        (413, b'{"image": "' + b"x" * MAX_BODY_BYTES + b'"}', "application/json"),
    ],
    ids=range(33),
)
def test_bodies_that_are_refused(api: Api, status: int, body: bytes, content_type: str | None) -> None:
    before = api.ok("GET", SERVICES)["meta"]["total_count"]
    headers = {"Content-Type": content_type} if content_type else {}
    api.refused(status, "POST", SERVICES, data=body, headers=headers)
    assert api.ok("GET", SERVICES)["meta"]["total_count"] == before


@pytest.mark.parametrize(
    "content_type",
    [None, "application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "application/x+json"],
)
def test_bodies_that_are_taken(api: Api, content_type: str | None) -> None:
    body = json.dumps({"image": api.backend.image, "name": api.name()}).encode()
    headers = {"Content-Type": content_type} if content_type else {}
    api.ok("POST", SERVICES, 201, data=body, headers=headers)
    api.ok("POST", SERVICES, 201, data=b"\xef\xbb\xbf" + body.replace(b"svc", b"bom"), headers=headers)


def test_a_body_in_chunks_has_the_same_limit(api: Api) -> None:
    chunks = (b"x" * 65536 for _ in range(64))
    api.refused(413, "POST", SERVICES, data=chunks)
    small = json.dumps({"image": api.backend.image, "name": api.name()}).encode()
    api.ok("POST", SERVICES, 201, data=iter([small[:5], small[5:]]))


def test_bodies_where_none_is_wanted_are_ignored(api: Api) -> None:
    """go-tutum sends `{}` with everything, others their last content type."""
    uuid = api.create()["uuid"]
    for body, kind in ((b"{}", None), (b"nonsense", "text/plain"), (b"", "application/json")):
        headers = {"Content-Type": kind} if kind else {}
        api.ok("GET", f"{SERVICES}{uuid}/", data=body, headers=headers)
        api.ok("GET", SERVICES, data=body, headers=headers)
        started = api.create()["uuid"]
        api.ok("POST", f"{SERVICES}{started}/start/", 202, data=body, headers=headers)
    api.ok("DELETE", f"{SERVICES}{uuid}/", 202, data=b"{}")


def test_field_errors_stand_beside_the_text(api: Api) -> None:
    body = api.refused(400, "POST", SERVICES, json={"image": "x", "autorestart": "SOMETIMES", "memory": 1})
    assert set(body["service"]) == {"autorestart", "memory"}
    assert all(isinstance(m, str) for messages in body["service"].values() for m in messages)
    assert "autorestart" in body["error"]


@pytest.mark.parametrize("accept", ["application/json", "*/*", "text/html", "image/png", "", "\xff"])
def test_accept_is_never_a_reason_to_refuse(api: Api, accept: str) -> None:
    api.ok("GET", SERVICES, headers={"Accept": accept.encode("latin-1")})


# -- lists


def test_pages(api: Api) -> None:
    prefix = api.name("page")
    names = [f"{prefix}-{i}" for i in range(7)]
    uuids_ = [api.create(name=name)["uuid"] for name in names]
    stack = api.ok("GET", SERVICES, params={"limit": 2})
    assert stack["meta"] == {
        "limit": 2,
        "next": "/api/v1/service/?limit=2&offset=2",
        "offset": 0,
        "previous": None,
        "total_count": stack["meta"]["total_count"],
    }
    seen: list[str] = []
    path: str | None = "/api/v1/service/?limit=3&state=Not+running"
    while path:
        body = api.ok("GET", path)
        assert len(body["objects"]) <= 3
        seen += [o["uuid"] for o in body["objects"]]
        path = body["meta"]["next"]
        assert path is None or path.startswith("/api/v1/service/?state=Not+running&limit=3&offset=")
    assert len(set(seen)) == len(seen) == body["meta"]["total_count"]
    assert [u for u in seen if u in uuids_] == uuids_, "in the order of creation"
    assert body["meta"]["previous"] is not None
    back = api.ok("GET", body["meta"]["previous"])
    assert back["meta"]["offset"] == body["meta"]["offset"] - 3


def test_default_limit_and_all(api: Api) -> None:
    for _ in range(30):
        api.create()
    first = api.ok("GET", SERVICES)
    assert first["meta"]["limit"] == len(first["objects"]) == 25
    everything = api.ok("GET", SERVICES, params={"limit": 0})
    assert everything["meta"]["limit"] == 1000
    assert len(everything["objects"]) == everything["meta"]["total_count"] >= 30
    assert api.ok("GET", SERVICES, params={"limit": 5000})["meta"]["limit"] == 1000
    beyond = api.ok("GET", SERVICES, params={"offset": 100_000})
    assert beyond["objects"] == []
    assert beyond["meta"]["next"] is None


@pytest.mark.parametrize(
    "query",
    ["limit=-1", "limit=x", "limit=1.5", "offset=-5", "limit=", "limit=9999999999", "limit=%ff", "limit=²"],
)
def test_pages_that_are_none(api: Api, query: str) -> None:
    api.refused(400, "GET", f"{SERVICES}?{query}")


def test_too_many_parameters(api: Api) -> None:
    api.refused(400, "GET", SERVICES + "?" + "&".join(f"a{i}=1" for i in range(500)))


def test_filters_of_services(api: Api) -> None:
    one, two = api.create(name=api.name("Filter")), api.create(name=api.name("filter"))

    def found(**params: Any) -> list[str]:
        return [o["uuid"] for o in api.listed(SERVICES, limit=0, **params)]

    assert found(name=one["name"]) == [one["uuid"]]
    assert found(name=one["name"].lower()) == []
    assert found(uuid=one["uuid"]) == [one["uuid"]]
    assert found(uuid__startswith=one["uuid"][:8]) == [one["uuid"]]
    assert found(uuid__startswith=one["uuid"], name=two["name"]) == []
    assert {one["uuid"], two["uuid"]} <= set(found(state="Not running"))
    assert found(state="not running") == []
    assert {one["uuid"], two["uuid"]} <= set(found(state=["Running", "Not running"]))
    assert found(name="") == []
    assert one["uuid"] in found(anything="at all"), "unknown filters are ignored"
    assert found(stack=f"/api/v1/stack/{uuids.uuid4()}/") == []


def test_list_objects_leave_out_what_is_long(api: Api) -> None:
    service = api.create(container_envvars=[{"key": "A", "value": "b"}])
    (listed,) = api.listed(SERVICES, name=service["name"])
    for name in ("container_envvars", "bindings", "link_variables", "containers", "tags", "roles"):
        assert name in service
        assert name not in listed
    assert {name: service[name] for name in listed} == listed


# -- every mutation names its action


def test_action_uri(api: Api) -> None:
    created = api.call("POST", SERVICES, json={"image": api.backend.image, "name": api.name()})
    uuid = created.json()["uuid"]
    answers = [created]
    answers.append(api.call("PATCH", f"{SERVICES}{uuid}/", json={"memory": 64}))
    answers.append(api.call("POST", f"{SERVICES}{uuid}/start/"))
    api.wait(uuid, "Running")
    answers.append(api.call("DELETE", f"{SERVICES}{uuid}/"))
    assert [a.status_code for a in answers] == [201, 202, 202, 202]
    for answer in answers:
        action = api.ok("GET", answer.headers["X-Tutum-Action-URI"])
        assert action["object"] == f"/api/v1/service/{uuid}/"
        assert action["state"] in ("Success", "In progress")
        assert action["ip"] == "127.0.0.1"
        assert action["user_agent"].startswith("python-requests/")
    assert action["method"] == "DELETE"
    assert action["path"] == f"/api/v1/service/{uuid}/"


def test_a_refused_action_is_named_too(api: Api) -> None:
    uuid = api.create()["uuid"]
    for path, verb in (("stop/", "Service Stop"), ("redeploy/", "Service Redeploy")):
        refusal = api.call("POST", f"{SERVICES}{uuid}/{path}")
        assert refusal.status_code == 400
        action = api.ok("GET", refusal.headers["X-Tutum-Action-URI"])
        assert (action["state"], action["action"]) == ("Failed", verb)
        assert action["object"] == f"/api/v1/service/{uuid}/"
        assert action["error"] == refusal.json()["error"]
    assert "X-Tutum-Action-URI" not in api.call("POST", SERVICES, json={}).headers


def test_action_keeps_the_body_without_secrets(api: Api) -> None:
    answer = api.call(
        "POST",
        SERVICES,
        json={
            "image": api.backend.image,
            "name": api.name(),
            "container_envvars": [{"key": "PASS", "value": "s3cr3t-canary"}],
        },
    )
    action = api.ok("GET", answer.headers["X-Tutum-Action-URI"])
    assert "s3cr3t-canary" not in json.dumps(action)
    assert json.loads(action["body"])["container_envvars"] == [{"key": "PASS", "value": "********"}]


def test_log_has_neither_credentials_nor_queries(api: Api) -> None:
    api.call("GET", SERVICES, params={"name": "canary-in-query", "user": "u", "token": "t-canary"})
    api.create(container_envvars={"A": "env-canary"})
    log = api.server.log()
    for secret in (api.server.apikey, "canary-in-query", "t-canary", "env-canary", "s3cr3t-canary"):
        assert secret not in log
    lines = [json.loads(line) for line in log.splitlines()]
    assert {"time", "level", "event"} <= set(lines[0])
    assert any(line["event"] == "request" and line["method"] == "POST" for line in lines)
