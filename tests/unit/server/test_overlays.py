"""Names in a swarm's networks: nobody is ever taken for somebody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulumi_tutum.server.backends.overlays import Ambiguous, Place, place


def put(places: list[Place], service: str, *names: str, links: dict[str, str] | None = None) -> Place:
    """A new container of a service, after those that there are."""
    found = place(service, names=(), niceties=names, links=(links or {}).items(), others=places)
    places.append(found)
    return found


def test_all_live_in_one_network_while_their_names_differ() -> None:
    places: list[Place] = []
    assert put(places, "A", "db-1a2b3c4", "db").home == 0
    web = put(places, "B", "web", links={"DB": "A"})
    assert (web.home, web.networks) == (0, [0])
    assert put(places, "B", "web").home == 0


def test_two_stacks_of_one_program_do_not_meet() -> None:
    places: list[Place] = []
    put(places, "A", "db-1a2b3c4", "db")
    put(places, "B", "web-1a2b3c4", "web", links={"DB": "A"})
    other = put(places, "C", "db-5d6e7f8", "db")
    assert (other.home, set(other.names)) == (1, {"db-5d6e7f8", "db"})
    assert put(places, "D", "web-5d6e7f8", "web", links={"DB": "C"}).networks == [1]


def test_a_name_with_an_ordinal_is_a_name_too() -> None:
    places: list[Place] = []
    put(places, "A", "web")
    assert put(places, "B", "web-1").home == 1


def test_names_that_differ_in_their_number_share_a_network() -> None:
    places: list[Place] = []
    assert put(places, "A", "db-1-1a2b3c4", "db-1").home == 0
    assert put(places, "B", "db-2-5d6e7f8", "db-2", links={"DB-1": "A"}).networks == [0]
    assert put(places, "C", "web", links={"db-1": "A", "db-2": "B"}).networks == [0]
    # The first container of `db-1` is called this, too.
    assert put(places, "D", "db-1-1").home == 1
    assert put(places, "E", "db").home == 1


def test_who_links_across_joins_both_networks_or_is_refused() -> None:
    places: list[Place] = []
    put(places, "A", "db")
    put(places, "Q", "queue")
    put(places, "C", "db")
    assert put(places, "D", "one", links={"db": "C", "cache": "D"}).networks == [1]
    with pytest.raises(Ambiguous) as error:
        put(places, "E", "two", links={"db": "C", "queue": "Q"})
    assert error.value.name == "db"
    assert error.value.others == {"A"}


def test_a_name_that_a_client_waits_for_is_kept_for_its_target() -> None:
    places: list[Place] = []
    put(places, "W", "web", links={"DB": "A"})
    assert put(places, "X", "db").home == 1
    target = place("A", names=("DB",), niceties=("a",), links=(), others=places)
    assert (target.home, set(target.names)) == (0, {"db", "a"})


def test_a_link_may_have_the_name_that_its_own_service_would_have_liked() -> None:
    places: list[Place] = []
    put(places, "A", "db-1a2b3c4", "db")
    replica = put(places, "B", "db-5d6e7f8", "db", links={"DB": "A"})
    assert (replica.home, set(replica.names)) == (0, {"db-5d6e7f8"})


NAMES = st.sampled_from(["db", "web", "DB", "db-1", "db-2", "db-1-2", "api"])
SERVICES = st.sampled_from("ABCDEF")


@given(
    st.lists(
        st.tuples(SERVICES, st.lists(NAMES, max_size=2), st.dictionaries(NAMES, SERVICES, max_size=2)),
        max_size=8,
    )
)
def test_no_name_ever_means_two_services(steps: list[tuple[str, list[str], dict[str, str]]]) -> None:
    places: list[Place] = []
    for service, names, links in steps:
        others = {name: target for name, target in links.items() if target != service}
        try:
            put(places, service, *names, links=others)
        except Ambiguous:
            continue
    for client in places:
        for link in client.links:
            found = {
                p.service
                for p in places
                if p.home in client.networks
                and forms(link.name) & {n for name in p.names for n in forms(name)}
            }
            assert found <= {link.service}


def forms(name: str) -> set[str]:
    """What a name resolves: itself, and with an ordinal."""
    return {name, *(f"{name}-{n}" for n in (1, 2))}
