"""Services on a swarm of one node: each attribute reaches the task, and what happens to it comes back."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from pulumi_tutum import config, stream
from tests.support import images
from tests.support.real import V1, Real
from tests.support.server import Server
from tests.support.stack import Refused, Stack
from tests.support.swarm import SwarmCluster
from tests.support.tools import until

pytestmark = [pytest.mark.docker]

#: Its HEALTHCHECK looks for a file.
CHECKED = dataclasses.replace(
    images.busybox(),
    name="test/checked:latest",
    config={
        "Healthcheck": {
            "Test": ["CMD-SHELL", "test -e /tmp/well"],
            "Interval": 1_000_000_000,
            "Timeout": 2_000_000_000,
            "Retries": 3,
        }
    },
)
PORT_80 = {"protocol": "tcp", "inner_port": 80, "published": True}


@pytest.fixture(scope="module")
def cluster(docker_tools: None) -> Iterator[SwarmCluster]:
    with SwarmCluster(1) as cluster:
        images.load(cluster, images.busybox(), images.hello(), images.redis(), CHECKED)
        yield cluster


@pytest.fixture(scope="module")
def server(cluster: SwarmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("data")
    options: dict[str, Any] = {"node": cluster.node_urls, "allow": "host-network,host-path=/tmp"}
    with Server(backend="swarm", data=data, stop_seconds=2, **options) as server:
        yield server
        for word in ("unexpected", "failed"):
            assert word not in server.log(), server.log()


@pytest.fixture
def real(server: Server, cluster: SwarmCluster) -> Iterator[Real]:
    """The services of the module's server; at the end nothing of them may be left."""
    with Real(server, cluster.node_urls) as real:
        yield real
        real.terminate_all()
        assert services(real) == []
        until(lambda: not networks(real), "no network is left")


def services(real: Real, service: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """What there is in the swarm, of one Tutum service or of all."""
    label = "io.tutum.server" if service is None else f"io.tutum.service={service['uuid']}"
    found: list[dict[str, Any]] = real.engines[0].api.services(filters={"label": label})
    return sorted(found, key=lambda s: str(s["Spec"]["Labels"].get("io.tutum.ordinal")))


def networks(real: Real) -> list[str]:
    return [n.name for n in real.engines[0].networks.list(filters={"label": "io.tutum.server"})]


def running(real: Real, service: dict[str, Any], ordinal: int = 1) -> Any:
    """docker-py's container of a service that runs now."""
    (found,) = [c for c in real.inside(service, ordinal) if c.status == "running"]
    return found


def sh(real: Real, service: dict[str, Any], command: str, ordinal: int = 1) -> str:
    return str(running(real, service, ordinal).exec_run(["sh", "-c", command]).output.decode())


def addresses(real: Real, client: dict[str, Any], name: str) -> set[str]:
    """What a name means to a container of a service."""
    said = sh(real, client, f"nslookup -type=a {name}. 2>&1")
    lines = said.partition("Name:")[2].splitlines()
    return {line.partition("Address: ")[2] for line in lines if line.startswith("Address: ")}


def own_addresses(real: Real, service: dict[str, Any]) -> list[str]:
    return [str(c["private_ip"]) for c in real.containers(service)]


# -- attributes ------------------------------------------------------------------------------------


def test_what_a_container_is_made_of(real: Real) -> None:
    service = real.run(
        name="whole",
        entrypoint="sh -c",
        run_command="'echo $GREETING; exec sleep 100000'",
        container_envvars=[{"key": "GREETING", "value": "hello there"}],
        memory=64,
        autorestart="ON_FAILURE",
    )
    (entry,) = services(real, service)
    inspected = running(real, service).attrs
    assert inspected["Config"]["Hostname"] == "whole-1"
    assert inspected["Config"]["Entrypoint"] == ["sh", "-c"]
    assert inspected["HostConfig"]["Memory"] == 64 << 20
    assert inspected["HostConfig"]["Init"] is True
    assert entry["Spec"]["TaskTemplate"]["RestartPolicy"]["Condition"] == "on-failure"
    assert b"hello there" in running(real, service).logs()
    (container,) = real.containers(service)
    assert container["docker_id"] == inspected["Id"]
    assert container["uuid"] == inspected["Config"]["Labels"]["io.tutum.container"]


def test_text_that_a_swarm_would_take_for_a_template_arrives_as_it_is(real: Real) -> None:
    given = {"A": "{{.Node.Hostname}}", "B": "{{ nonsense }}", "C": "{{{{x}}}}", "D": "p{{ss", "E": "}}"}
    envvars = [{"key": key, "value": value} for key, value in given.items()]
    service = real.run(container_envvars=envvars, bindings=[{"container_path": "/a{{b"}])
    found = running(real, service).attrs
    assert {f"{key}={value}" for key, value in given.items()} <= set(found["Config"]["Env"])
    assert [mount["Destination"] for mount in found["Mounts"]] == ["/a{{b"]


def test_no_secret_is_in_a_label(real: Real) -> None:
    secret = "a-secret-of-this-test"
    service = real.run(
        container_envvars=[{"key": "PASSWORD", "value": secret}], roles=["global"], run_command="sleep 100000"
    )
    assert secret in sh(real, service, "echo $PASSWORD")
    token = sh(real, service, "echo $TUTUM_AUTH").split(":", 1)[1].strip()
    (entry,) = services(real, service)
    container = entry["Spec"]["TaskTemplate"]["ContainerSpec"]
    shown = json.dumps([entry["Spec"]["Labels"], container["Labels"], entry["Spec"]["Name"]])
    assert secret not in shown
    assert token not in shown


def test_a_published_port_answers_at_its_endpoint(real: Real, cluster: SwarmCluster) -> None:
    fixed = {**PORT_80, "outer_port": 8080}
    web = real.run("tutum/hello-world", name="web", container_ports=[fixed])
    (shown,) = web["container_ports"]
    assert shown["endpoint_uri"] == f"http://{cluster.addresses[0]}:8080/"
    assert "My hostname is web-1" in requests.get(shown["endpoint_uri"], timeout=10).text
    # It is there again after the redeploy, though the swarm lets go of a port late.
    assert real.redeploy(web)["state"] == "Running"
    assert "My hostname is web-1" in requests.get(shown["endpoint_uri"], timeout=10).text


def test_a_dynamic_port_that_somebody_else_has_becomes_another(real: Real, cluster: SwarmCluster) -> None:
    first = real.run("tutum/hello-world", container_ports=[PORT_80])
    taken = real.containers(first)[0]["container_ports"][0]["outer_port"] + 1
    body = {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": taken, "PublishMode": "host"}
    image = real.engines[0].images.get("test/busybox").id
    stranger = real.engines[0].api.create_service(
        {"ContainerSpec": {"Image": image, "Args": ["sleep", "100000"]}},
        endpoint_spec={"Mode": "dnsrr", "Ports": [body]},
    )
    api = real.engines[0].api
    theirs = {"service": stranger["ID"]}
    try:
        until(lambda: [t["Status"]["State"] for t in api.tasks(theirs)] == ["running"], "it has the port")
        service = real.run("tutum/hello-world", container_ports=[PORT_80])
        (shown,) = real.containers(service)[0]["container_ports"]
        assert shown["outer_port"] != taken
        assert requests.get(shown["endpoint_uri"], timeout=10).ok
        fixed = real.start(real.create(container_ports=[{**PORT_80, "outer_port": taken}]))
        assert fixed["state"] == "Not running"
        assert re.search(rf"already .*{taken}|{taken} is already", real.why(fixed)), real.why(fixed)
    finally:
        real.engines[0].api.remove_service(stranger["ID"])


def test_volumes_outlive_containers_but_not_their_service(real: Real, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("from the host")
    service = real.run(
        bindings=[
            {"container_path": "/data"},
            {"container_path": "/host", "host_path": str(tmp_path), "rewritable": False},
        ]
    )
    assert sh(real, service, "cat /host/given") == "from the host"
    assert "Read-only file system" in sh(real, service, "echo >/host/given 2>&1")
    sh(real, service, "echo kept >/data/file")
    other = real.run(bindings=[{"volumes_from": service["resource_uri"], "rewritable": False}])
    assert sh(real, other, "cat /data/file") == "kept\n"
    real.terminate(other)
    real.redeploy(service)
    assert sh(real, service, "cat /data/file") == "kept\n"
    real.redeploy(service, "?reuse_volumes=false")
    assert "No such file" in sh(real, service, "cat /data/file 2>&1")
    real.terminate(service)
    assert real.engines[0].volumes.list() == []


def test_a_missing_host_path_is_told(real: Real) -> None:
    gone = real.start(real.create(bindings=[{"container_path": "/x", "host_path": "/tmp/not/there"}]))
    assert gone["state"] == "Not running"
    assert "bind source path does not exist: /tmp/not/there" in real.why(gone)


def test_where_ports_are_published_is_said(server: Server) -> None:
    assert "publishes ports at every address" in server.log()


def test_the_network_of_the_host(real: Real) -> None:
    service = real.run(network="host")
    assert "eth0" in sh(real, service, "ip -o link")
    assert running(real, service).attrs["HostConfig"]["NetworkMode"] == "host"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"privileged": True}, "privileged: true is not supported by a swarm"),
        ({"pid": "host"}, "pid: host is not supported by a swarm"),
        ({"cpu_shares": 512}, "cpu_shares: 512 is not supported by a swarm"),
        ({"memory": 4}, "memory: must be 6 or more"),
        ({"bindings": [{"container_path": "/x", "host_path": "/etc"}]}, "bindings[0].host_path: not allowed"),
        ({"healthcheck": {"http": "/"}}, "healthcheck.http: needs a published port"),
    ],
)
def test_what_a_swarm_cannot_do_is_refused(real: Real, body: dict[str, Any], problem: str) -> None:
    answer = real.call("POST", f"{V1}/service/", {"image": "test/busybox", "name": "never", **body})
    assert answer.status_code == 400
    assert problem in answer.json()["error"]
    assert "--allow privileged" not in answer.json()["error"]


def test_a_preview_tells_what_a_swarm_cannot_do(server: Server) -> None:
    web = {"image": "test/busybox", "privileged": True, "pid": "host", "cpu_shares": 512}
    with Stack(server.environment) as stack, pytest.raises(Refused) as refusal:
        stack.preview(web=web)
    assert [reason.partition(":")[0] for reason in refusal.value.reasons] == [
        "privileged",
        "pid",
        "cpu_shares",
    ]


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 3])
def test_exit_codes_are_kept(real: Real, code: int) -> None:
    service = real.create(run_command=f"sh -c 'exit {code}'")
    assert real.start(service)["state"] == "Stopped"
    (container,) = real.containers(service)
    assert (container["state"], container["exit_code"]) == ("Stopped", code)


def test_what_cannot_start_says_why(real: Real) -> None:
    missing = real.start(real.create("test/missing"))
    assert missing["state"] == "Not running"
    assert "No such image: test/missing:latest" in real.why(missing)
    entrypoint = real.start(real.create(entrypoint="/nothing/here", run_command=""))
    assert entrypoint["state"] in ("Stopped", "Not running")
    assert "127" in real.why(entrypoint) or "/nothing/here" in real.why(entrypoint)


def test_restart_policies(real: Real) -> None:
    crashing = real.create(run_command="sh -c 'sleep 0.5; exit 3'", autorestart="ON_FAILURE")
    real.act(crashing, "start")
    until(lambda: real.engines[0].api.tasks() and len(runs(real, crashing)) >= 3, "it is restarted twice")
    real.wait(crashing, "Partly running")
    real.act(crashing, "stop")
    real.wait(crashing, "Stopped")
    count = len(runs(real, crashing))
    done = real.start(real.create(run_command="sh -c 'exit 0'", autorestart="ON_FAILURE"))
    assert done["state"] == "Stopped"
    assert len(runs(real, crashing)) == count


def test_the_check_of_the_image_passes_before_the_window_is_over(real: Real) -> None:
    well = {"run_command": "sh -c 'sleep 1; touch /tmp/well; sleep 100000'"}
    service = real.create("test/checked", **well, monitor_seconds=3000)
    assert real.start(service)["state"] == "Running"


def test_the_window_ends_before_the_check_of_the_image_has_passed(real: Real) -> None:
    # Unhealthy after some three seconds, it is ended by the swarm.
    service = real.create("test/checked", run_command="sleep 100000", monitor_seconds=1)
    assert real.start(service)["state"] == "Running"


def test_an_image_that_is_unhealthy_in_the_window_fails(real: Real) -> None:
    service = real.create("test/checked", run_command="sleep 100000", monitor_seconds=3000)
    assert real.start(service)["state"] == "Stopped"
    assert "the container was unhealthy" in real.why(service)


def test_the_check_of_the_image_can_be_turned_off(real: Real) -> None:
    off = {"healthcheck": {"disabled": True}}
    service = real.run("test/checked", run_command="sleep 100000", monitor_seconds=6, **off)
    assert service["state"] == "Running"


def test_an_exit_in_the_window_fails(real: Real) -> None:
    service = real.create(run_command="sh -c 'sleep 1; exit 3'", monitor_seconds=5)
    assert real.start(service)["state"] == "Stopped"
    assert "exited with code 3 before it had run for 5 seconds" in real.why(service)


def test_a_crash_loop_is_told_with_its_last_exit_code(real: Real) -> None:
    service = real.create(run_command="sh -c 'sleep 0.2; exit 4'", autorestart="ALWAYS", monitor_seconds=5)
    assert real.start(service)["state"] == "Partly running"
    assert "is in a crash loop" in real.why(service)
    for _ in range(20):
        (container,) = real.containers(service)
        assert (container["state"], container["exit_code"]) == ("Starting", 4)


def test_a_program_that_fails_is_run_once(real: Real) -> None:
    service = real.run(run_command="sh -c 'sleep 1; exit 3'")
    assert real.wait(service, "Stopped")["stopped_num_containers"] == 1
    (container,) = real.containers(service)
    assert (container["state"], container["exit_code"]) == ("Stopped", 3)
    # The swarm is told not to run it again, though it would after a while.
    label = {"label": f"io.tutum.service={service['uuid']}"}
    until(lambda: len(real.engines[0].api.tasks(filters=label)) == 3, "its service is stopped")
    (inside,) = [c for c in real.inside(service) if c.attrs["State"]["StartedAt"][:4] != "0001"]
    assert inside.attrs["State"]["ExitCode"] == 3
    real.terminate(service)


def runs(real: Real, service: dict[str, Any]) -> list[str]:
    """IDs of the tasks of a service that ran."""
    label = {"label": f"io.tutum.service={service['uuid']}"}
    found = real.engines[0].api.tasks(filters=label)
    return [t["ID"] for t in found if (t["Status"].get("ContainerStatus") or {}).get("ContainerID")]


def test_a_killed_container_is_seen(real: Real) -> None:
    service = real.run(target_num_containers=2)
    running(real, service, 2).kill()
    real.wait(service, "Partly running")
    assert [c["exit_code"] for c in real.containers(service)] == [None, 137]


def test_autodestroy(real: Real) -> None:
    job = real.create(run_command="true", autodestroy="ON_SUCCESS")
    real.act(job, "start")
    until(lambda: [c["state"] for c in real.all_containers(job)] == ["Terminated"], "it destroys itself")
    assert services(real, job) == []


def test_stop_keeps_the_exit_code_and_start_begins_anew(real: Real) -> None:
    script = 'trap "exit 7" TERM; echo run; while :; do sleep 0.1; done'
    service = real.run(run_command=f"sh -c '{script}'", target_num_containers=2)
    real.act(service, "stop")
    real.wait(service, "Stopped")
    assert [c["exit_code"] for c in real.containers(service)] == [7, 7]
    assert [c for c in real.inside(service) if c.status == "running"] == []
    before = [c["uuid"] for c in real.containers(service)]
    assert real.start(service)["state"] == "Running"
    assert [c["uuid"] for c in real.containers(service)] == before


def test_a_service_that_somebody_removed_from_the_swarm_is_gone(real: Real) -> None:
    service = real.run()
    real.engines[0].api.remove_service(services(real, service)[0]["ID"])
    real.wait(service, "Not running")
    assert [c["state"] for c in real.all_containers(service)] == ["Terminated"]
    assert real.start(service)["state"] == "Running"


def change_by_hand(real: Real, service: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> None:
    """`docker service update` of its only container."""
    api = real.engines[0].api
    (entry,) = services(real, service)
    spec = entry["Spec"]
    change(spec)
    api.update_service(
        entry["ID"],
        entry["Version"]["Index"],
        task_template=spec["TaskTemplate"],
        name=spec["Name"],
        labels=spec["Labels"],
        mode=spec["Mode"],
        endpoint_spec=spec["EndpointSpec"],
    )


@pytest.mark.parametrize("autorestart", ["OFF", "ALWAYS"])
def test_a_container_that_somebody_scaled_in_the_swarm(real: Real, autorestart: str) -> None:
    service = real.run(autorestart=autorestart)
    change_by_hand(real, service, lambda spec: spec["Mode"].update(Replicated={"Replicas": 0}))
    assert real.wait(service, "Stopped")["stopped_num_containers"] == 1
    assert real.start(service)["state"] == "Running"
    assert running(real, service)


def test_what_somebody_changed_in_the_swarm_is_drift(real: Real, server: Server) -> None:
    web = {"image": "test/busybox", "run_command": "sleep 100000", "autodestroy": "ALWAYS"}
    with Stack(server.environment) as stack:
        stack.up(web=web)
        service = real.get(stack.state["web"].id)
        before = running(real, service).id

        def change(spec: dict[str, Any]) -> None:
            spec["TaskTemplate"]["ForceUpdate"] += 1
            spec["TaskTemplate"]["ContainerSpec"]["Env"].append("BY=hand")

        change_by_hand(real, service, change)

        def changed() -> bool:
            found = [c for c in real.inside(service) if c.status == "running"]
            return len(found) == 1 and found[0].id != before

        until(changed, "it was made anew")
        until(lambda: not real.get(service["uuid"])["synchronized"], "it is seen")
        real.wait(service, "Running")
        stack.refresh()
        assert stack.preview(web=web) == {"web": "update"}
        stack.up(web=web)
        assert "BY=hand" not in running(real, service).attrs["Config"]["Env"]
        assert stack.preview(web=web) == {}


def test_scale_and_redeploy(real: Real) -> None:
    service = real.run(target_num_containers=2)
    real.scale(service, 3)
    assert len(services(real, service)) == 3
    real.scale(service, 1)
    assert [s["Spec"]["Labels"]["io.tutum.ordinal"] for s in services(real, service)] == ["1"]
    before = running(real, service).id
    real.patch(service, run_command="sleep 200000")
    assert real.redeploy(service)["state"] == "Running"
    now = running(real, service)
    assert now.id != before
    assert "200000" in now.attrs["Config"]["Cmd"]


def test_sequential_deployment(real: Real) -> None:
    service = real.run(target_num_containers=3, sequential_deployment=True)
    began = [s["CreatedAt"] for s in services(real, service)]
    assert began == sorted(began)
    assert addresses(real, service, f"{service['name']}-1") == {own_addresses(real, service)[0]}


def test_a_new_image_behind_the_tag_redeploys(real: Real, cluster: SwarmCluster) -> None:
    api = real.engines[0].api
    api.tag("test/busybox", "test/moving", "1")
    service = real.run("test/moving:1", run_command="sleep 100000", autoredeploy=True)
    before = running(real, service).id
    api.tag("tutum/hello-world", "test/moving", "1")
    wanted = real.engines[0].images.get("tutum/hello-world").id

    def renewed() -> bool:
        found = [c for c in real.inside(service) if c.status == "running"]
        return [c.image.id for c in found] == [wanted] and found[0].id != before

    until(renewed, "it is made from the new image")
    real.settle(service)
    real.terminate(service)
    api.remove_image("test/moving:1")


@pytest.mark.parametrize("test", ["test -e /tmp/well", "false"])
def test_a_health_check(real: Real, test: str) -> None:
    check = {"command": test, "interval_seconds": 1, "retries": 2}
    service = real.create(run_command="sh -c 'sleep 1; touch /tmp/well; sleep 100000'", healthcheck=check)
    state = real.start(service)["state"]
    if test == "false":
        assert state != "Running"
        assert "unhealthy" in real.why(service)
    else:
        assert state == "Running"


def test_a_health_check_over_http(real: Real) -> None:
    check = {"http": "/", "interval_seconds": 1}
    assert real.run("tutum/hello-world", container_ports=[PORT_80], healthcheck=check)["state"] == "Running"


# -- links -----------------------------------------------------------------------------------------


def link(target: dict[str, Any], name: str) -> dict[str, str]:
    return {"to_service": target["resource_uri"], "name": name}


def test_links(real: Real) -> None:
    db = real.run("test/redis", name="db", target_num_containers=2)
    web = real.run(linked_to_service=[link(db, "DB")])
    environment = sh(real, web, "env")
    assert "DB_PORT_6379_TCP_ADDR=DB-1" in environment.splitlines()
    first, second = own_addresses(real, db)
    assert addresses(real, web, "DB") == {first, second}
    assert addresses(real, web, "DB-2") == {second}
    assert "PONG" in sh(real, web, "printf 'PING\\r\\nQUIT\\r\\n' | nc $DB_PORT_6379_TCP_ADDR 6379")
    # What is linked to may change; who links needs no restart.
    before = running(real, web).id
    real.scale(db, 3)
    assert len(addresses(real, web, "DB")) == 3
    real.redeploy(db)
    assert addresses(real, web, "DB-1") == {own_addresses(real, db)[0]}
    assert running(real, web).id == before


def test_a_name_that_containers_were_not_born_with(real: Real) -> None:
    target = real.run(name="store")
    body = {"image": "test/busybox", "name": "web", "linked_to_service": [link(target, "DB")]}
    answer = real.call("POST", f"{V1}/service/", body)
    assert answer.status_code == 400
    assert "linked_to_service[0].name: 'DB' is not a name" in answer.json()["error"]
    assert "use store, or stop 'store'" in answer.json()["error"]
    # The way out that it names.
    real.act(target, "stop")
    real.wait(target, "Stopped")
    web = real.create(name="web", run_command="sleep 100000", linked_to_service=[link(target, "DB")])
    real.start(target)
    assert real.start(web)["state"] == "Running"
    assert addresses(real, web, "DB") == set(own_addresses(real, target))


def test_two_stacks_of_one_program_do_not_see_each_other(real: Real) -> None:
    first, second = "1a2b3c4" + "0" * 57, "5d6e7f8" + "0" * 57
    made = {}
    for key in (first, second):
        body = {"image": "test/busybox", "run_command": "sleep 100000"}
        suffix = key[:7]
        headers = {"Idempotency-Key": key}
        url = f"{real.server.url}{V1}/service/"
        answer = real.session.post(url, json={**body, "name": f"db-{suffix}"}, headers=headers)
        db = real.start(answer.json())
        web = real.run(name=f"web-{suffix}", linked_to_service=[link(db, "DB")])
        made[key] = (db, web)
    for db, web in made.values():
        assert addresses(real, web, "DB") == set(own_addresses(real, db))
        assert addresses(real, web, db["name"]) == set(own_addresses(real, db))
    assert len(networks(real)) == 2


# -- logs and commands -----------------------------------------------------------------------------


@pytest.fixture
def settings(server: Server) -> config.Settings:
    explicit = {"user": server.user, "apikey": server.apikey, "stream_host": server.stream_url}
    return config.resolve(explicit, {})


def test_logs_of_all_runs(real: Real, settings: config.Settings) -> None:
    service = real.run(name="talk", run_command="sh -c 'echo out; sleep 0.2; echo err >&2; sleep 100000'")
    until(
        lambda: len(list(stream.logs(settings, service["uuid"], follow=False))) == 2, "both lines are there"
    )
    frames = list(stream.logs(settings, service["uuid"], follow=False))
    shown = [(f["source"], f["streamType"], f["log"]) for f in frames]
    assert shown == [("talk-1", "stdout", "out\n"), ("talk-1", "stderr", "err\n")]
    real.act(service, "stop")
    real.wait(service, "Stopped")
    assert len(list(stream.logs(settings, service["uuid"], follow=False))) == 2
    real.start(service)
    until(lambda: len(list(stream.logs(settings, service["uuid"], follow=False))) == 4, "and those of now")
    tail = [f["log"] for f in stream.logs(settings, service["uuid"], tail=3, follow=False)]
    assert tail == ["err\n", "out\n", "err\n"]
    for count in range(1, 5):
        deadline = time.monotonic() + 60
        followed = stream.logs(settings, service["uuid"], tail=count, deadline=deadline)
        lines = [f["log"] for f in itertools.islice(followed, count)]
        assert lines == ["out\n", "err\n", "out\n", "err\n"][4 - count :]


def test_a_command_in_a_container(real: Real, settings: config.Settings) -> None:
    service = real.run()
    (container,) = real.containers(service)
    with stream.exec_command(settings, container["uuid"], "hostname") as connection:
        assert [m["output"] for m in connection.messages()] == [f"{service['name']}-1\n"]


# -- the server may die ----------------------------------------------------------------------------


def test_a_killed_server_carries_on(real: Real, server: Server) -> None:
    keep = real.run(name="keep", bindings=[{"container_path": "/data"}])
    going = real.run(name="going", target_num_containers=2)
    coming = [real.create(target_num_containers=2) for _ in range(3)]
    again = real.run(name="again", target_num_containers=2)
    before = running(real, keep).id
    for service in coming:
        real.act(service, "start")
    real.act(again, "redeploy")
    real.ok("DELETE", f"{V1}/service/{going['uuid']}/")
    until(lambda: len(services(real)) >= 5, "some are made")
    server.restart(kill=True)
    for service in (*coming, again, keep):
        assert real.settle(service)["state"] == "Running"
        names = [s["Spec"]["Labels"]["io.tutum.ordinal"] for s in services(real, service)]
        assert names == [str(n + 1) for n in range(service["target_num_containers"])]
    real.wait(going, "Terminated")
    assert services(real, going) == []
    assert running(real, keep).id == before


def test_what_a_killed_server_did_not_see(real: Real, server: Server) -> None:
    job = real.run(name="job", run_command="sleep 100000")
    gone = real.run(name="gone")
    server.kill()
    running(real, job).kill()
    real.engines[0].api.remove_service(services(real, gone)[0]["ID"])
    stray = real.engines[0].volumes.create("stray", labels={"io.tutum.server": server_label(real, job)})
    server.start()
    assert real.wait(job, "Stopped")["stopped_num_containers"] == 1
    assert real.containers(job)[0]["exit_code"] == 137
    real.wait(gone, "Not running")
    until(lambda: stray.name not in [v.name for v in real.engines[0].volumes.list()], "it is swept")


def server_label(real: Real, service: dict[str, Any]) -> str:
    return str(services(real, service)[0]["Spec"]["Labels"]["io.tutum.server"])


def test_without_a_data_folder_nothing_stays(cluster: SwarmCluster) -> None:
    with (
        Server(backend="swarm", node=cluster.node_urls, stop_seconds=2) as server,
        Real(server, cluster.node_urls) as real,
    ):
        real.run(target_num_containers=2, bindings=[{"container_path": "/data"}])
        assert server.stop() == 0
        assert services(real) == []
        until(lambda: not real.left() and not networks(real), "nothing is left")


# -- nodes -----------------------------------------------------------------------------------------


def test_a_paused_node_keeps_what_it_has_and_gets_nothing_new(real: Real) -> None:
    keep, more = real.run(), real.create()
    api = real.engines[0].api
    (node,) = real.ok("GET", f"{V1}/node/")["objects"]

    def update(availability: str, labels: dict[str, str]) -> None:
        (entry,) = api.nodes()
        spec = {**entry["Spec"], "Availability": availability, "Labels": labels}
        api.update_node(entry["ID"], entry["Version"]["Index"], spec)

    update("pause", {"io.tutum.tag.paused": "1"})
    until(lambda: real.get(node["uuid"], "node")["tags"], "it is seen to be paused")
    assert real.get(keep["uuid"])["state"] == "Running"
    real.act(more, "start")
    assert real.get(more["uuid"])["state"] == "Starting"
    assert services(real, more) == []
    update("active", {})
    assert real.settle(more)["state"] == "Running"


def test_tags_are_labels_of_the_node(real: Real) -> None:
    (node,) = real.ok("GET", f"{V1}/node/")["objects"]
    real.ok("PATCH", f"{V1}/node/{node['uuid']}/", {"tags": [{"name": "web"}]})
    api = real.engines[0].api

    def labels() -> dict[str, str]:
        return dict(api.nodes()[0]["Spec"].get("Labels") or {})

    until(lambda: labels() == {"io.tutum.tag.web": "1"}, "it is a label")
    assert real.run(tags=["web"])["state"] == "Running"
    (entry,) = api.nodes()
    spec = {**entry["Spec"], "Labels": {"io.tutum.tag.db": "1", "zone": "a"}}
    api.update_node(entry["ID"], entry["Version"]["Index"], spec)

    def tags() -> list[str]:
        return [tag["name"] for tag in real.get(node["uuid"], "node")["tags"]]

    until(lambda: "db" in tags(), "the label is a tag")
    assert "web" not in tags()
    assert real.start(real.create(tags=["web"]))["state"] == "Not running"
    real.ok("PATCH", f"{V1}/node/{node['uuid']}/", {"tags": []})
    until(lambda: labels() == {"zone": "a"}, "others' labels stay")
    for name in ("one", "two", "three", "four"):
        real.ok("PATCH", f"{V1}/node/{node['uuid']}/", {"tags": [{"name": name}]})
    until(lambda: labels() == {"zone": "a", "io.tutum.tag.four": "1"}, "the last of many changes holds")
    until(lambda: tags() == ["four"], "it is the node's tag")
    real.ok("PATCH", f"{V1}/node/{node['uuid']}/", {"tags": []})
    until(lambda: labels() == {"zone": "a"}, "it has no tags")


def test_an_engine_without_a_swarm_is_no_backend(docker_tools: None) -> None:
    from tests.support.docker_engine import DockerEngine
    from tests.support.server import run_to_end

    with DockerEngine() as engine:
        ended = run_to_end("--backend", "swarm", "--port", "0", "--node", engine.url)
    assert ended.returncode != 0
    assert "is not a swarm manager" in ended.stderr


def test_another_manager_takes_over_from_one_that_is_demoted(docker_tools: None) -> None:
    with SwarmCluster(2, managers=2) as cluster:
        images.load(cluster, images.busybox())
        nodes = [f"node{number}={url}" for number, url in enumerate(cluster.node_urls, 1)]
        with (
            Server(backend="swarm", node=nodes, stop_seconds=1) as server,
            Real(server, cluster.node_urls) as real,
        ):
            keep = real.run()
            api = real.engines[1].api
            (entry,) = [n for n in api.nodes() if n["Description"]["Hostname"] == "node1"]
            api.update_node(entry["ID"], entry["Version"]["Index"], {**entry["Spec"], "Role": "worker"})
            until(lambda: not real.engines[0].info()["Swarm"]["ControlAvailable"], "it is no manager")
            assert real.run()["state"] == "Running"
            # While the node changes its role, it does not answer for a moment.
            real.wait(keep, "Running")


def test_a_manager_whose_engine_dies_comes_back(docker_tools: None, tmp_path: Path) -> None:
    with SwarmCluster(1) as cluster:
        images.load(cluster, images.busybox())
        options: dict[str, Any] = {"node": cluster.node_urls, "stop_seconds": 2, "data": tmp_path}
        with Server(backend="swarm", **options) as server, Real(server, cluster.node_urls) as real:
            command = "sh -c 'echo up $(hostname); exec sleep 100000'"
            kept: dict[str, Any] = {"bindings": [{"container_path": "/data"}], "run_command": command}
            always = real.run(name="always", autorestart="ALWAYS", **kept)
            explicit = {"user": server.user, "apikey": server.apikey, "stream_host": server.stream_url}
            said: list[str] = []

            def follow() -> None:
                frames = stream.logs(config.resolve(explicit, {}), always["uuid"])
                said.extend(f["log"] for f in frames)

            follower = threading.Thread(target=follow, daemon=True)
            follower.start()
            until(lambda: said == ["up always-1\n"], "its first line is followed")
            once = real.run()
            sh(real, always, "echo kept >/data/file")
            before = running(real, always).id
            cluster.daemons[0].kill()
            coming = real.create(run_command="sleep 100000")
            real.act(coming, "start")
            cluster.daemons[0].start()
            assert real.settle(coming)["state"] == "Running"
            assert real.wait(once, "Stopped")["stopped_num_containers"] == 1

            def again() -> bool:
                found = [c for c in real.inside(always) if c.status == "running"]
                return bool(found) and found[0].id != before

            until(again, "the container that is always to run does")
            real.wait(always, "Running")
            assert sh(real, always, "cat /data/file") == "kept\n"
            until(lambda: said == ["up always-1\n"] * 2, "its next run is followed, too")
            real.terminate_all()
            follower.join(60)
            assert not follower.is_alive()
