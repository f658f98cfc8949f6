"""What a swarm says of its tasks and nodes, in the control plane's words: pure functions.

A swarm service of one replica has a row of tasks: each start is one, and so is each restart by its policy.
Those of one start carry the same `ForceUpdate`, the number of the run. States, in their order: new, pending,
assigned, accepted, preparing, ready, starting, running; then complete, failed (it ran; or it could not be
started, which its message tells), rejected (it never could), shutdown (it was told to), orphaned (its node is
gone for good)."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import ipaddress
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import CREATED, EXITED, RESTARTING, RUNNING, WAITING, BackendNode
from .engine import plain

#: A constraint that no node meets: what has it is stopped.
STOPPED = "node.labels.io.tutum.stopped==yes"
#: A node's tags are labels that begin with this. A constraint cannot name every tag, so a tag with other
#: characters has a second label, made of its bytes.
TAG, CODED_TAG = "io.tutum.tag.", "io.tutum.tagged."
#: A constraint with this beginning binds a task to one node.
PIN = "node.id=="

#: A restart policy as `verdict` takes it, beside the swarm's own `none`, `on-failure` and `any`: the swarm
#: may start the container on another node, but a program that ends is not started again.
ONCE = "once"
_SECOND = 1_000_000_000
#: The restart policies of the swarm services. A swarm has no policy that replaces a task when its node dies
#: and leaves it alone when its program fails: `none` does neither, `on-failure` does both. So OFF is
#: `on-failure`, with a delay in which the control plane sees the exit and stops the service. Without a
#: control plane a program that fails is started again, at most `MaxAttempts` times in `Window`.
POLICIES: dict[str, dict[str, Any]] = {
    "OFF": {"Condition": "on-failure", "Delay": 4 * _SECOND, "MaxAttempts": 5, "Window": 60 * _SECOND},
    "ON_FAILURE": {"Condition": "on-failure", "Delay": _SECOND},
    "ALWAYS": {"Condition": "any", "Delay": _SECOND},
}

_FINAL = frozenset({"complete", "failed", "rejected", "shutdown", "orphaned", "remove"})
_RAN = frozenset({"complete", "failed", "shutdown", "orphaned"})
#: The states of a task whose program ended, and was not told to.
_OWN_END = frozenset({"complete", "failed"})
#: A task that a swarm replaces because its program ended has ended before its successor is made. One that it
#: replaces because of its node ends later: when the node is back. Managers' times tell, if the difference is
#: outside of these limits (a worker reports an end in two parts). Between them the worker's own time decides.
_SURELY_BEFORE, _SURELY_AFTER = 0.5, 2.0
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
        blocked: why no node takes it; that may pass.
        origin: of a container that waits: the last task of it that ran.
        restarts: how often its program has ended and was started again; last_exit_code: of the last of those.
        again: the swarm is about to start a container again that is not to be restarted.
    """

    status: str | None
    exit_code: int | None = None
    reason: str = ""
    task: Task | None = None
    failure: str = ""
    blocked: str = ""
    origin: Task | None = None
    restarts: int = 0
    last_exit_code: int | None = None
    again: bool = False


def verdict(
    tasks: Sequence[Task],
    *,
    run: int,
    stopped: bool,
    restart: str,
    away: Callable[[Task], bool],
    superseded: Collection[str] = (),
    checked: bool = False,
    image: str = "",
    memory: int = 0,
) -> Verdict:
    """What a container's tasks (oldest first) mean.

    Args:
        run: how often it has been started; stopped: and whether it has been stopped since.
        restart: its policy: `none`, `on-failure`, `any` or `ONCE`.
        away: whether a task's node, or the one that it is bound to, does not answer.
        superseded: IDs of tasks that are known to have been replaced before they ended.
        checked: its image has a HEALTHCHECK. The swarm calls a task `starting` until that has passed; its
            program runs meanwhile.
        image, memory: its image's name and its limit in MB, for explanations.
    """
    current = [task for task in real(tasks) if run_of(task) == run]
    if not current:
        return Verdict(None if run else CREATED)
    ends = [
        task
        for task, successor in _pairs(current)
        if task.get("ID") not in superseded and _ended_by_itself(task, successor)
    ]
    if restart == ONCE and ends:
        first = ends[0]
        again = not stopped and _state(first) == "failed"
        return Verdict(EXITED, _code(first), _why(first, image, memory), first, again=again)
    found = _judge(
        current,
        ends,
        stopped=stopped,
        restart=restart,
        away=away,
        checked=checked,
        image=image,
        memory=memory,
    )
    replaced = [task for task in ends if task is not current[-1]]
    last = _code(replaced[-1]) if replaced else None
    return dataclasses.replace(found, restarts=len(replaced), last_exit_code=last)


def _judge(
    current: Sequence[Task],
    own_ends: Sequence[Task],
    *,
    stopped: bool,
    restart: str,
    away: Callable[[Task], bool],
    checked: bool,
    image: str,
    memory: int,
) -> Verdict:
    """The verdict on the tasks of one run. `own_ends`: those whose programs ended by themselves."""
    # Somebody may have scaled it by hand.
    task = next((t for t in reversed(current) if _runs(t)), current[-1])
    state = _state(task)
    ends = [t for t in current if exit_code(t) is not None]
    reasons = [_why(t, image, 0 if stopped else memory) for t in (current if ended(task) else current[:-1])]
    reason = reasons[-1] if reasons else ""
    code = _code(ends[-1]) if ends else None
    before = current[-2] if len(current) > 1 else None
    origin = next((t for t in reversed(current) if t is not task and _has_run(t)), None)
    is_moved = origin is not None and before not in own_ends
    if not ended(task):
        if state == "running" and not away(task):
            return Verdict(RUNNING, None, "", task)
        if state == "running":
            return Verdict(EXITED, 137, "", task) if stopped else Verdict(WAITING, task=task, origin=task)
        if checked and state == "starting" and container_id(task) and not away(task) and not stopped:
            return Verdict(RUNNING, None, "", task)
        blocked = plain(task["Status"].get("Err", "")) if state == "pending" else ""
        if not stopped and (is_moved or (before is not None and away(task))):
            failed = "" if before is origin else reason
            return Verdict(WAITING, None, failed, task, blocked=blocked, origin=origin)
        if ends:
            return Verdict(RESTARTING, code, blocked or reason, task)
        return Verdict(CREATED, None, blocked or reason, task, failure=reason, blocked=blocked)
    if is_moved and not stopped and exit_code(task) is None:
        return Verdict(WAITING, None, reason, task, origin=origin)
    if not ends and not stopped:
        failure = reason or "it could not be started"
        return Verdict(CREATED, None, failure, task, failure=failure)
    # What the swarm itself has shut down gets a successor: somebody has changed the service.
    again = restart == "any" or state == "shutdown"
    again = again or (restart == "on-failure" and state in ("failed", "rejected"))
    status = RESTARTING if again and not stopped else EXITED
    return Verdict(status, 137 if code is None else code, reason, task)


def _pairs(tasks: Sequence[Task]) -> Iterable[tuple[Task, Task | None]]:
    """Each task and its successor."""
    return itertools.zip_longest(tasks, tasks[1:])


def _ended_by_itself(task: Task, successor: Task | None) -> bool:
    """Whether a task's program ended, and not its node."""
    if _state(task) not in _OWN_END or exit_code(task) is None:
        return False
    if successor is None:
        return True
    made = _time(successor.get("CreatedAt"))
    late = _time(task.get("UpdatedAt")) - made
    if late < _SURELY_BEFORE or late > _SURELY_AFTER:
        return late < _SURELY_BEFORE
    return _time(task["Status"].get("Timestamp")) <= made


def is_superseded(task: Task) -> bool:
    """Whether the swarm has given a task up that has not ended."""
    return not ended(task) and task.get("DesiredState") in ("shutdown", "remove")


def _has_run(task: Task) -> bool:
    """Whether a task's program was started."""
    began = _state(task) in ("starting", "running") and bool(container_id(task))
    return began or exit_code(task) is not None


def _time(given: object) -> float:
    """A time as an engine writes it, in seconds since the epoch."""
    text, dot, fraction = str(given or "1970-01-01T00:00:00Z").rstrip("Z").partition(".")
    seconds = datetime.datetime.fromisoformat(f"{text}+00:00").timestamp()
    return seconds + float(f"0.{fraction}" if dot else 0)


def entered(task: Task, state: str) -> float:
    """When a task entered the state that it is in, by its node's clock; 0.0: it is in another one."""
    return _time(task["Status"].get("Timestamp")) if _state(task) == state else 0.0


def policy(template: Mapping[str, Any]) -> str:
    """The restart policy in a service's template, as `verdict` takes it."""
    found = template.get("RestartPolicy") or {}
    condition = str(found.get("Condition", "any"))
    return ONCE if condition == "on-failure" and found.get("MaxAttempts") else condition


def tags_in(labels: Mapping[str, str]) -> list[str]:
    """The tags that a node's labels stand for."""
    return sorted(name.removeprefix(TAG) for name in labels if name.startswith(TAG))


def tag_labels(tags: Iterable[str]) -> dict[str, str]:
    """The labels of a node that has these tags."""
    names = [name for tag in tags for name in dict.fromkeys((f"{TAG}{tag}", _label(tag)))]
    return dict.fromkeys(names, "1")


def tag_constraints(tags: Iterable[str]) -> list[str]:
    """The constraints that only nodes with all these tags meet."""
    return [f"node.labels.{_label(tag)}==1" for tag in tags]


def is_tag_label(name: str) -> bool:
    return name.startswith((TAG, CODED_TAG))


def _label(tag: str) -> str:
    """The label that a constraint can name a tag by."""
    return f"{TAG}{tag}" if re.fullmatch(r"[A-Za-z0-9._-]+", tag) else f"{CODED_TAG}{tag.encode().hex()}"


def is_own(constraint: str) -> bool:
    """Whether the control plane made a constraint."""
    prefixes = (PIN, f"node.labels.{TAG}", f"node.labels.{CODED_TAG}")
    return constraint == STOPPED or constraint.startswith(prefixes)


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


def is_healthy(task: Task) -> bool:
    """Whether the health check of a task's container has passed."""
    return _state(task) == "running"


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
    # A task that was shut down before it had a node still says why it had none.
    said = "" if _state(task) == "shutdown" else str(task["Status"].get("Err", ""))
    text = plain(said.removeprefix(_NOT_STARTED))
    if match := re.fullmatch(r"task: non-zero exit \(-?\d+\)(?:: (.*))?", text):
        text = match[1] or ""
    if text.endswith("unhealthy container"):
        return "the container was unhealthy"
    if text.startswith("No such image: "):
        return f"No such image on its node: {image}"
    if not text and memory and exit_code(task) == 137:
        return f"killed, probably out of memory (it may use {memory} MB)"
    if not text and _state(task) == "orphaned":
        return "its node is gone"
    return text


# -- nodes ---------------------------------------------------------------------------------------------------


def node(entry: Mapping[str, Any], uuid: str) -> BackendNode:
    """A node as the swarm describes it. One that is paused takes nothing new; one that is drained keeps
    nothing either. One that is `unknown` has not reported to a new leader yet, and counts as up.
    """
    described, spec = entry.get("Description") or {}, entry["Spec"]
    resources = described.get("Resources") or {}
    state = entry["Status"].get("State")
    tags = tags_in(spec.get("Labels") or {})
    return BackendNode(
        uuid,
        described.get("Hostname") or entry["ID"],
        tuple(tags),
        up=state in ("ready", "unknown"),
        open=state == "ready" and spec.get("Availability", "active") == "active",
        drained=spec.get("Availability") == "drain",
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
