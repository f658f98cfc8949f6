"""The JSON example of the specification's Services page: the inputs it shows give the object it shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.unit.server.plane import Plane, run

EXAMPLE: dict[str, Any] = json.loads(Path(__file__).with_name("service_example.json").read_text("utf-8"))

INPUTS = (
    "autodestroy autoredeploy autorestart container_envvars container_ports cpu_shares deployment_strategy "
    "memory name network privileged roles run_command sequential_deployment tags target_num_containers"
)
#: What is made by the server, or depends on when and where it runs.
OF_THE_RUN = "containers deployed_datetime started_datetime resource_uri uuid"
#: Where the example contradicts itself or the real system's answers (sections 3.4 and 11 of tutum-api.md): a
#: service of a stack has the stack's name in its DNS name, an entrypoint that is not given is null.
CONTRADICTED = "stack entrypoint"

LINK = "WORDPRESS_STACKABLE"


def test_the_example_of_the_specification() -> None:
    async def test() -> None:
        tags = [tag["name"] for tag in EXAMPLE["tags"]]
        nodes = {"one": tags, "two": tags}
        async with Plane(
            nodes, user="admin", dns_suffix="tutum.io", rest_url="https://app-test.tutum.co"
        ) as plane:
            db = await plane.up(name="db", image="tutum/mysql:5.6", tags=EXAMPLE["tags"])
            # The fixed port needs a node for each container, and on each there must be volumes to mount.
            data = await plane.up(
                name="data",
                image="tutum/mysql:5.6",
                tags=EXAMPLE["tags"],
                target_num_containers=2,
                deployment_strategy="HIGH_AVAILABILITY",
            )
            bindings = [
                {**binding, "volumes_from": binding["volumes_from"] and f"/api/v1/service/{data}/"}
                for binding in EXAMPLE["bindings"]
            ]
            web = await plane.up(
                **{name: EXAMPLE[name] for name in INPUTS.split()},
                image=EXAMPLE["image_name"],
                bindings=bindings,
                linked_to_service=[{"to_service": db, "name": EXAMPLE["linked_to_service"][0]["name"]}],
            )
            await leave_one_starting(plane, web)
            found = plane.get(web)

            assert found.keys() >= EXAMPLE.keys()
            special = "bindings container_ports link_variables linked_to_service"
            unlike = {*OF_THE_RUN.split(), *CONTRADICTED.split(), *special.split()}
            for name in EXAMPLE.keys() - unlike:
                assert found[name] == EXAMPLE[name], name
            assert found["bindings"] == bindings
            ports = json.loads(json.dumps(EXAMPLE["container_ports"]).replace(".srv.", ".svc."))
            assert found["container_ports"] == ports
            assert found["linked_to_service"] == [
                {"from_service": found["resource_uri"], "name": "DB", "to_service": f"/api/v1/service/{db}/"}
            ]
            check_link_variables(found, plane.containers(web))

    run(test)


async def leave_one_starting(plane: Plane, service: str) -> None:
    """The example shows one container that runs and one that neither runs nor is stopped."""
    last = plane.containers(service)[-1]["uuid"]
    for verb in ("stop", "start"):
        await plane.control.act("container", last, verb, None)
        await plane.advance(0)


def check_link_variables(service: dict[str, Any], containers: list[dict[str, Any]]) -> None:
    """Every variable of the example is there. Its addresses are of a time when links led to outer ports."""
    found, example = service["link_variables"], EXAMPLE["link_variables"]
    password = EXAMPLE["container_envvars"][0]["value"]
    addresses = {f"{LINK}_{n}": c["private_ip"] for n, c in enumerate(containers, 1)}
    addresses[LINK] = addresses[f"{LINK}_1"]
    compared = {name for name in example if not name.endswith(("_ENV_HOME", "_ENV_PATH"))}
    assert compared <= found.keys()
    for name in compared:
        base = re.match(rf"{LINK}(?:_\d)?", name)
        assert base is not None
        address = addresses[base[0]]
        expected = {
            "_ENV_DB_PASS": password,
            "_PORT": f"tcp://{address}:80",
            "_PORT_80_TCP": f"tcp://{address}:80",
            "_PORT_80_TCP_ADDR": address,
            "_PORT_80_TCP_PORT": "80",
            "_TUTUM_API_URL": f"https://app-test.tutum.co{service['resource_uri']}",
        }.get(name.removeprefix(base[0]), example[name])
        assert found[name] == expected, name
