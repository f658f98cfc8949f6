"""Waiting, against a stub that is told what the service looks like and which events to send."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from pulumi_tutum import lifecycle
from pulumi_tutum.client import Client, Detail
from pulumi_tutum.errors import AuthError, Cancelled, Gone, UnexpectedState, WaitError, WaitTimeout
from pulumi_tutum.waiting import Waiter, explain, until
from tests.support.stub import UUID, Call, HttpStub, Reply, page, service, websocket_stub
from tests.support.tools import until as eventually

URI = f"/api/v1/service/{UUID}/"
FAR = 60.0


class Plane:
    """A control plane of one service. `show` sets what GET answers, `tell` sends an event to every
    listener."""

    def __init__(self) -> None:
        self.shown: Any = service("Starting")
        self.answers: dict[str, Any] = {}
        self.listeners: list[queue.Queue[str | None]] = []
        self.refuse_streams = False
        self.http = HttpStub(self._respond)

    def _respond(self, call: Call) -> Any:
        for path, answer in self.answers.items():
            if call.path == path:
                return answer(call) if callable(answer) else answer
        shown = self.shown(call) if callable(self.shown) else self.shown
        return shown

    def serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        if "/logs/" in connection.request.path:
            answer = self.answers.get(connection.request.path.partition("?")[0], [])
            for line in answer:
                connection.send(json.dumps({"type": "log", "log": line + "\n"}))
            return
        inbox: queue.Queue[str | None] = queue.Queue()
        self.listeners.append(inbox)
        try:
            while (message := inbox.get()) is not None:
                connection.send(message)
        except ConnectionClosed:
            pass
        finally:
            self.listeners.remove(inbox)

    def refuse(self, connection: ServerConnection, request: Any) -> Any:
        return connection.respond(404, "no streams here") if self.refuse_streams else None

    def tell(self, **event: Any) -> None:
        message = {"type": "service", "action": "update", "parents": [], "resource_uri": URI, **event}
        for inbox in list(self.listeners):
            inbox.put(json.dumps(message))

    def drop(self) -> None:
        for inbox in list(self.listeners):
            inbox.put(None)

    def reads(self) -> int:
        return sum(call.path == URI for call in self.http.calls)


@pytest.fixture
def plane() -> Iterator[Plane]:
    made = Plane()
    with made.http:
        yield made
        made.drop()


@pytest.fixture
def client(plane: Plane) -> Iterator[Client]:
    with (
        websocket_stub(plane.serve, plane.refuse) as url,
        Client("bob", "k3y-0123456789", rest_host=plane.http.url, stream_host=url) as opened,
    ):
        yield opened
        plane.drop()


@pytest.fixture
def waiter(client: Client) -> Iterator[Waiter]:
    with Waiter(client) as made:
        yield made


def running(now: Detail) -> bool | None:
    """The usual verdict: Running is wanted."""
    if now["state"] == lifecycle.RUNNING:
        return True
    return False if now["state"] in lifecycle.STABLE else None


def terminated(now: Detail) -> bool | None:
    return True if now["state"] == lifecycle.TERMINATED else None


class Background:
    """A wait in a thread of its own."""

    def __init__(
        self, waiter: Waiter, verdict: Callable[[Detail], bool | None] = running, **options: Any
    ) -> None:
        self.progress: list[str] = []
        self.result: Any = None
        options = {"deadline": time.monotonic() + FAR, "progress": self.progress.append, **options}

        def work() -> None:
            try:
                self.result = waiter.wait(UUID, verdict=verdict, **options)
            except WaitError as error:
                self.result = error

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()

    def end(self) -> Any:
        self.thread.join(FAR)
        assert not self.thread.is_alive(), "the wait did not end"
        return self.result


def test_what_is_there_already_needs_one_read(plane: Plane, waiter: Waiter) -> None:
    plane.shown = service("Running")
    assert waiter.wait(UUID, verdict=running, deadline=time.monotonic() + FAR)["state"] == "Running"
    assert plane.reads() == 1


def test_what_the_last_answer_showed_needs_none(plane: Plane, waiter: Waiter) -> None:
    seen = service("Running")
    assert waiter.wait(UUID, verdict=running, deadline=time.monotonic() + FAR, service=seen) == seen
    assert plane.reads() == 0


def test_an_event_ends_the_wait_with_one_more_read(plane: Plane, waiter: Waiter) -> None:
    wait = Background(waiter, service=service("Starting"))
    eventually(
        lambda: plane.listeners and plane.reads() == 1, "the stream is open and the service was read once"
    )
    plane.tell(state="Starting")
    plane.shown = service("Running")
    plane.tell(state="Running")
    assert wait.end()["state"] == "Running"
    assert plane.reads() == 2


@pytest.mark.parametrize(
    "event", [{"state": "Running"}, {"type": "action", "parents": [URI], "state": "Failed"}]
)
def test_a_read_that_does_not_show_what_an_event_told_is_made_again(
    plane: Plane, waiter: Waiter, event: dict[str, Any]
) -> None:
    """Much sooner than the poll that saves us from lost events."""
    wait = Background(waiter, service=service("Starting"), deadline=time.monotonic() + 6)
    eventually(lambda: plane.listeners and plane.reads() == 1, "the service was read once")
    stale = [service("Starting"), service("Running")]
    plane.shown = lambda call: stale.pop(0) if len(stale) > 1 else stale[0]
    plane.tell(**event)
    assert wait.end()["state"] == "Running"
    assert plane.reads() == 3


def test_and_is_made_again_only_once(plane: Plane, waiter: Waiter) -> None:
    wait = Background(waiter, service=service("Starting"), deadline=time.monotonic() + 3)
    eventually(lambda: plane.listeners and plane.reads() == 1, "the service was read once")
    plane.tell(state="Running")
    assert isinstance(wait.end(), WaitTimeout)
    assert plane.reads() == 3


def test_events_of_others_and_nonsense_cause_no_read(plane: Plane, waiter: Waiter) -> None:
    waiter.listen(deadline=time.monotonic() + FAR)
    wait = Background(waiter)
    eventually(lambda: plane.listeners and wait.progress, "the stream is open, the service was read")
    plane.shown = service("Running")
    other = URI.replace("8d5f", "0000")
    plane.tell(resource_uri=other, state="Running")
    plane.tell(resource_uri=None, state="Running")
    plane.tell(type="container", resource_uri=7, parents=URI)
    plane.tell(type="container", resource_uri="/api/v1/container/x/", parents=[URI, 3], state="Running")
    plane.tell(type="stack", state="Running")
    eventually(
        lambda: wait.progress == ["0/1 containers running", "1/1 containers running"], "all events were read"
    )
    assert plane.reads() == 1
    plane.tell(state="Running")
    assert wait.end()["state"] == "Running"


def test_many_waits_share_one_connection(plane: Plane, waiter: Waiter) -> None:
    waits = [Background(waiter) for _ in range(30)]
    eventually(lambda: plane.listeners and plane.reads() >= 30, "all have read once")
    assert len(plane.listeners) == 1
    plane.shown = service("Running")
    plane.tell(state="Running")
    assert all(wait.end()["state"] == "Running" for wait in waits)
    assert len(plane.listeners) == 1


def test_a_new_connection_reads_everything_once(plane: Plane, waiter: Waiter) -> None:
    wait = Background(waiter)
    eventually(lambda: plane.listeners, "the stream is open")
    plane.shown = service("Running")
    plane.drop()
    # No event is ever sent: what happened while nobody listened must be read.
    assert wait.end()["state"] == "Running"


@pytest.mark.parametrize("listen", [True, False])
def test_without_a_stream_it_polls(plane: Plane, client: Client, listen: bool) -> None:
    plane.refuse_streams = True
    with Waiter(client, listen=listen) as waiter:
        wait = Background(waiter)
        eventually(lambda: plane.reads() >= 2, "two polls")
        plane.shown = service("Running")
        assert wait.end()["state"] == "Running"
    assert plane.reads() <= 6


def test_progress_is_said_when_it_changes(plane: Plane, waiter: Waiter) -> None:
    plane.shown = service("Starting", target_num_containers=3)
    wait = Background(waiter)
    eventually(lambda: plane.listeners and plane.reads() >= 1, "the stream is open")

    def shown(number: int) -> bool:
        # The read that follows the opening of the stream forgets what was told before: tell it again.
        for container in range(1, number + 1):
            path = f"/api/v1/container/{container}/"
            plane.tell(type="container", resource_uri=path, parents=[URI], state="Running")
        return wait.progress[-1:] == [f"{number}/3 containers running"]

    eventually(lambda: shown(1), "progress")
    eventually(lambda: shown(2), "progress")
    plane.shown = service("Redeploying", target_num_containers=3)
    plane.tell(state=None)
    eventually(lambda: wait.progress[-1:] == ["waiting for redeploy"], "progress")
    plane.shown = service("Running", target_num_containers=3)
    plane.tell(state="Running")
    wait.end()
    assert list(dict.fromkeys(wait.progress)) == [
        "0/3 containers running",
        "1/3 containers running",
        "2/3 containers running",
        "waiting for redeploy",
    ]


def test_states_that_regress_skip_or_are_unknown_confuse_nobody(plane: Plane, waiter: Waiter) -> None:
    wait = Background(waiter)
    for state in ("Scaling", "Starting", "Not running", "Hibernating", "Starting"):
        plane.shown = service(state)
        before = plane.reads()
        eventually(lambda: plane.listeners, "the stream is open")
        plane.tell(state=None)
        eventually(lambda b=before: plane.reads() > b, "a read")  # type: ignore[misc]
    plane.shown = service("Running")
    plane.tell(state="Running")
    assert wait.end()["state"] == "Running"


def test_a_bad_end_is_looked_at_twice(plane: Plane, waiter: Waiter) -> None:
    stale = [service("Not running"), service("Starting"), service("Running")]
    plane.shown = lambda call: stale.pop(0) if len(stale) > 1 else stale[0]
    assert waiter.wait(UUID, verdict=running, deadline=time.monotonic() + FAR)["state"] == "Running"


def test_a_bad_end_names_the_service_and_what_was_wanted(plane: Plane, waiter: Waiter) -> None:
    plane.shown = service("Stopped", stopped_num_containers=1)
    plane.answers = {"/api/v1/container/": page([]), "/api/v1/action/": page([])}
    with pytest.raises(UnexpectedState) as caught:
        waiter.wait(UUID, verdict=running, deadline=time.monotonic() + FAR, wanted="running")
    assert str(caught.value) == (
        f"service 'web' ({UUID}) is Stopped (0/1 containers running), wanted was: running"
    )
    assert caught.value.service is not None
    assert caught.value.service["state"] == "Stopped"


@pytest.mark.parametrize("state", ["Terminating", "Terminated"])
def test_terminated_by_somebody_else(plane: Plane, waiter: Waiter, state: str) -> None:
    plane.shown = service(state)
    with pytest.raises(Gone, match="terminated by somebody else") as caught:
        waiter.wait(UUID, verdict=running, deadline=time.monotonic() + FAR)
    assert caught.value.service is not None


def test_forgotten_by_the_server_is_gone_too(plane: Plane, waiter: Waiter) -> None:
    plane.shown = Reply({"error": "no such service"}, 404)
    with pytest.raises(Gone):
        waiter.wait(UUID, verdict=running, deadline=time.monotonic() + FAR)


def test_terminated_can_be_what_is_wanted(plane: Plane, waiter: Waiter) -> None:
    wait = Background(waiter, terminated, service=service("Terminating"))
    eventually(lambda: plane.listeners, "the stream is open")
    plane.shown = service("Terminated")
    plane.tell(state="Terminated", action="delete")
    assert wait.end()["state"] == "Terminated"
    plane.shown = Reply({"error": "no such service"}, 404)
    ended = waiter.wait(UUID, verdict=terminated, deadline=time.monotonic() + FAR)
    assert (ended["state"], ended["uuid"]) == ("Terminated", UUID)


def test_the_deadline(plane: Plane, waiter: Waiter) -> None:
    plane.answers = {"/api/v1/container/": page([]), "/api/v1/action/": page([])}
    with pytest.raises(WaitTimeout, match=r"is still Starting \(0/1 containers running\) after 0 seconds"):
        waiter.wait(UUID, verdict=running, deadline=time.monotonic() + 0.2)


def test_an_unreachable_control_plane_is_named_when_the_deadline_passes(plane: Plane, waiter: Waiter) -> None:
    plane.shown = Reply({"error": "down for maintenance"}, 503)
    with pytest.raises(WaitTimeout, match=r"last trouble: .*down for maintenance"):
        waiter.wait(UUID, verdict=running, deadline=time.monotonic() + 2)


def test_trouble_that_passes_is_no_end(plane: Plane, waiter: Waiter) -> None:
    answers: list[Any] = [Reply(b"", 503), Reply(b"<html>"), Reply({"uuid": 3}), service("Running")]
    plane.shown = lambda call: answers.pop(0) if len(answers) > 1 else answers[0]
    assert waiter.wait(UUID, verdict=running, deadline=time.monotonic() + FAR)["state"] == "Running"


def test_revoked_credentials_end_the_wait(plane: Plane, waiter: Waiter) -> None:
    plane.shown = Reply({"error": "revoked"}, 401)
    with pytest.raises(AuthError, match="revoked"):
        waiter.wait(UUID, verdict=running, deadline=time.monotonic() + FAR)


def test_cancelling(plane: Plane, waiter: Waiter) -> None:
    stop = threading.Event()
    wait = Background(waiter, cancelled=stop)
    eventually(lambda: wait.progress, "the service was read")
    stop.set()
    ended = wait.end()
    assert isinstance(ended, Cancelled)
    assert str(ended) == (
        f"interrupted while service 'web' ({UUID}) was Starting (0/1 containers running); "
        "it goes on by itself"
    )


def test_closing_leaves_waits_polling(plane: Plane, waiter: Waiter) -> None:
    wait = Background(waiter)
    eventually(lambda: plane.listeners, "the stream is open")
    waiter.close()
    plane.shown = service("Running")
    assert wait.end()["state"] == "Running"


def test_until_for_scripts(plane: Plane, client: Client) -> None:
    plane.shown = service("Running")
    assert until(client, UUID, "Running")["state"] == "Running"
    assert until(client, UUID)["state"] == "Running"
    plane.answers = {"/api/v1/container/": page([]), "/api/v1/action/": page([])}
    with pytest.raises(UnexpectedState, match="wanted was: Stopped"):
        until(client, UUID, "Stopped", timeout_seconds=FAR)


# -- why -------------------------------------------------------------------------------------------

CONTAINER = "22222222-3333-4444-8555-666666666666"
LINKED = "33333333-4444-4555-8666-777777777777"


def failing(plane: Plane, lines: Sequence[str], **attributes: Any) -> dict[str, Any]:
    """Makes the plane show a container that has failed; returns the service."""
    container = {
        "uuid": CONTAINER,
        "resource_uri": f"/api/v1/container/{CONTAINER}/",
        "name": "web-1",
        "service": URI,
        "state": "Stopped",
        "exit_code": 3,
        "exit_code_msg": "Out of memory",
        "container_envvars": [
            {"key": "DB_ENV_PASS", "value": "linkedsecret"},
            {"key": "PASS", "value": "hunter22"},
        ],
        **attributes,
    }
    linked = service(
        uuid=LINKED, name="db", link_variables={"DB_ENV_PASS": "linkedsecret", "DB_PORT": "tcp://x:33"}
    )
    action = {
        "resource_uri": "/api/v1/action/1/",
        "object": URI,
        "state": "Failed",
        "action": "Service Start",
    }
    plane.answers = {
        "/api/v1/container/": page([container]),
        f"/api/v1/container/{CONTAINER}/": container,
        f"/v1/container/{CONTAINER}/logs/": lines,
        f"/api/v1/service/{LINKED}/": linked,
        "/api/v1/action/": page([{**action, "error": "1 of 1 containers failed: hunter22"}]),
    }
    link = {"from_service": URI, "to_service": f"/api/v1/service/{LINKED}/", "name": "db"}
    own = [{"key": "PASS", "value": "hunter22"}, {"key": "N", "value": "3"}]
    return service("Stopped", container_envvars=own, linked_to_service=[link])


def test_a_failure_says_what_the_containers_said(plane: Plane, client: Client) -> None:
    found = failing(plane, ["", "starting", "cannot log in with hunter22 at db with linkedsecret", "exit 3"])
    assert explain(client, found) == [
        "Service Start failed: 1 of 1 containers failed: [secret]",
        "container web-1: Stopped, exit code 3 (Out of memory)",
        "  web-1 | starting",
        "  web-1 | cannot log in with [secret] at db with [secret]",
        "  web-1 | exit 3",
    ]


@pytest.mark.parametrize("state", ["Terminating", "Terminated"])
def test_a_container_that_failed_is_told_of_also_when_it_is_removed(
    plane: Plane, client: Client, state: str
) -> None:
    found = failing(plane, ["exit 3"], state=state)
    assert explain(client, found)[-2:] == [
        f"container web-1: {state}, exit code 3 (Out of memory)",
        "  web-1 | exit 3",
    ]


ROLE = {"TUTUM_AUTH": "ApiKey bob:r0le-t0ken", "DOCKERCLOUD_AUTH": "Basic Ym9iOnIwbGUtdDBrZW4="}


def test_the_tokens_of_roles_are_masked(plane: Plane, client: Client) -> None:
    lines = [*ROLE.values(), "token r0le-t0ken"]
    found = failing(plane, lines)
    found["calculated_envvars"] = [{"key": k, "origin": "role", "value": v} for k, v in ROLE.items()]
    shown = ["ApiKey bob:[secret]", "Basic [secret]", "token [secret]"]
    assert explain(client, found)[-3:] == [f"  web-1 | {line}" for line in shown]


def test_the_tokens_of_roles_are_masked_also_when_only_the_container_tells_them(
    plane: Plane, client: Client
) -> None:
    environment = [{"key": k, "value": v} for k, v in ROLE.items()]
    found = failing(plane, ["token r0le-t0ken"], container_envvars=environment)
    plane.answers[f"/api/v1/service/{LINKED}/"] = Reply({"error": "gone"}, 404)
    assert explain(client, found)[-1] == "  web-1 | token [secret]"


def test_when_a_link_cannot_be_read_all_values_are_masked(plane: Plane, client: Client) -> None:
    found = failing(plane, ["with linkedsecret and hunter22"])
    plane.answers[f"/api/v1/service/{LINKED}/"] = Reply({"error": "gone"}, 404)
    assert explain(client, found)[-1] == "  web-1 | with [secret] and [secret]"


def test_without_knowing_what_to_mask_no_log_is_shown(plane: Plane, client: Client) -> None:
    found = failing(plane, ["with linkedsecret"], container_envvars=None)
    plane.answers[f"/api/v1/service/{LINKED}/"] = Reply({"error": "gone"}, 404)
    assert explain(client, found)[-1] == "container web-1: Stopped, exit code 3 (Out of memory)"


def test_logs_come_over_rest_where_the_stream_is_not_there(plane: Plane, client: Client) -> None:
    plane.refuse_streams = True
    found = failing(plane, [])
    plane.answers[f"/api/v1/container/{CONTAINER}/logs/"] = {"logs": "one\ntwo\n"}
    assert explain(client, found)[-2:] == ["  web-1 | one", "  web-1 | two"]


def test_the_action_asked_for_is_the_one_whose_error_is_shown(plane: Plane, client: Client) -> None:
    found = failing(plane, [])
    mine = "/api/v1/action/44444444-5555-4666-8777-888888888888/"
    plane.answers[mine] = {"state": "Failed", "action": "Service Redeploy", "error": "no such image"}
    assert explain(client, found, action=mine)[0] == "Service Redeploy failed: no such image"


def test_only_some_of_many_containers_are_shown(plane: Plane, client: Client) -> None:
    found = failing(plane, ["x"])
    template = plane.answers["/api/v1/container/"]["objects"][0]
    many = [
        {**template, "name": f"web-{n}", "resource_uri": f"/api/v1/container/{CONTAINER[:-2]}{n:02d}/"}
        for n in range(9)
    ]
    plane.answers["/api/v1/container/"] = page(many)
    assert explain(client, found)[-1] == "and 4 more containers that do not run"


def test_an_explanation_takes_no_longer_than_it_may(plane: Plane, client: Client) -> None:
    over = threading.Event()

    def hang(call: Call) -> Any:
        over.wait(FAR)
        return page([])

    found = failing(plane, ["x"])
    plane.answers["/api/v1/container/"] = plane.answers["/api/v1/action/"] = hang
    # Would take a minute otherwise, and the test's own limit with it.
    assert explain(client, found, seconds=0.3) == []
    over.set()


# -- which containers ------------------------------------------------------------------------------


def listed(number: int, **attributes: Any) -> dict[str, Any]:
    """A container in list shape; each number is one more."""
    uuid = f"{CONTAINER[:-2]}{number:02d}"
    return {
        "uuid": uuid,
        "resource_uri": f"/api/v1/container/{uuid}/",
        "name": f"web-{number}",
        "service": URI,
        "state": "Running",
        "exit_code": None,
        "exit_code_msg": None,
        **attributes,
    }


NOON, LATER = "Mon, 1 Jan 2024 12:00:00 +0000", "Mon, 1 Jan 2024 12:00:09 +0000"
FIRST, SECOND = "/api/v1/action/11111111-aaaa/", "/api/v1/action/22222222-bbbb/"


def shown(plane: Plane, client: Client, containers: Sequence[Any], **action: Any) -> list[str]:
    """The first line about each container that a failure mentions, and what it says of the rest."""
    found = failing(plane, [])
    for container in containers:
        plane.answers[container["resource_uri"]] = container
    plane.answers["/api/v1/container/"] = page(list(containers))
    plane.answers["/api/v1/action/"] = page(
        [{"resource_uri": SECOND, "object": URI, "action": "Service Start", "state": "Failed", **action}]
    )
    return explain(client, found)


def test_containers_of_earlier_failures_are_not_mentioned(plane: Plane, client: Client) -> None:
    gone = {"state": "Terminated", "exit_code": 1, "exit_code_msg": "Exit code 1 (General error)"}
    earlier = [listed(n, **gone, destroyed_datetime=NOON, deployed_by=FIRST) for n in range(11)]
    now = listed(20, **gone, destroyed_datetime=LATER, deployed_by=SECOND)
    assert shown(plane, client, [*earlier, now], start_date=NOON) == [
        "container web-20: Terminated, exit code 1 (General error)"
    ]
    # Another server does not tell which action deployed a container; the times tell then.
    for container in [*earlier, now]:
        del container["deployed_by"]
    assert shown(plane, client, [*earlier, now], start_date=LATER) == [
        "container web-20: Terminated, exit code 1 (General error)"
    ]


def test_of_containers_with_one_name_the_last_one_counts(plane: Plane, client: Client) -> None:
    gone = {"state": "Terminated", "exit_code": 1, "name": "web-1"}
    assert shown(plane, client, [listed(1, **gone), listed(2, **gone), listed(3, name="web-1")]) == []


def test_those_that_failed_come_first_then_those_that_are_not_healthy(plane: Plane, client: Client) -> None:
    sick = "GET /health on port 80 answered 503 'maintenance', 3 times in a row since 12:00:05 UTC"
    containers = [
        listed(1, state="Starting"),
        listed(2, healthy=False, health_detail=sick),
        listed(3, healthy=True, health_detail=None),
        listed(4, state="Stopped", exit_code=0, exit_code_msg="Exit code 0 (Success)"),
        listed(5, state="Stopped", exit_code=3, exit_code_msg="Exit code 3 (General error)"),
        listed(6, state="Terminated", exit_code_msg="port is already allocated"),
    ]
    assert shown(plane, client, containers) == [
        "container web-5: Stopped, exit code 3 (General error)",
        "container web-6: Terminated (port is already allocated)",
        f"container web-2: Running, not healthy: {sick}",
        "container web-1: Starting",
        "container web-4: Stopped, exit code 0 (Success)",
        "Containers that are expected to end need job=True (in the API: autodestroy ON_SUCCESS).",
    ]


def test_a_service_without_a_health_check_is_not_said_to_have_one(plane: Plane, client: Client) -> None:
    found = failing(plane, [])
    plane.answers["/api/v1/container/"] = page([listed(1, state="Starting", exit_code=4)])
    plane.answers[listed(1)["resource_uri"]] = listed(1, exit_code=4)
    assert explain(client, found)[-1] == "container web-1: Running, exit code 4"


def test_of_many_containers_that_are_not_up_some_may_run(plane: Plane, client: Client) -> None:
    found = {**failing(plane, []), "state": "Starting", "healthcheck": {"command": "true"}}
    stopped = [listed(n, state="Stopped", exit_code=1) for n in range(6)]
    for rest, said in (
        ([], "and 1 more container that does not run"),
        ([listed(7)], "and 2 more containers that are not up"),
        ([listed(7, healthy=False)], "and 2 more containers that are not up"),
    ):
        containers = [*stopped, *rest]
        plane.answers |= {container["resource_uri"]: container for container in containers}
        plane.answers["/api/v1/container/"] = page(containers)
        assert explain(client, found)[-1] == said


def test_what_the_action_said_is_not_said_again(plane: Plane, client: Client) -> None:
    container = listed(1, state="Terminated", exit_code_msg="No such image: acme/web:2")
    error = "web-1: No such image: acme/web:2"
    assert shown(plane, client, [container], error=error) == [f"Service Start failed: {error}"]


def test_of_several_actions_the_first_that_failed_is_told(plane: Plane, client: Client) -> None:
    found = failing(plane, [])
    plane.answers["/api/v1/container/"] = page([])
    uris = [f"/api/v1/action/{n}4444444-5555-4666-8777-888888888888/" for n in range(3)]
    for uri, name, error in zip(
        uris, ("Start", "Redeploy", "Scale"), (None, "no such image", "2"), strict=True
    ):
        state = "Failed" if error else "Success"
        plane.answers[uri] = {"state": state, "action": f"Service {name}", "error": error}
    assert explain(client, found, action=uris) == ["Service Redeploy failed: no such image"]
