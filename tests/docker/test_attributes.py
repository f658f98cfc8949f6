"""Every attribute of a service reaches its containers on a real engine."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support import images
from tests.support.docker_engine import DockerEngine
from tests.support.real import V1, Real
from tests.support.server import Server
from tests.support.tools import until

pytestmark = [pytest.mark.docker]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one folder of the host that services may have."""
    return tmp_path_factory.mktemp("allowed")


@pytest.fixture(scope="module")
def server(engine: DockerEngine, folder: Path) -> Iterator[Server]:
    allow = f"privileged,host-pid,host-network,host-path={folder}"
    with Server(backend="docker", node=[f"one={engine.url},first"], allow=allow, stop_seconds=2) as server:
        yield server
        assert "unexpected" not in server.log(), server.log()


def page(url: str) -> str:
    """What answers there, as soon as something does."""
    found: list[str] = []

    def answers() -> bool:
        try:
            found.append(requests.get(url, timeout=10).text)
        except requests.ConnectionError:
            return False
        return True

    until(answers, f"{url} answers")
    return found[-1]


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(type=kind) as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


# -- image, command, environment -----------------------------------------------------------------


def test_image_name_and_labels(real: Real) -> None:
    web = real.run("tutum/hello-world", name="web")
    container = real.one(web)
    assert container.attrs["Config"]["Image"] == "tutum/hello-world:latest"
    assert container.attrs["Config"]["Hostname"] == "web-1"
    assert container.name.startswith("web-1.")
    (shown,) = real.containers(web)
    assert shown["uuid"] == container.labels["io.tutum.container"]
    assert container.labels["io.tutum.service"] == web["uuid"]
    assert shown["name"] == "web-1"


def test_the_longest_name(real: Real) -> None:
    """A host's name may not be as long as that of the second container of such a service."""
    service = real.run(name="n" * 63, target_num_containers=2)
    assert [c["name"] for c in real.containers(service)] == [f"{'n' * 63}-1", f"{'n' * 63}-2"]
    assert [real.sh(service, "hostname", n) for n in (1, 2)] == [f"{'n' * 61}-1\n", f"{'n' * 61}-2\n"]


def test_entrypoint_and_command(real: Real) -> None:
    words = """entry.sh 'two words' "it's" -x"""
    service = real.run(entrypoint='sh -c \'printf "%s|" "$@"; echo; exec sleep 1000\'', run_command=words)
    container = real.one(service)
    until(lambda: container.logs() == b"two words|it's|-x|\n", "the words are written")
    container = real.one(real.run("tutum/hello-world", run_command="sleep 1000"))
    assert container.attrs["Config"]["Cmd"] == ["sleep", "1000"]
    assert container.attrs["Config"]["Entrypoint"] is None


def test_working_dir(real: Real) -> None:
    service = real.run(working_dir="/tmp")
    assert real.sh(service, "pwd") == "/tmp\n"


def test_environment_and_its_precedence(real: Real, engine: DockerEngine) -> None:
    given = ["A=image", "B=image", "DB_NAME=image", "TUTUM_SERVICE_FQDN=image"]
    images.load(engine, replace(images.busybox(), name="test/busybox:env", config={"Env": given}))
    target = real.run(name="target", container_envvars=[{"key": "SECRET", "value": "s3cret of target"}])
    mine = [
        {"key": "B", "value": "mine, with = and 'quotes'"},
        {"key": "DB_ENV_SECRET", "value": "overridden"},
        {"key": "ME", "value": "I am $TUTUM_CONTAINER_FQDN"},
    ]
    service = real.run(
        "test/busybox:env",
        name="client",
        container_envvars=mine,
        linked_to_service=[{"to_service": target["resource_uri"], "name": "DB"}],
    )
    found = real.env(service)
    assert found["A"] == "image"
    assert found["B"] == "mine, with = and 'quotes'"
    assert found["DB_NAME"] == "image", "a link never replaces what the image brings"
    assert found["DB_1_NAME"] == f"/{real.containers(target)[0]['uuid']}/target-1"
    assert found["DB_1_ENV_SECRET"] == "s3cret of target"
    assert found["DB_ENV_SECRET"] == "overridden"
    assert found["TUTUM_SERVICE_FQDN"] == "client.bob.svc.localhost"
    assert found["DOCKERCLOUD_SERVICE_FQDN"] == "client.bob.svc.localhost"
    assert found["ME"] == "I am client-1.bob.cont.localhost"
    # Labels can be read by whoever has the socket.
    assert "s3cret" not in str(real.one(service).labels)


def test_the_images_ports_and_environment_are_defaults(real: Real) -> None:
    redis = real.run("test/redis")
    (container,) = real.containers(redis)
    (port,) = container["container_ports"]
    assert (port["inner_port"], port["protocol"], port["published"]) == (6379, "tcp", False)
    assert not real.one(redis).attrs["HostConfig"]["PortBindings"]
    # The image's volume is a volume of the service's own.
    (mount,) = real.one(redis).attrs["Mounts"]
    assert mount["Destination"] == "/data"
    assert "io.tutum.server" in real.engines[0].volumes.get(mount["Name"]).attrs["Labels"]


# -- ports -----------------------------------------------------------------------------------------


def test_a_fixed_port_answers_at_its_endpoint(real: Real) -> None:
    number = free_port()
    port = {"protocol": "tcp", "inner_port": 80, "outer_port": number, "published": True}
    web = real.run("tutum/hello-world", name="web", container_ports=[port])
    (shown,) = web["container_ports"]
    assert shown["endpoint_uri"] == f"http://127.0.0.1:{number}/"
    assert "My hostname is web-1" in page(shown["endpoint_uri"])


def test_dynamic_ports_are_the_containers_own_and_stay(real: Real) -> None:
    port = {"protocol": "tcp", "inner_port": 80, "published": True}
    web = real.run("tutum/hello-world", name="web", container_ports=[port], target_num_containers=2)
    before = [c["container_ports"][0] for c in real.containers(web)]
    assert len({p["outer_port"] for p in before}) == 2
    assert all(p["outer_port"] >= 49153 for p in before)
    for ordinal, shown in enumerate(before, 1):
        assert f"My hostname is web-{ordinal}" in page(shown["endpoint_uri"])
    real.act(web, "stop")
    real.wait(web, "Stopped")
    real.start(web)
    assert [c["container_ports"][0] for c in real.containers(web)] == before
    real.one(web).restart()
    assert "My hostname is web-1" in page(before[0]["endpoint_uri"])


def test_datagrams_reach_an_udp_port(real: Real) -> None:
    number = free_port(socket.SOCK_DGRAM)
    port = {"protocol": "udp", "inner_port": 5353, "outer_port": number, "published": True}
    service = real.run(container_ports=[port])

    def arrived() -> int:
        # BusyBox has no server for UDP; the kernel counts what reached a port at which nobody listens.
        names, values = (line.split() for line in real.sh(service, "grep ^Udp: /proc/net/snmp").splitlines())
        return int(values[names.index("NoPorts")])

    with socket.socket(type=socket.SOCK_DGRAM) as s:

        def arrives() -> bool:
            with contextlib.suppress(OSError):
                s.sendto(b"ping", ("127.0.0.1", number))
            return arrived() > 0

        until(arrives, "a datagram arrives")


def test_a_dynamic_port_that_somebody_else_has_is_not_taken(real: Real) -> None:
    port = {"protocol": "tcp", "inner_port": 80, "published": True}
    with socket.socket() as somebody:
        somebody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for _ in range(5):
            first = real.run("tutum/hello-world", container_ports=[port])
            number = real.containers(first)[0]["container_ports"][0]["outer_port"]
            # A connection of another test may use that port now.
            with contextlib.suppress(OSError):
                somebody.bind(("127.0.0.1", number + 1))
                break
        somebody.listen()
        second = real.run("tutum/hello-world", container_ports=[port])
        shown = real.containers(second)[0]["container_ports"][0]
        assert shown["outer_port"] not in (number, number + 1)
        assert "Hello world" in page(shown["endpoint_uri"])


def test_a_fixed_port_that_somebody_else_has_is_told(real: Real) -> None:
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", 0))
        somebody.listen()
        number = somebody.getsockname()[1]
        port = {"protocol": "tcp", "inner_port": 80, "outer_port": number, "published": True}
        web = real.create("tutum/hello-world", container_ports=[port])
        assert real.start(web)["state"] == "Not running"
        assert f"port {number} is already in use" in real.why(web)
        (gone,) = real.all_containers(web)
        assert f"port {number} is already in use" in gone["exit_code_msg"]
    assert real.inside(web) == []


# -- links -----------------------------------------------------------------------------------------


def addresses(real: Real, service: dict[str, Any], name: str) -> set[str]:
    """What a host name means inside a container."""
    # A name that is not there is asked for in the world, where nobody may answer.
    lines = real.sh(service, f"timeout 2 nslookup {name} 2>&1").splitlines()
    return {line.split()[-1] for line in lines if line.startswith("Address") and "127.0.0.11" not in line}


def networks(real: Real, service: dict[str, Any]) -> list[dict[str, str]]:
    """The networks of each container, with its address there. The one that links need is called `links`."""
    found = [c.attrs["NetworkSettings"]["Networks"] for c in real.inside(service)]
    return [
        {"links" if name.startswith("tutum-") else name: n["IPAddress"] for name, n in networks.items()}
        for networks in found
    ]


def own_addresses(real: Real, service: dict[str, Any]) -> list[str]:
    """The addresses at which those who link to it find its containers; "" of one that nobody links to."""
    return [found.get("links", "") for found in networks(real, service)]


def test_links_lead_to_all_containers_and_follow_them(real: Real) -> None:
    db = real.run("test/redis", name="db", target_num_containers=2)
    client = real.run(name="client", linked_to_service=[{"to_service": db["resource_uri"], "name": "DB"}])
    identity = real.one(client).id
    first, second = own_addresses(real, db)
    assert addresses(real, client, "DB") == addresses(real, client, "db") == {first, second}
    assert addresses(real, client, "DB-1") == {first}
    assert addresses(real, client, "db-2") == {second}
    assert addresses(real, client, "DB-3") == set()
    found = real.env(client)
    assert found["DB_PORT"] == "tcp://DB-1:6379"
    assert found["DB_2_PORT_6379_TCP_ADDR"] == "DB-2"
    assert real.sh(client, "echo PING | nc $DB_2_PORT_6379_TCP_ADDR $DB_2_PORT_6379_TCP_PORT") == "+PONG\r\n"
    # The target scales: seen by the client as it runs.
    real.scale(db, 3)
    third = own_addresses(real, db)[2]
    assert addresses(real, client, "DB-3") == {third}
    assert addresses(real, client, "DB") == {first, second, third}
    real.scale(db, 1)
    assert addresses(real, client, "DB") == {first}
    assert addresses(real, client, "DB-2") == set()
    # It is deployed anew.
    real.redeploy(db)
    assert addresses(real, client, "DB") == addresses(real, client, "DB-1") == set(own_addresses(real, db))
    assert real.sh(client, "echo PING | nc DB-1 6379") == "+PONG\r\n"
    assert real.one(client).id == identity


def test_each_client_has_link_names_of_its_own(real: Real) -> None:
    one, two = real.run("test/redis", name="one"), real.run("test/redis", name="two")

    def client(target: dict[str, Any]) -> dict[str, Any]:
        return real.run(linked_to_service=[{"to_service": target["resource_uri"], "name": "cache"}])

    assert addresses(real, client(one), "cache") == set(own_addresses(real, one))
    assert addresses(real, client(two), "cache") == set(own_addresses(real, two))
    stranger = real.run()
    assert addresses(real, stranger, "cache") == set()


def test_changed_links_are_seen_by_containers_that_run(real: Real) -> None:
    db = real.run("test/redis", name="db")
    client = real.run()
    identity = real.one(client).id
    link = {"to_service": db["resource_uri"], "name": "data"}
    real.patch(client, linked_to_service=[link])
    until(lambda: addresses(real, client, "data") == set(own_addresses(real, db)), "the link is there")
    real.patch(client, linked_to_service=[{**link, "name": "store"}])
    until(lambda: addresses(real, client, "store") == set(own_addresses(real, db)), "the new name is there")
    assert addresses(real, client, "data") == set()
    assert real.one(client).id == identity


def test_links_of_a_service_in_the_hosts_network(real: Real) -> None:
    db = real.run("test/redis", name="db", target_num_containers=2)
    link = {"to_service": db["resource_uri"], "name": "DB"}
    client = real.run(network="host", linked_to_service=[link])
    for host in ("DB", "db-2", "$DB_1_PORT_6379_TCP_ADDR"):
        assert real.sh(client, f"echo PING | timeout 5 nc {host} 6379") == "+PONG\r\n"


def test_two_services_link_to_each_other(real: Real) -> None:
    one, two = real.run(name="one"), real.run(name="two")
    real.patch(one, linked_to_service=[{"to_service": two["resource_uri"], "name": "two"}])
    real.patch(two, linked_to_service=[{"to_service": one["resource_uri"], "name": "one"}])
    until(lambda: addresses(real, one, "two") == set(own_addresses(real, two)), "one sees two")
    until(lambda: addresses(real, two, "one") == set(own_addresses(real, one)), "two sees one")


# -- volumes ---------------------------------------------------------------------------------------


def test_a_volume_outlives_a_redeploy_unless_told_otherwise(real: Real) -> None:
    service = real.run(bindings=[{"container_path": "/keep"}])
    real.sh(service, "echo precious >/keep/it; echo gone >/tmp/it")
    identity = real.one(service).id
    service = real.redeploy(service)
    assert real.one(service).id != identity
    assert real.sh(service, "cat /keep/it; ls /tmp") == "precious\n"
    real.redeploy(service, "?reuse_volumes=false")
    assert real.sh(service, "ls /keep") == ""
    until(lambda: len(real.left()) == 2, "one container, one volume")


def test_scaled_down_containers_take_their_volumes_with_them(real: Real) -> None:
    service = real.run(bindings=[{"container_path": "/keep"}], target_num_containers=2)
    assert len(real.engines[0].volumes.list(filters={"label": "io.tutum.server"})) == 2
    real.scale(service, 1)
    until(lambda: len(real.left()) == 2, "one container, one volume")


def test_host_paths_and_read_only_mounts(real: Real, folder: Path) -> None:
    (folder / "given").mkdir()
    (folder / "given" / "file").write_text("from the host\n")
    bindings = [
        {"host_path": str(folder / "given"), "container_path": "/given", "rewritable": False},
        {"host_path": str(folder / "made"), "container_path": "/made"},
        {"container_path": "/fixed", "rewritable": False},
    ]
    service = real.run(bindings=bindings)
    assert real.sh(service, "cat /given/file; echo x >/made/new") == "from the host\n"
    assert (folder / "made" / "new").read_text() == "x\n"
    assert "Read-only file system" in real.sh(service, "echo x >/given/file")
    assert "Read-only file system" in real.sh(service, "echo x >/fixed/file")


def test_volumes_from_another_service(real: Real, folder: Path) -> None:
    source = real.run(
        bindings=[
            {"container_path": "/data"},
            {"host_path": str(folder / "shared"), "container_path": "/shared"},
        ]
    )
    real.sh(source, "echo here >/data/it; echo there >/shared/it")
    other = real.run(bindings=[{"volumes_from": source["resource_uri"], "rewritable": False}])
    assert real.sh(other, "cat /data/it /shared/it") == "here\nthere\n"
    assert "Read-only file system" in real.sh(other, "echo x >/data/it")
    assert real.call("DELETE", f"{V1}/service/{source['uuid']}/").status_code == 409


# -- limits, namespaces, privileges ----------------------------------------------------------------


def test_memory_and_cpu_shares(real: Real) -> None:
    service = real.run(memory=64, cpu_shares=512)
    host = real.one(service).attrs["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 64 << 20
    assert host["CpuShares"] == 512
    answer = real.call("POST", f"{V1}/service/", {"image": "test/busybox", "memory": 4})
    assert answer.status_code == 400
    assert "memory: must be 6 or more" in answer.json()["error"]


def test_out_of_memory_is_told(real: Real) -> None:
    service = real.create(memory=8, run_command="sh -c 'x=1234567890123456; while :; do x=$x$x; done'")
    settled = real.start(service)
    assert settled["state"] in ("Stopped", "Running")
    real.wait(service, "Stopped")
    (container,) = real.containers(service)
    assert container["exit_code_msg"] == f"Exit code {container['exit_code']} (out of memory)"
    assert container["exit_code"] == 137


def test_host_network_and_pid(real: Real) -> None:
    service = real.run(network="host", pid="host")
    assert real.one(service).attrs["HostConfig"]["NetworkMode"] == "host"
    assert real.sh(service, "readlink /proc/self/ns/net") == f"{Path('/proc/self/ns/net').readlink()}\n"
    assert "dockerd" in real.sh(service, "ps")
    # Without an init of ours, which would complain that it is not the first process.
    assert real.one(service).logs() == b""


def test_privileged_starts_or_the_kernels_refusal_is_told(real: Real) -> None:
    service = real.create(privileged=True)
    if real.start(service)["state"] == "Running":
        assert real.one(service).attrs["HostConfig"]["Privileged"] is True
    else:
        # Machines of tests may not hand on all capabilities.
        assert "does not permit a privileged container" in real.why(service)
        assert "operation not permitted" in real.why(service)
        assert real.inside(service) == []


# -- restart, destroy, order -----------------------------------------------------------------------


def test_autorestart(real: Real) -> None:
    fails = real.run(run_command="sh -c 'sleep 0.3; exit 3'", autorestart="ON_FAILURE")
    ends = real.run(run_command="sleep 0.3", autorestart="ALWAYS")
    until(lambda: real.one(fails).attrs["RestartCount"] >= 3, "it is restarted after failures")
    until(lambda: real.one(ends).attrs["RestartCount"] >= 3, "it is restarted after successes")
    for service in (fails, ends):
        real.wait(service, "Partly running")
    for service in (fails, ends):
        real.act(service, "stop")
    for service in (fails, ends):
        real.wait(service, "Stopped")
        assert real.one(service).status == "exited"
    success = real.create(run_command="true", autorestart="ON_FAILURE")
    real.act(success, "start")
    real.wait(success, "Stopped")
    (container,) = real.containers(success)
    assert (container["exit_code"], container["exit_code_msg"]) == (0, "Exit code 0 (Success)")


def test_autodestroy(real: Real) -> None:
    job = real.create(run_command="sh -c 'sleep 0.5; exit 0'", autodestroy="ON_SUCCESS")
    real.act(job, "start")
    seen: set[tuple[str, int]] = set()

    def is_done() -> bool:
        service = real.get(job["uuid"])
        seen.add((service["state"], service["current_num_containers"]))
        return bool(service["state"] == "Not running")

    until(is_done, "the job is done")
    assert seen <= {("Starting", 0), ("Starting", 1), ("Running", 1), ("Not running", 0)}
    until(lambda: real.inside(job) == [], "its container is gone")
    fails = real.create(run_command="sh -c 'sleep 0.5; exit 7'", autodestroy="ON_SUCCESS")
    real.act(fails, "start")
    real.wait(fails, "Stopped")
    assert real.containers(fails)[0]["exit_code"] == 7
    always = real.create(run_command="sh -c 'sleep 0.5; exit 7'", autodestroy="ALWAYS")
    real.act(always, "start")
    until(lambda: real.containers(always) == [] and real.inside(always) == [], "it is gone")


def test_sequential_deployment(real: Real) -> None:
    service = real.run(name="node", sequential_deployment=True, target_num_containers=3)
    started = [c.attrs["State"]["StartedAt"] for c in real.inside(service)]
    assert started == sorted(started)
    created = [c.attrs["Created"] for c in real.inside(service)]
    assert created[1] > started[0]
    assert created[2] > started[1]
    assert "NODE_1_NAME" not in real.env(service, 1)
    assert real.env(service, 3)["NODE_2_NAME"].endswith("/node-2")
    assert addresses_of_earlier(real, service) == own_addresses(real, service)[:2]


def addresses_of_earlier(real: Real, service: dict[str, Any]) -> list[str]:
    third = {**service}
    lines = [real.sh(third, f"nslookup node-{n}", 3).splitlines() for n in (1, 2)]
    return [
        next(x.split()[-1] for x in found if x.startswith("Address") and "127.0" not in x) for found in lines
    ]


# -- roles -----------------------------------------------------------------------------------------


def test_the_role_global_reaches_the_api_from_inside(real: Real) -> None:
    service = real.run(name="caller", roles=["global"])
    command = 'wget -qO- --header "Authorization: $TUTUM_AUTH" $TUTUM_SERVICE_API_URL'
    assert f'"uuid": "{service["uuid"]}"' in real.sh(service, command)
    token = real.env(service)["TUTUM_AUTH"]
    assert token.startswith("ApiKey bob:")
    assert real.server.apikey not in token
    assert "TUTUM_AUTH" not in real.env(real.run())

    def status() -> int:
        headers = {"Authorization": token}
        return requests.get(f"{real.server.url}{V1}/service/", headers=headers, timeout=10).status_code

    assert status() == 200
    real.terminate(service)
    assert status() == 401


# -- stop, start, redeploy, failures ---------------------------------------------------------------


def test_stop_and_start_keep_the_container(real: Real) -> None:
    service = real.run(run_command="sh -c 'trap \"exit 5\" TERM; while :; do sleep 0.05; done'")
    identity = real.one(service).id
    real.sh(service, "echo x >/kept")
    real.act(service, "stop")
    real.wait(service, "Stopped")
    (container,) = real.containers(service)
    assert (container["state"], container["exit_code"]) == ("Stopped", 5)
    assert real.one(service).status == "exited"
    assert real.start(service)["state"] == "Running"
    assert real.one(service).id == identity
    assert real.sh(service, "cat /kept") == "x\n"
    assert real.containers(service)[0]["exit_code"] is None


def test_a_container_that_does_not_stop_is_killed(real: Real) -> None:
    service = real.run(run_command="sh -c 'trap : TERM; while :; do sleep 0.05; done'")
    real.act(service, "stop")
    real.wait(service, "Stopped")
    assert real.containers(service)[0]["exit_code"] == 137


def test_a_redeploy_takes_what_has_changed(real: Real) -> None:
    service = real.run(target_num_containers=2)
    before = {c.id for c in real.inside(service)}
    patched = real.patch(service, container_envvars=[{"key": "NEW", "value": "yes"}])
    assert patched["synchronized"] is False
    service = real.redeploy(service)
    assert service["synchronized"] is True
    assert not before & {c.id for c in real.inside(service)}
    assert [real.env(service, n)["NEW"] for n in (1, 2)] == ["yes", "yes"]


def test_a_missing_image_is_told(real: Real) -> None:
    service = real.create("test/not-there:1")
    assert real.start(service)["state"] == "Not running"
    assert "No such image: test/not-there:1" in real.why(service)
    (gone,) = real.all_containers(service)
    assert "No such image: test/not-there:1" in gone["exit_code_msg"]


def test_a_redeploy_to_a_missing_image_leaves_what_runs(real: Real) -> None:
    service = real.run()
    identity = real.one(service).id
    real.patch(service, image="test/not-there:2")
    real.redeploy(service)
    assert "No such image: test/not-there:2" in real.why(service)
    assert real.one(service).id == identity
    assert real.one(service).status == "running"


def test_a_command_that_cannot_be_run_is_told(real: Real) -> None:
    service = real.create(run_command="/no/such/program --now")
    real.act(service, "start")
    real.wait(service, "Stopped")
    (container,) = real.containers(service)
    assert container["exit_code"] == 127
    assert (
        container["exit_code_msg"]
        == "Exit code 127 (exec /no/such/program failed: No such file or directory)"
    )


def test_what_others_do_to_containers_is_seen(real: Real) -> None:
    service = real.run(target_num_containers=2)
    real.one(service, 1).kill()
    assert real.wait(service, "Partly running")["running_num_containers"] == 1
    assert real.containers(service)[0]["exit_code"] == 137
    real.one(service, 1).start()
    real.wait(service, "Running")
    real.one(service, 2).remove(force=True)
    until(lambda: len(real.containers(service)) == 1, "one container is there")
    assert real.get(service["uuid"])["state"] == "Partly running"
    real.act(service, "start")
    real.wait(service, "Running")
    assert len(real.inside(service)) == 2


# -- images that change ----------------------------------------------------------------------------


def test_autoredeploy_follows_the_image_behind_the_tag(real: Real, engine: DockerEngine) -> None:
    def load(version: str) -> str:
        image = replace(images.busybox(), name="test/busybox:moving", config={"Env": [f"VERSION={version}"]})
        return images.load(engine, image)[0]

    load("1")
    follows = real.run("test/busybox:moving", autoredeploy=True)
    stays = real.run("test/busybox:moving")
    assert real.env(follows)["VERSION"] == "1"
    new = load("2")

    def follows_now() -> bool:
        found = [c for c in real.inside(follows) if c.status == "running"]
        return [c.attrs["Image"] for c in found] == [new]

    until(follows_now, "the service runs the new image")
    real.wait(follows, "Running")
    assert real.env(follows)["VERSION"] == "2"
    assert real.env(stays)["VERSION"] == "1"


# -- the operator's policy -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "path", "flag"),
    [
        ({"privileged": True}, "privileged", "privileged"),
        ({"pid": "host"}, "pid", "host-pid"),
        ({"network": "host"}, "network", "host-network"),
        (
            {"bindings": [{"container_path": "/a"}, {"host_path": "/etc", "container_path": "/b"}]},
            "bindings[1].host_path",
            "host-path=/etc",
        ),
    ],
)
def test_nothing_is_allowed_by_default(
    engine: DockerEngine, body: dict[str, Any], path: str, flag: str
) -> None:
    with Server(backend="docker", node=[engine.url]) as server, Real(server, engine.node_urls) as real:
        answer = real.call("POST", f"{V1}/service/", {"image": "test/busybox", **body})
        assert answer.status_code == 400
        name = flag.partition("=")[0]
        wanted = f"{path}: not allowed by the operator's policy {name} (serve --allow {flag})"
        assert wanted in answer.json()["error"]


def test_host_paths_are_allowed_below_a_folder_only(real: Real, folder: Path) -> None:
    for path in (f"{folder}/../other", "/", f"{folder}x"):
        body = {"image": "test/busybox", "bindings": [{"host_path": path, "container_path": "/x"}]}
        answer = real.call("POST", f"{V1}/service/", body)
        assert answer.status_code == 400, path
        assert "bindings[0].host_path: not allowed" in answer.json()["error"]


def test_what_is_not_allowed_any_more_is_not_started(engine: DockerEngine, tmp_path: Path) -> None:
    options: dict[str, Any] = {"backend": "docker", "node": [engine.url], "data": tmp_path / "data"}
    bindings = [{"container_path": "/a"}, {"host_path": str(tmp_path), "container_path": "/b"}]
    refusal = "bindings[1].host_path: not allowed by the operator's policy host-path"
    with Server(allow=f"host-path={tmp_path}", **options) as server, Real(server, engine.node_urls) as real:
        runs, stopped = real.run(bindings=bindings), real.run(bindings=bindings)
        new = real.create(bindings=bindings)
        real.act(stopped, "stop")
        real.wait(stopped, "Stopped")
    with Server(**options) as server, Real(server, engine.node_urls) as real:
        assert real.start(stopped)["state"] == "Stopped"
        assert real.start(new)["state"] == "Not running"
        identity = real.one(runs).id
        assert real.redeploy(runs)["state"] == "Running"
        assert real.one(runs).id == identity
        assert [refusal in real.why(s) for s in (stopped, new, runs)] == [True] * 3
        real.terminate_all()
