"""The table of states and actions against the specification's own words."""

from __future__ import annotations

import pytest

from pulumi_tutum import lifecycle
from pulumi_tutum.lifecycle import ACTIONS, STATES

#: Specification, "Service states"; with `start` in Partly running (its own section says so) and `scale`,
#: which is in no state's list (tutum-api.md, section 11, rows 5 and 19).
PERMITTED = {
    "Not running": {"update", "start", "scale", "terminate"},
    "Starting": {"update"},
    "Running": {"update", "stop", "scale", "redeploy", "terminate"},
    "Partly running": {"update", "start", "stop", "scale", "redeploy", "terminate"},
    "Scaling": {"update"},
    "Redeploying": {"update"},
    "Stopping": {"update"},
    "Stopped": {"update", "start", "scale", "redeploy", "terminate"},
    "Terminating": set(),
    "Terminated": set(),
}


def test_the_states_are_those_of_the_specification() -> None:
    assert set(STATES) == set(PERMITTED)
    assert lifecycle.TRANSITIONAL | lifecycle.STABLE | {lifecycle.TERMINATED} == set(STATES)
    assert not lifecycle.TRANSITIONAL & lifecycle.STABLE


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("action", ACTIONS)
def test_what_is_permitted(action: str, state: str) -> None:
    assert lifecycle.permitted(action, state) == (action in PERMITTED[state])
    more = (action, state) == ("redeploy", "Not running")
    assert lifecycle.permitted(action, state, lenient=True) == (action in PERMITTED[state] or more)


@pytest.mark.parametrize("action", ACTIONS.values(), ids=list(ACTIONS))
def test_actions_lead_from_state_to_state(action: lifecycle.Action) -> None:
    assert action.allowed_from | action.lenient_from <= set(STATES)
    assert action.store_only <= action.allowed_from
    assert action.via is None or action.via in lifecycle.TRANSITIONAL
    assert action.targets <= set(STATES)
    assert (
        lifecycle.refusal(action.name, "Starting")
        == f"Service cannot be {action.participle} in state 'Starting'"
    )


@pytest.mark.parametrize(
    ("well", "unwell", "stopped", "target", "state"),
    [
        (0, 0, 0, 2, "Not running"),
        (0, 0, 0, 0, "Not running"),
        (0, 0, 1, 2, "Stopped"),
        (2, 0, 0, 2, "Running"),
        (3, 0, 0, 2, "Running"),
        (1, 0, 1, 2, "Partly running"),
        (1, 0, 0, 2, "Partly running"),
        (2, 0, 1, 2, "Partly running"),
        (0, 1, 0, 1, "Partly running"),
        (2, 1, 0, 3, "Partly running"),
        (0, 1, 1, 2, "Partly running"),
    ],
)
def test_the_state_that_follows_from_the_containers(
    well: int, unwell: int, stopped: int, target: int, state: str
) -> None:
    assert lifecycle.settled_state(well, unwell, stopped, target) == state


def test_the_tables_are_documented() -> None:
    rows = lifecycle.markdown().splitlines()
    assert len(rows) == 2 + len(STATES)
    assert rows[0].count("|") == 3 + len(ACTIONS)
