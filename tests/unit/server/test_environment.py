"""Link variables against the specification's example; precedence; expansion."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulumi_tutum.server.auth import split_header
from pulumi_tutum.server.environment import (
    LATER,
    Peer,
    calculated,
    expand,
    link_variables,
    merge,
    node_variables,
    prefix,
    role_variables,
)
from pulumi_tutum.server.model import Settings
from tests.unit.server.plane import Plane, run

#: The variables of the specification's example (service-api.md), as far as they are the API's and not the
#: image's.
#: Addresses are overlay addresses and inner ports since 0.12 (tutum-api.md, section 11, 12).
PEERS = [
    Peer(
        f"uuid-{n}",
        f"wordpress-stackable-{n}",
        n,
        f"10.7.0.{n}",
        (("tcp", 80),),
        {"DB_PASS": "szVaPz925B7I", "PATH": "/bin", "HOME": "/", "TUTUM_AUTH": "x", "DOCKERCLOUD_AUTH": "x"},
    )
    for n in (1, 2)
]


SETTINGS = Settings(rest_url="http://h:1")


def test_the_variables_of_a_link() -> None:
    found = link_variables(SETTINGS, "wordpress-stackable", PEERS, "adeebc1b")
    expected = {
        "WORDPRESS_STACKABLE_TUTUM_API_URL": "http://h:1/api/v1/service/adeebc1b/",
        "WORDPRESS_STACKABLE_DOCKERCLOUD_API_URL": "http://h:1/api/app/v1/service/adeebc1b/",
    }
    for base, n in (("WORDPRESS_STACKABLE_1", 1), ("WORDPRESS_STACKABLE_2", 2), ("WORDPRESS_STACKABLE", 1)):
        expected |= {
            f"{base}_ENV_DB_PASS": "szVaPz925B7I",
            f"{base}_PORT": f"tcp://10.7.0.{n}:80",
            f"{base}_PORT_80_TCP": f"tcp://10.7.0.{n}:80",
            f"{base}_PORT_80_TCP_ADDR": f"10.7.0.{n}",
            f"{base}_PORT_80_TCP_PORT": "80",
            f"{base}_PORT_80_TCP_PROTO": "tcp",
            f"{base}_NAME": f"/uuid-{n}/wordpress-stackable-{n}",
        }
    assert found == expected


def test_port_only_with_exactly_one_port() -> None:
    two = Peer("u", "h", 1, "10.7.0.1", (("tcp", 80), ("udp", 53)))
    found = link_variables(SETTINGS, "db", [two], "u")
    assert "DB_PORT" not in found
    assert found["DB_PORT_53_UDP"] == "udp://10.7.0.1:53"
    assert found["DB_1_PORT_53_UDP_PROTO"] == "udp"


def test_network_host_has_no_ports_and_no_containers_no_variables() -> None:
    on_host = Peer("u", "h", 1, "", (("tcp", 80),))
    assert not [k for k in link_variables(SETTINGS, "db", [on_host], "u") if "PORT" in k]
    assert link_variables(SETTINGS, "db", [], "u") == {}


@given(st.text(min_size=1))
def test_prefix_is_a_variable_name(name: str) -> None:
    assert re.fullmatch(r"[A-Z0-9_]+", prefix(name))


def test_precedence() -> None:
    found, linked = merge(
        {"a": "link", "b": "link", "c": "link", "d": "link", "e": "link"},
        {"b": "image", "c": "image", "d": "image", "e": "image"},
        {"c": "role", "d": "role", "e": "role"},
        {"d": "node", "e": "node"},
        {"e": "own"},
    )
    assert found == {"a": "link", "b": "image", "c": "role", "d": "node", "e": "own"}
    assert linked == ("a",)


def test_expansion() -> None:
    known = {"TUTUM_NODE_FQDN": "n.x", "TUTUM_AUTH": "secret", "DOCKERCLOUD_NODE_FQDN": "n.y"}
    assert expand("$DOCKERCLOUD_NODE_FQDN and ${DOCKERCLOUD_NODE_FQDN}", known) == "n.y and n.y"
    assert expand("at $TUTUM_NODE_FQDN and ${TUTUM_NODE_FQDN}!", known) == "at n.x and n.x!"
    assert expand("$TUTUM_OTHER $HOME $$", known) == "$TUTUM_OTHER $HOME $$"


def test_calculated_lists_each_variable_once_with_the_origin_that_wins() -> None:
    found = calculated(
        (("user", {"A": "1"}), ("tutum", {"A": "2", "B": "3"}), ("image", {"B": "4", "C": "5"}))
    )
    assert found == [
        {"key": "A", "origin": "user", "value": "1"},
        {"key": "B", "origin": "tutum", "value": "3"},
        {"key": "C", "origin": "image", "value": "5"},
    ]


def test_node_variables_before_and_after_placement() -> None:
    settings = Settings(user="bob", rest_url="http://h:1", dns_suffix="tutum.io")
    before = node_variables(settings, service=("u", "Web_1"), stack="s", address=LATER)
    assert before["TUTUM_SERVICE_FQDN"] == "web-1.s.bob.svc.tutum.io"
    assert before["TUTUM_SERVICE_HOSTNAME"] == "web-1"
    assert before["TUTUM_SERVICE_API_URL"] == "http://h:1/api/v1/service/u/"
    assert (
        before["TUTUM_CONTAINER_FQDN"] == before["TUTUM_NODE_API_URL"] == before["TUTUM_IP_ADDRESS"] == LATER
    )
    assert before["TUTUM_STACK_NAME"] == "s"
    after = node_variables(
        settings, service=("u", "web"), container=("c", "web-2"), node="12345678-aaaa", address="10.7.0.9"
    )
    assert after["TUTUM_CONTAINER_FQDN"] == "web-2.bob.cont.tutum.io"
    assert after["TUTUM_NODE_FQDN"] == "12345678-bob.node.tutum.io"
    assert after["TUTUM_IP_ADDRESS"] == "10.7.0.9/16"
    assert "TUTUM_STACK_NAME" not in after


@pytest.mark.parametrize("placed", [True, False])
def test_every_variable_of_tutum_has_its_twin_of_docker_cloud(placed: bool) -> None:
    found = node_variables(
        SETTINGS,
        service=("s", "web"),
        stack="blog",
        container=("c", "web-1") if placed else None,
        node="12345678-aaaa" if placed else None,
        address="10.7.0.9",
        trigger_body="{}",
    )
    names = {prefix: {k.removeprefix(prefix) for k in found if k.startswith(prefix)} for prefix in PRODUCTS}
    assert names["TUTUM_"] == names["DOCKERCLOUD_"]
    assert len(names["TUTUM_"]) == 17
    for name in names["TUTUM_"]:
        if not name.endswith(("_API_URI", "_API_URL")):
            assert found[f"TUTUM_{name}"] == found[f"DOCKERCLOUD_{name}"]
    assert found["DOCKERCLOUD_SERVICE_API_URI"] == "/api/app/v1/service/s/"
    assert found["DOCKERCLOUD_SERVICE_API_URL"] == "http://h:1/api/app/v1/service/s/"
    assert found["DOCKERCLOUD_NODE_API_URI"] == ("/api/infra/v1/node/12345678-aaaa/" if placed else LATER)


PRODUCTS = ("TUTUM_", "DOCKERCLOUD_")


def test_the_credentials_of_a_role_in_both_spellings() -> None:
    found = role_variables(Settings(user="bob"), "t0ken")
    assert {split_header(value.encode()) for value in found.values()} == {("bob", "t0ken")}
    assert found["DOCKERCLOUD_AUTH"].startswith("Basic ")
    assert role_variables(Settings(user="bob"), "") == {"TUTUM_AUTH": LATER, "DOCKERCLOUD_AUTH": LATER}


def env_of(container: dict[str, object]) -> dict[str, str]:
    entries = container["container_envvars"]
    assert isinstance(entries, list)
    return {e["key"]: e["value"] for e in entries}


def test_in_containers() -> None:
    async def test() -> None:
        async with Plane(rest_url="http://h:1") as plane:
            db = await plane.up(
                name="db", image="tutum/mysql:5.6", container_envvars={"MYSQL_PASS": "s3cret"}
            )
            web = await plane.up(
                name="web",
                image="tutum/wordpress-stackable",
                linked_to_service=[{"to_service": "db", "name": "DB"}],
                roles=["global"],
                container_envvars={"ME": "$TUTUM_CONTAINER_HOSTNAME", "DB_PORT": "mine"},
            )
            (container,) = plane.containers(web)
            env = env_of(container)
            (target,) = plane.containers(db)
            assert env["ME"] == "web-1"
            assert env["DB_HOST"] == "**LinkMe**", "the image's"
            assert env["DB_NAME"] == "wordpress", "the image's wins over the link's"
            assert env["DB_1_NAME"] == f"/{target['uuid']}/db-1"
            assert env["DB_PORT"] == "mine", "the user's wins over the link's"
            assert env["DB_1_PORT"] == f"tcp://{target['private_ip']}:3306"
            assert env["DB_ENV_MYSQL_PASS"] == "s3cret"
            assert env["DB_TUTUM_API_URL"] == f"http://h:1/api/v1/service/{db}/"
            assert env["TUTUM_AUTH"].startswith("ApiKey admin:")
            token = env["TUTUM_AUTH"].split(":", 1)[1]
            assert plane.control.service_of_token(token) == web
            detail = plane.get(web)
            assert {e["key"]: e["value"] for e in detail["container_envvars"]}[
                "ME"
            ] == "$TUTUM_CONTAINER_HOSTNAME"
            origins = {e["key"]: e["origin"] for e in detail["calculated_envvars"]}
            names = ("ME", "TUTUM_AUTH", "DOCKERCLOUD_AUTH", "DB_1_NAME", "DB_USER", "DB_NAME", "DB_PORT")
            expected = ("user", "role", "role", "link", "image", "image", "user")
            assert tuple(origins[name] for name in names) == expected
            links = plane.get(db)["link_variables"]
            assert all(isinstance(v, str) for v in links.values())
            assert not [k for k in links if k.endswith(("_PATH", "_HOME", "_AUTH"))]
            assert links["DB_1_PORT_3306_TCP_ADDR"] == target["private_ip"]
            handed_on = plane.get(web)["link_variables"]
            assert not [k for k in handed_on if "_ENV_DB_1_" in k], "what web got from its own link"
            assert not [k for k in handed_on if k.endswith("_AUTH")]
            assert handed_on["WEB_ENV_DB_NAME"] == "wordpress"
            await plane.act(web, "terminate")
            await plane.advance(1)
            assert plane.control.service_of_token(token) is None

    run(test)


def test_services_that_link_to_each_other_do_not_grow() -> None:
    async def test() -> None:
        async with Plane() as plane:
            a = await plane.up(name="a")
            b = await plane.up(name="b", linked_to_service=[{"to_service": a}])
            await plane.patch(a, linked_to_service=[{"to_service": b}])
            sizes = []
            for _ in range(4):
                for uuid in (a, b):
                    await plane.act(uuid, "redeploy")
                    await plane.advance(5)
                sizes.append(len(json.dumps(plane.containers(a))))
            assert len(set(sizes[1:])) == 1

    run(test)
