"""Health checks: Running means healthy, and a redeploy stops at the first container that is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.docker_engine import DockerEngine
from tests.support.real import V1, Real
from tests.support.server import Server
from tests.support.tools import until

pytestmark = [pytest.mark.docker]

QUICK = {"interval_seconds": 1, "timeout_seconds": 2, "retries": 2}
#: A web server whose page /ready is there once somebody puts it there.
WEB = {
    "image": "tutum/hello-world",
    "run_command": "sh -c 'mkdir /site; exec httpd -f -p 80 -h /site'",
}


@pytest.fixture(scope="module")
def server(engine: DockerEngine) -> Iterator[Server]:
    with Server(backend="docker", node=[engine.url], stop_seconds=1, start_timeout=60) as server:
        yield server
        assert "unexpected" not in server.log(), server.log()


def state(real: Real, service: dict[str, Any]) -> str:
    return str(real.get(service["uuid"])["state"])


@pytest.mark.parametrize("check", [{"http": "/ready"}, {"command": "test -e /site/ready"}])
def test_running_means_healthy(real: Real, check: dict[str, Any]) -> None:
    service = real.create(**WEB, healthcheck={**QUICK, **check, "start_period_seconds": 60})
    real.act(service, "start")
    until(lambda: [c.status for c in real.inside(service)] == ["running"], "the container runs")
    assert state(real, service) == "Starting"
    real.sh(service, "echo yes >/site/ready")
    real.wait(service, "Running")
    real.sh(service, "rm /site/ready")
    real.wait(service, "Partly running")
    real.sh(service, "echo yes >/site/ready")
    real.wait(service, "Running")


def test_what_never_gets_healthy_is_told(real: Real) -> None:
    service = real.create(**WEB, healthcheck={**QUICK, "http": "/ready"})
    assert real.start(service)["state"] == "Partly running"
    why = real.why(service)
    assert "is not healthy: GET /ready on port 80 answered 404" in why
    assert "times in a row since" in why


def test_the_output_of_a_command_that_fails_is_told(real: Real) -> None:
    command = "echo cannot read $SECRET; exit 3"
    variables = [{"key": "SECRET", "value": "hunter22"}]
    check = {**QUICK, "command": command}
    service = real.create(**WEB, container_envvars=variables, healthcheck=check)
    assert real.start(service)["state"] == "Partly running"
    why = real.why(service)
    assert f"is not healthy: command `{command}` exited with code 3" in why
    assert "and the output 'cannot read [secret]', 2 times in a row since " in why
    (container,) = real.containers(service)
    # As long as it fails, the number of failures is brought up to date.
    until(
        lambda: "2 times" not in real.get(container["uuid"], "container")["health_detail"],
        "another probe has failed",
    )


def test_a_check_without_a_port_fails_the_start_before_anything_is_made(real: Real) -> None:
    service = real.create(healthcheck={**QUICK, "http": "/"})
    assert real.start(service)["state"] == "Not running"
    assert "healthcheck.http has no port to ask: neither the service nor its image" in real.why(service)
    assert real.all_containers(service)[0]["docker_id"] is None
    real.run()  # now its image is known
    answer = real.call("POST", f"{V1}/service/", {"image": "test/busybox", "healthcheck": {"http": "/"}})
    assert answer.status_code == 400
    assert "set healthcheck.port" in answer.json()["error"]


def test_the_checked_port_may_be_named(real: Real) -> None:
    ports = [{"protocol": "tcp", "inner_port": 9999}, {"protocol": "tcp", "inner_port": 80}]
    service = real.create(
        "tutum/hello-world", container_ports=ports, healthcheck={**QUICK, "http": "/", "port": 80}
    )
    assert real.start(service)["state"] == "Running"


def test_a_rolling_redeploy_stops_at_the_first_that_is_not_healthy(real: Real) -> None:
    service = real.run(
        "tutum/hello-world",
        target_num_containers=2,
        sequential_deployment=True,
        healthcheck={**QUICK, "http": "/cgi-bin/index.cgi"},
    )
    before = [c.id for c in real.inside(service)]
    real.patch(service, healthcheck={**QUICK, "http": "/not-there"})
    real.redeploy(service)
    assert "is not healthy" in real.why(service)
    after = [c.id for c in real.inside(service)]
    assert after[0] != before[0]
    assert after[1] == before[1], "the second was not touched"
    assert real.one(service, 2).status == "running"
