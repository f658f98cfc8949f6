"""What a swarm says of its tasks and nodes, in the control plane's words: pure functions.

A swarm service of one replica has a row of tasks: each start is one, and so is each restart by its policy.
Those of one start carry the same `ForceUpdate`, the number of the run. States, in their order: new, pending,
assigned, accepted, preparing, ready, starting, running; then complete, failed (it ran; or it could not be
started, which its message tells), rejected (it never could), shutdown (it was told to), orphaned (its node is
gone for good)."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import CREATED, EXITED, RESTARTING, RUNNING, BackendNode
from .engine import plain

#: A constraint that no node meets: what has it is stopped.
STOPPED = "node.labels.io.tutum.stopped==yes"
#: A node's tags are labels that begin with this.
TAG = "io.tutum.tag."

_FINAL = frozenset({"complete", "failed", "rejected", "shutdown", "orphaned", "remove"})
_RAN = frozenset({"complete", "failed", "shutdown", "orphaned"})
_NOT_STARTED = "starting container failed: "
_GIGA = 1_000_000_000

Task = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What the tasks of a container mean.

    Attributes:
        status: as in `Observed`; None: nothing can be said yet.
        task: the one that counts, or the last that did.
        failure: why the present run never came to run; "" as long as it may.
        blocked: why its node does not take it; that may pass.
    """

    status: str | None
    exit_code: int | None = None
    reason: str = ""
    task: Task | None = None
    failure: str = ""
    blocked: str = ""


def verdict(
    tasks: Sequence[Task],
    *,
    run: int,
    stopped: bool,
    restart: str,
    away: Callable[[Task], bool],
    image: str = "",
    memory: int = 0,
) -> Verdict:
    """What a container's tasks (oldest first) mean.

    Args:
        run: how often it has been started; stopped: and whether it has been stopped since.
        restart: its policy, as swarm calls it.
        away: whether a task's node, or the one that it is bound to, does not answer.
        image, memory: its image's name and its limit in MB, for explanations.
    """
    current = [task for task in real(tasks) if run_of(task) == run]
    if not current:
        return Verdict(None if run else CREATED)
    # Somebody may have scaled it by hand.
    task = next((t for t in reversed(current) if _runs(t)), current[-1])
    state = _state(task)
    ends = [t for t in current if exit_code(t) is not None]
    reasons = [_why(t, image, 0 if stopped else memory) for t in (current if ended(task) else current[:-1])]
    reason = reasons[-1] if reasons else ""
    code = _code(ends[-1]) if ends else None
    if not ended(task):
        blocked = plain(task["Status"].get("Err", "")) if state == "pending" else ""
        if away(task) and not stopped and (state == "running" or len(current) > 1):
            return Verdict(RESTARTING, code, "its node does not answer", task)
        if state == "running":
            return Verdict(RUNNING, None, "", task)
        if ends:
            return Verdict(RESTARTING, code, blocked or reason, task)
        return Verdict(CREATED, None, blocked or reason, task, failure=reason, blocked=blocked)
    if not ends and not stopped:
        failure = reason or "it could not be started"
        return Verdict(CREATED, None, failure, task, failure=failure)
    # What the swarm itself has shut down gets a successor: somebody has changed the service.
    again = restart == "any" or state == "shutdown"
    again = again or (restart == "on-failure" and state in ("failed", "rejected"))
    status = RESTARTING if again and not stopped else EXITED
    return Verdict(status, 137 if code is None else code, reason, task)


def real(tasks: Sequence[Task]) -> list[Task]:
    """Without those that stand for being stopped."""
    return [task for task in tasks if STOPPED not in constraints(task["Spec"])]


def ended(task: Task) -> bool:
    return _state(task) in _FINAL


def constraints(template: Mapping[str, Any]) -> list[str]:
    """The constraints of a task's, or a service's, template."""
    return list((template.get("Placement") or {}).get("Constraints") or ())


def run_of(task: Task) -> int:
    return int(task["Spec"].get("ForceUpdate") or 0)


def made_for(task: Task, label: str, value: str) -> bool:
    """Whether its container has the label; unlike its service's, that is known when the service is gone."""
    return (task["Spec"]["ContainerSpec"].get("Labels") or {}).get(label) == value


def container_id(task: Task) -> str:
    """The engine's ID of its container; "" while there is none."""
    return str((task["Status"].get("ContainerStatus") or {}).get("ContainerID") or "")


def exit_code(task: Task) -> int | None:
    """Of a task that ran and does not any more; else None."""
    status = task["Status"]
    if _state(task) not in _RAN or str(status.get("Err", "")).startswith(_NOT_STARTED):
        return None
    return int(status["ContainerStatus"].get("ExitCode") or 0) if container_id(task) else None


def address_in(task: Task, label: str, value: str) -> str:
    """Its address in the network that has the label."""
    for attached in task.get("NetworksAttachments") or ():
        if (attached["Network"]["Spec"].get("Labels") or {}).get(label) == value:
            return str((attached.get("Addresses") or [""])[0]).partition("/")[0]
    return ""


def _state(task: Task) -> str:
    return str(task["Status"]["State"])


def _runs(task: Task) -> bool:
    return _state(task) == "running" and task.get("DesiredState") == "running"


def _code(task: Task) -> int:
    code = exit_code(task) or 0
    return 137 if code < 0 else code  # -1: its end was not seen


def _why(task: Task, image: str, memory: int) -> str:
    """What to say about a task's end, beside its exit code."""
    text = plain(str(task["Status"].get("Err", "")).removeprefix(_NOT_STARTED))
    if match := re.fullmatch(r"task: non-zero exit \(-?\d+\)(?:: (.*))?", text):
        text = match[1] or ""
    if text.startswith("No such image: "):
        return f"No such image on its node: {image}"
    if not text and memory and exit_code(task) == 137:
        return f"killed, probably out of memory (it may use {memory} MB)"
    if not text and _state(task) == "orphaned":
        return "its node is gone"
    return text


# -- nodes ---------------------------------------------------------------------------------------------------


def node(entry: Mapping[str, Any], uuid: str) -> BackendNode:
    """A node as the swarm describes it. One that is drained counts as down: nothing is to run there. One that
    is paused takes nothing new.
    """
    described, spec = entry.get("Description") or {}, entry["Spec"]
    resources = described.get("Resources") or {}
    tags = sorted(k.removeprefix(TAG) for k in spec.get("Labels") or {} if k.startswith(TAG))
    return BackendNode(
        uuid,
        described.get("Hostname") or entry["ID"],
        tuple(tags),
        up=entry["Status"].get("State") == "ready" and spec.get("Availability") != "drain",
        open=spec.get("Availability", "active") == "active",
        address=_address(entry),
        docker_version=(described.get("Engine") or {}).get("EngineVersion", ""),
        cpu=max(int(resources.get("NanoCPUs") or 0) // _GIGA, 1),
        memory_mb=int(resources.get("MemoryBytes") or 0) >> 20,
    )


def _address(entry: Mapping[str, Any]) -> str:
    """A node's address as the others see it; a manager often does not say its own."""
    manager = str((entry.get("ManagerStatus") or {}).get("Addr", "")).rpartition(":")[0].strip("[]")
    given = str(entry["Status"].get("Addr", ""))
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(given)
        if not address.is_unspecified and not address.is_loopback:
            return given
    return manager
