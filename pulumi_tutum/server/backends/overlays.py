"""Which overlay network a swarm container lives in, and under which names: pure functions.

A swarm's DNS knows a container only by names that it was born with: to give it another one is to restart it,
and one who asks has no names of its own for others, as it has on a single engine. So a container is born with
every name by which somebody may want it: its service's, that name without the suffix that Pulumi put to it,
and those of all links to it that are known; each also with its ordinal, `db-2`.

Two services may well be called the same (`db` of one Pulumi stack and `db` of another), and their names must
not mix. Whoever links to a service joins the network that it lives in. So it is enough that in no network a
name belongs to two services: the first network is everybody's, and a service one of whose names is somebody
else's there lives in the next one that has room for it. (`db` and a service called `db-2` do not share one,
`db-2` and `db-3` do.) Most servers never see a second network, which matters: each costs a node more than
starting a container.

What remains is told to the user: a link whose name the target was not born with, and one whose name means
somebody else in another of the networks that its container has to join."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """A name that a container uses for another service, which lives, or will live, in the network `home`."""

    name: str
    service: str
    home: int


@dataclass(frozen=True)
class Place:
    """Where a container is.

    Attributes:
        service: uuid of its service.
        home: number of the network that it lives in.
        names: its names there, lower case, without ordinals.
    """

    service: str
    home: int
    names: frozenset[str]
    links: tuple[Link, ...] = ()

    @property
    def networks(self) -> list[int]:
        """Numbers of all networks that it joins, its home first."""
        return list(dict.fromkeys((self.home, *(link.home for link in self.links))))


class Ambiguous(Exception):
    """A link's name would mean two services.

    Attributes:
        name: the link's.
        others: uuids of the services that it means besides.
    """

    def __init__(self, name: str, others: Collection[str]) -> None:
        self.name, self.others = name, frozenset(others)
        super().__init__(name)


def place(
    service: str,
    *,
    names: Sequence[str],
    niceties: Sequence[str],
    links: Iterable[tuple[str, str]],
    others: Iterable[Place],
) -> Place:
    """Where a new container goes.

    Args:
        names: what it must be called: by others' links.
        niceties: what it should be called, where nobody else is.
        links: (name, uuid of the target) of its own links.
        others: all containers that there are.

    Raises:
        Ambiguous: it cannot join its targets' networks without mistaking one for another.
    """
    map_ = _Map(service, others)
    links = list(links)
    used = _Names()
    for name, target in links:
        if target != service:
            used.add(name, target)
    called = [n for n in names if n] + [n for n in niceties if n and not used.meaning(n)]
    home = map_.homes.get(service)
    if home is None:
        near = [map_.homes[target] for _, target in links if target in map_.homes]
        home = next(
            k
            for k in itertools.chain(near, itertools.count())
            if all(map_.free(k, n, service) for n in called)
            and all(map_.owners[k].meaning(n) <= {target} for n, target in links)
        )
    # Of a service that lives here already, others may want a name that is somebody else's.
    called = [n for n in called if map_.free(home, n, service)]
    found = Place(
        service,
        home,
        frozenset(n.lower() for n in called),
        tuple(Link(name.lower(), target, map_.homes.get(target, home)) for name, target in links),
    )
    for n in called:
        map_.owners[home].add(n, service)
    for name, target in links:
        for k in found.networks:
            if mistaken := map_.owners[k].meaning(name) - {target}:
                raise Ambiguous(name, mistaken)
    return found


class _Names:
    """Names, each also with ordinals, and the services that they mean."""

    def __init__(self) -> None:
        self._exact: dict[str, set[str]] = {}
        #: Those that could be somebody's name with an ordinal, by that name.
        self._numbered: dict[str, set[str]] = {}

    def add(self, name: str, service: str) -> None:
        name = name.lower()
        self._exact.setdefault(name, set()).add(service)
        if (stem := _stem(name)) != name:
            self._numbered.setdefault(stem, set()).add(service)

    def meaning(self, name: str) -> set[str]:
        """The services that a name, or the name with an ordinal, means."""
        name = name.lower()
        exact, nobody = self._exact, frozenset[str]()
        return {*exact.get(name, nobody), *exact.get(_stem(name), nobody), *self._numbered.get(name, nobody)}


class _Map:
    """Who is called what in which network, as `service` sees it."""

    def __init__(self, service: str, others: Iterable[Place]) -> None:
        #: By network: names that services have there, or will have.
        self.owners: dict[int, _Names] = defaultdict(_Names)
        #: By network: whom somebody in that network means by a name.
        self.meant: dict[int, _Names] = defaultdict(_Names)
        self.homes: dict[str, int] = {}
        promised: dict[str, int] = {}
        for other in others:
            self.homes[other.service] = other.home
            for name in other.names:
                self.owners[other.home].add(name, other.service)
            for link in other.links:
                promised.setdefault(link.service, link.home)
                for k in other.networks:
                    self.meant[k].add(link.name, link.service)
                # What its own former self meant by a name binds nobody.
                if other.service != service:
                    self.owners[link.home].add(link.name, link.service)
        self.homes = {**promised, **self.homes}

    def free(self, network: int, name: str, service: str) -> bool:
        """Whether a service may be called that there."""
        return (self.owners[network].meaning(name) | self.meant[network].meaning(name)) <= {service}


def _stem(name: str) -> str:
    """`db-2` is what the second container of `db` is called."""
    return re.sub(r"-\d+$", "", name)
