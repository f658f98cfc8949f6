"""A Docker Swarm of several machines on one: for tests that place containers and lose nodes.

Each node is a dockerd in a network namespace of its own, with its own host name and cgroup, all on one
switch (which is in a namespace too: in the machine's own it would be filtered by any engine's firewall). This
machine has a port on that switch, so that tests reach the nodes' published ports, and containers a test's
servers.

The nodes have no default route. The kernel of a test machine may lack IPVS, on which swarm's virtual
addresses and its ingress network depend: use `dnsrr` and ports in `host` mode, which need neither.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from tests.support.docker_engine import Daemon, Slot, run
from tests.support.tools import until


class SwarmCluster:
    """A swarm of `nodes` engines, of which the first `managers` are managers; gone at the end of `with`.

    daemons     the engines, node 0 first; the host name of node i is `node<i + 1>`
    node_urls   their addresses as Docker clients take them (unix://...); a manager first
    addresses   their IPv4 addresses, where ports answer that are published in host mode
    gateway     where nodes and containers reach this machine
    """

    def __init__(self, nodes: int = 3, *, managers: int = 1) -> None:
        self._managers = managers
        self._slot = Slot()
        try:
            self._lay_network(nodes)
        except BaseException:
            self._slot.release()
            raise

    def _lay_network(self, nodes: int) -> None:
        name = self._slot.prefix
        outer, bridges, *self._overlays = self._slot.network.subnets(prefixlen_diff=2)
        self.gateway, *addresses = (str(outer.network_address + 1 + i) for i in range(nodes + 1))
        self.addresses = addresses
        self.daemons: list[Daemon] = []
        switch = f"{name}-switch"
        run("ip", "netns", "add", switch)
        run("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", switch, "link", "set", "br0", "up")
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "root", "netns", switch)
        run("ip", "-n", switch, "link", "set", "root", "master", "br0", "up")
        run("ip", "addr", "add", f"{self.gateway}/24", "dev", name)
        run("ip", "link", "set", name, "up")
        for number, address in enumerate(addresses, 1):
            node = f"node{number}"
            space = f"{name}-{node}"
            run("ip", "netns", "add", space)
            peer = ["peer", "name", "eth0", "netns", space]
            run("ip", "-n", switch, "link", "add", node, "type", "veth", *peer)
            run("ip", "-n", switch, "link", "set", node, "master", "br0", "up")
            run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", space, "link", "set", "eth0", "up")
            run("ip", "-n", space, "link", "set", "lo", "up")
            enter = ["nsenter", f"--net=/run/netns/{space}", "unshare", "--uts"]
            enter += ["sh", "-c", 'hostname "$0" && exec "$@"', node]
            pool = ["--default-address-pool", f"base={bridges},size=26"]
            self.daemons.append(Daemon(self._slot, node, enter=enter, options=pool))
        self.node_urls = [daemon.url for daemon in self.daemons]

    def __enter__(self) -> SwarmCluster:
        try:
            with ThreadPoolExecutor() as pool:
                list(pool.map(Daemon.start, self.daemons))
            self._form_swarm()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill everything and leave no trace. May be repeated."""
        for daemon in self.daemons:
            daemon.kill()
        self._slot.release()

    def kill_node(self, number: int) -> None:
        """The node's machine dies: all its processes at once, and its network answers nobody."""
        run("ip", "-n", self._space(number), "link", "set", "eth0", "down")
        self.daemons[number].power_off()

    def start_node(self, number: int) -> None:
        """The node's machine comes back, with its disk; return when the swarm has it Ready again."""
        run("ip", "-n", self._space(number), "link", "set", "eth0", "up")
        self.daemons[number].start()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Return when the swarm reports every running node as ready."""
        running = {daemon.name for daemon in self.daemons if daemon.running}
        until(lambda: running <= self.ready(), f"{running} are ready")

    def ready(self) -> set[str]:
        """Host names of the nodes that the swarm reports as ready."""
        manager = next(d for d in self.daemons[: self._managers] if d.running)
        with manager.client() as client:
            states = {n["Description"].get("Hostname"): n["Status"]["State"] for n in client.api.nodes()}
        return {name for name, state in states.items() if state == "ready"}

    def _space(self, number: int) -> str:
        return f"{self._slot.prefix}-{self.daemons[number].name}"

    def _form_swarm(self) -> None:
        first, *others = zip(self.daemons, self.addresses, strict=True)
        with first[0].client() as client:
            client.swarm.init(
                advertise_addr=first[1],
                listen_addr=f"{first[1]}:2377",
                default_addr_pool=[str(net) for net in self._overlays],
                subnet_size=26,
                # A dead node is noticed after about two heartbeats; 5 s is swarm's own.
                dispatcher_heartbeat_period=2_000_000_000,
            )
            client.swarm.reload()
            tokens = client.swarm.attrs["JoinTokens"]
        for number, (daemon, address) in enumerate(others, 1):
            with daemon.client() as client:
                client.swarm.join(
                    remote_addrs=[f"{first[1]}:2377"],
                    join_token=tokens["Manager" if number < self._managers else "Worker"],
                    advertise_addr=address,
                    listen_addr=f"{address}:2377",
                )
        self.wait_ready()
