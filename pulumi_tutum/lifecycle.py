"""The ten states of a service, and what may be done in each: one table for the server and for the provider.

The server asks `permitted(action, state)` before it acts and moves to `Action.via`; the provider derives from
the same rows what it may ask for and which states mean "still on its way". Source: specification, "Service
states"; where it contradicts itself, the row says which reading was taken (tutum-api.md, section 11).
"""

from __future__ import annotations

from dataclasses import dataclass

NOT_RUNNING = "Not running"
STARTING = "Starting"
RUNNING = "Running"
PARTLY_RUNNING = "Partly running"
SCALING = "Scaling"
REDEPLOYING = "Redeploying"
STOPPING = "Stopping"
STOPPED = "Stopped"
TERMINATING = "Terminating"
TERMINATED = "Terminated"

#: Every state, in the order of the specification's table, with what it means.
STATES: dict[str, str] = {
    NOT_RUNNING: "created, no containers deployed",
    STARTING: "containers are starting or already running",
    RUNNING: "all containers are deployed and running",
    PARTLY_RUNNING: "one or more containers, but not all, are running",
    SCALING: "containers are being added or removed to reach the target",
    REDEPLOYING: "all containers are being replaced with the updated configuration",
    STOPPING: "containers are stopping or already stopped",
    STOPPED: "all containers are stopped",
    TERMINATING: "containers are being terminated",
    TERMINATED: "the service and its containers are gone",
}

#: States that end by themselves.
TRANSITIONAL = frozenset({STARTING, SCALING, REDEPLOYING, STOPPING, TERMINATING})
#: The transitional states in which containers are placed.
DEPLOYING = frozenset({STARTING, SCALING, REDEPLOYING})
#: States that last until somebody does something.
STABLE = frozenset({NOT_RUNNING, RUNNING, PARTLY_RUNNING, STOPPED})
#: States in which the service is dead or dying: its name and its create key are free again.
ENDING = frozenset({TERMINATING, TERMINATED})


@dataclass(frozen=True)
class Action:
    """One thing that can be asked of a service.

    Attributes:
        name: the API's word (`redeploy`), also the last part of the URL of the POST.
        participle: for messages: "cannot be redeployed in state ...".
        allowed_from: the states in which it is permitted.
        via: the transitional state it moves the service to at once; None when the state does not change.
        targets: the states it ends in when all goes well.
        store_only: states of `allowed_from` in which it is accepted but deploys nothing.
        lenient_from: states in which `serve --lenient` permits it too.
        remark: where the specification is silent or contradicts itself, the choice made.
    """

    name: str
    participle: str
    allowed_from: frozenset[str]
    via: str | None
    targets: frozenset[str]
    store_only: frozenset[str] = frozenset()
    lenient_from: frozenset[str] = frozenset()
    remark: str = ""


ACTIONS: dict[str, Action] = {
    action.name: action
    for action in (
        Action(
            "update",
            "updated",
            frozenset(STATES) - ENDING,
            None,
            frozenset(STATES) - ENDING,
            remark="accepted in transitional states too, where it only marks the service unsynchronized",
        ),
        Action(
            "start",
            "started",
            frozenset({NOT_RUNNING, STOPPED, PARTLY_RUNNING}),
            STARTING,
            frozenset({RUNNING}),
            remark="Partly running: the state table omits it, the section 'Start a service' has it",
        ),
        Action(
            "stop",
            "stopped",
            frozenset({RUNNING, PARTLY_RUNNING}),
            STOPPING,
            frozenset({STOPPED, NOT_RUNNING}),
            remark="Not running when autodestroy removed what was stopped",
        ),
        Action(
            "scale",
            "scaled",
            frozenset({RUNNING, PARTLY_RUNNING, STOPPED, NOT_RUNNING}),
            SCALING,
            frozenset({RUNNING, NOT_RUNNING, PARTLY_RUNNING}),
            store_only=frozenset({STOPPED, NOT_RUNNING}),
            remark="in no state's list; Stopped and Not running only keep the target for the next start; "
            "containers that had stopped stay stopped, and the service Partly running",
        ),
        Action(
            "redeploy",
            "redeployed",
            frozenset({RUNNING, PARTLY_RUNNING, STOPPED}),
            REDEPLOYING,
            frozenset({RUNNING}),
            lenient_from=frozenset({NOT_RUNNING}),
            remark="from Not running it is refused; `serve --lenient` takes it as a start, for old tools",
        ),
        Action(
            "terminate",
            "terminated",
            STABLE,
            TERMINATING,
            frozenset({TERMINATED}),
        ),
    )
}


def permitted(action: str, state: str, *, lenient: bool = False) -> bool:
    """Whether `action` may be asked for in `state`."""
    row = ACTIONS[action]
    return state in row.allowed_from or (lenient and state in row.lenient_from)


def refusal(action: str, state: str) -> str:
    """The API's text for an action that the state does not permit."""
    return f"Service cannot be {ACTIONS[action].participle} in state '{state}'"


def settled_state(well: int, unwell: int, stopped: int, target: int) -> str:
    """The stable state that follows from a service's containers.

    Args:
        well: containers that run, and of which nothing bad is known.
        unwell: containers that are neither well nor stopped: unhealthy, restarting, on a node that does not
            answer.
        stopped: containers that exist and do not run.
        target: how many containers the service should have.
    """
    if well + unwell == 0:
        return STOPPED if stopped else NOT_RUNNING
    if unwell or stopped or well < target:
        return PARTLY_RUNNING
    return RUNNING


def containers_text(number: int) -> str:
    """How many containers, for messages: `1 container`, `3 containers`."""
    return "1 container" if number == 1 else f"{number} containers"


def markdown() -> str:
    """The two tables of this module, for the documentation."""
    lines = ["| state | meaning | " + " | ".join(ACTIONS) + " |", "|---|---|" + "---|" * len(ACTIONS)]
    for state, meaning in STATES.items():
        cells = []
        for row in ACTIONS.values():
            if state in row.store_only:
                cells.append("stored")
            elif state in row.allowed_from:
                cells.append("yes")
            else:
                cells.append("lenient" if state in row.lenient_from else "-")
        lines.append(f"| {state} | {meaning} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
