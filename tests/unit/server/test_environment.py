"""Link variables against the specification's example; precedence; expansion."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from pulumi_tutum.server.environment import (
    LATER,
    Peer,
    calculated,
    expand,
    link_variables,
    merge,
    prefix,
    tutum_variables,
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
        {"DB_PASS": "szVaPz925B7I", "PATH": "/bin", "HOME": "/", "TUTUM_AUTH": "x"},
    )
    for n in (1, 2)
]


def test_the_specifications_example() -> None:
    url = "https://app-test.tutum.co/api/v1/service/adeebc1b/"
    found = link_variables("wordpress-stackable", PEERS, url)
    expected = {"WORDPRESS_STACKABLE_TUTUM_API_URL": url}
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
    found = link_variables("db", [two], "")
    assert "DB_PORT" not in found
    assert found["DB_PORT_53_UDP"] == "udp://10.7.0.1:53"
    assert found["DB_1_PORT_53_UDP_PROTO"] == "udp"


def test_network_host_has_no_ports_and_no_containers_no_variables() -> None:
    assert not [k for k in link_variables("db", [Peer("u", "h", 1, "", (("tcp", 80),))], "") if "PORT" in k]
    assert link_variables("db", [], "http://x") == {}


@given(st.text(min_size=1))
def test_prefix_is_a_variable_name(name: str) -> None:
    assert re.fullmatch(r"[A-Z0-9_]+", prefix(name))


def test_precedence() -> None:
    found, linked = merge(
        {"a": "image", "b": "image", "c": "image", "d": "image", "e": "image"},
        {"b": "link", "c": "link", "d": "link", "e": "link"},
        {"c": "role", "d": "role", "e": "role"},
        {"d": "tutum", "e": "tutum"},
        {"e": "user"},
    )
    assert found == {"a": "image", "b": "link", "c": "role", "d": "tutum", "e": "user"}
    assert linked == ("b",)


def test_expansion() -> None:
    known = {"TUTUM_NODE_FQDN": "n.x", "TUTUM_AUTH": "secret"}
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


def test_tutum_variables_before_and_after_placement() -> None:
    settings = Settings(user="bob", rest_url="http://h:1", dns_suffix="tutum.io")
    before = tutum_variables(settings, service=("u", "Web_1"), stack="s", address=LATER)
    assert before["TUTUM_SERVICE_FQDN"] == "web-1.s.bob.svc.tutum.io"
    assert before["TUTUM_SERVICE_HOSTNAME"] == "web-1"
    assert before["TUTUM_SERVICE_API_URL"] == "http://h:1/api/v1/service/u/"
    assert (
        before["TUTUM_CONTAINER_FQDN"] == before["TUTUM_NODE_API_URL"] == before["TUTUM_IP_ADDRESS"] == LATER
    )
    assert before["TUTUM_STACK_NAME"] == "s"
    after = tutum_variables(
        settings, service=("u", "web"), container=("c", "web-2"), node="12345678-aaaa", address="10.7.0.9"
    )
    assert after["TUTUM_CONTAINER_FQDN"] == "web-2.bob.cont.tutum.io"
    assert after["TUTUM_NODE_FQDN"] == "12345678-bob.node.tutum.io"
    assert after["TUTUM_IP_ADDRESS"] == "10.7.0.9/16"
    assert "TUTUM_STACK_NAME" not in after


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
            assert (origins["ME"], origins["TUTUM_AUTH"], origins["DB_1_NAME"], origins["DB_USER"]) == (
                "user",
                "role",
                "link",
                "image",
            )
            links = plane.get(db)["link_variables"]
            assert all(isinstance(v, str) for v in links.values())
            assert not [k for k in links if k.endswith(("_PATH", "_HOME", "_TUTUM_AUTH"))]
            assert links["DB_1_PORT_3306_TCP_ADDR"] == target["private_ip"]
            # What web got from its link is not handed on.
            assert not [k for k in plane.get(web)["link_variables"] if "_ENV_DB_1_" in k]
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
