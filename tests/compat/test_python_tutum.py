"""The library python-tutum of 2015, unchanged, as its documentation shows it."""

from __future__ import annotations

import json

import pytest

from tests.compat.python27 import TUTUM, Python27, with_packages
from tests.support.server import Server

LIFE = """
import json, time
import tutum

def settle(service, state):
    deadline = time.time() + 60
    while service.state != state and time.time() < deadline:
        time.sleep(0.05)
        service.refresh(force=True)
    assert service.state == state, service.state

service = tutum.Service.create(image="tutum/hello-world", name="my-new-app", target_num_containers=2)
assert service.save()
assert service.state == "Not running"
assert service.tutum_action_uri.startswith("/api/v1/action/")
assert service.start()
settle(service, "Running")
service = tutum.Service.fetch(service.uuid)
service.target_num_containers = 3
service.tags = service.tags + [{"name": "local"}]
assert service.save()
assert service.scale()
settle(service, "Running")
assert service.current_num_containers == 3
assert service.redeploy(reuse_volumes=False)
settle(service, "Running")
assert service.stop()
settle(service, "Stopped")
assert not service.is_dirty
container = tutum.Container.list(service=service.resource_uri, state="Stopped")[0]
assert container.service == service.resource_uri
assert tutum.Container.fetch(container.uuid).start()
settle(service, "Partly running")
assert service.delete()
settle(service, "Terminated")
print(json.dumps({"uuid": service.uuid, "listed": [s.uuid for s in tutum.Service.list(name="my-new-app")]}))
"""

PAGES = """
import tutum
for i in range(30):
    tutum.Service.create(image="tutum/hello-world", name="page-%d" % i).save()
every = tutum.Service.list(state="Not running")
assert len(every) == 30, len(every)
assert len(tutum.Service.list(limit=7)) == 7
assert len(tutum.Action.list()) >= 30
assert tutum.Node.list()[0].state == "Deployed"
assert tutum.Utils.fetch_remote_service("page-3").name == "page-3"
try:
    tutum.Utils.fetch_remote_service("nothing")
except tutum.ObjectNotFound:
    print("done")
"""

TRIGGERS = """
import tutum
service = tutum.Service.create(image="tutum/hello-world", name="triggered")
service.save()
trigger = tutum.Trigger.fetch(service)
trigger.add("name", "SCALEUP")
trigger.save()
(listed,) = trigger.list()
assert listed["operation"] == "SCALEUP", listed
trigger.delete(listed["uuid"])
assert trigger.list() == []
print("done")
"""

EVENTS = """
import sys, threading, os
import tutum

def message(event):
    if event["type"] == "service":
        print(event["resource_uri"])
        sys.stdout.flush()
        os._exit(0)

events = tutum.TutumEvents()
events.on_open(lambda: threading.Thread(
    target=lambda: tutum.Service.create(image="tutum/hello-world", name="heard").save()).start())
events.on_message(message)
events.run_forever()
"""


@pytest.fixture(scope="module")
def python27() -> Python27:
    return with_packages(TUTUM)


def test_life_of_a_service(python27: Python27, server: Server) -> None:
    done = python27.run("-c", LIFE, environ=server.environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["listed"] == [told["uuid"]]


@pytest.mark.parametrize("program", [PAGES, TRIGGERS], ids=["pages", "triggers"])
def test_program(python27: Python27, server: Server, program: str) -> None:
    done = python27.run("-c", program, environ=server.environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


def test_events(python27: Python27, server: Server) -> None:
    done = python27.run("-c", EVENTS, environ=server.environment)
    assert done.stdout.startswith("/api/v1/service/"), done.stderr


def test_wrong_credentials_end_the_stream(python27: Python27, server: Server) -> None:
    """A refused handshake would make it try for ever: the refusal comes inside the stream."""
    code = "import tutum; tutum.TutumEvents().run_forever()"
    done = python27.run("-c", code, environ={**server.environment, "TUTUM_APIKEY": "wrong"})
    assert "TutumAuthError" in done.stderr


def test_paths_of_its_own(python27: Python27, server: Server) -> None:
    """`TUTUM_BASE_URL` and `TUTUM_STREAM_URL` name whole addresses."""
    environ = {
        **server.environment,
        "TUTUM_REST_HOST": "http://nowhere.invalid",
        "TUTUM_BASE_URL": server.url + "/api/v1/",
        "TUTUM_STREAM_URL": server.stream_url + "/v1/",
    }
    done = python27.run("-c", "import tutum; print(len(tutum.Node.list()))", environ=environ)
    assert done.stdout == "3\n", done.stderr
