"""Private Docker engines for tests: a real dockerd that leaves nothing behind.

`DockerEngine` is one engine; tests/support/swarm.py builds several of them into a swarm. Everything that an
engine has on this machine hangs from a `Slot`: a number that one process alone holds, from which its folder,
addresses, link names, network namespaces and cgroup follow. So two runs never collide, cleaning up needs to
remember nothing, and what a killed run left is swept by the next one.

Needs root, and the programs in `PROGRAMS`. The engine reaches no registry: its proxy is a closed port, so
that pulling a missing image fails at once and no request leaves the machine; a registry on 127.0.0.1 or in
`Slot.network` is reached directly, without TLS.
"""

from __future__ import annotations

import atexit
import contextlib
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import docker

from tests.support.tools import until

PROGRAMS = ("dockerd", "containerd", "runc", "docker-proxy", "iptables", "ip", "nsenter", "unshare")
"""What must be on PATH (Debian: docker.io, iptables, iproute2, util-linux)."""

_SLOTS = tuple(ipaddress.IPv4Network("198.18.0.0/15").subnets(new_prefix=20))  # RFC 2544: set aside for tests
_CGROUPS = Path("/sys/fs/cgroup")
_DEADLINE = 60.0  # seconds; generous, a loaded machine is no failure


class EngineError(Exception):
    """An engine did not do what it was told; the message ends with the last lines of its log."""


def missing() -> list[str]:
    """What this machine lacks to run an engine: names of programs, `root`; empty when nothing."""
    return [p for p in PROGRAMS if shutil.which(p) is None] + (["root"] if os.geteuid() != 0 else [])


def run(*command: str) -> str:
    """Run a command to its end and give its standard output; EngineError with its words when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EngineError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Slot:
    """A number that this process alone holds, and all that follows from it.

    prefix   what its folder, links, network namespaces and cgroup are called, or start with
    folder   where everything on disk is; short, since the path of a unix socket ends at 108 bytes
    network  an IPv4 /20 for whatever needs addresses
    """

    def __init__(self) -> None:
        """Take the first free slot; sweep first what runs that were killed left in any free one."""
        held: list[tuple[int, socket.socket]] = []
        for number in range(len(_SLOTS)):
            if held and not _folder(number).exists():
                continue
            if lock := _hold(number):
                held.append((number, lock))
        if not held:
            raise EngineError(f"{len(_SLOTS)} engines run already")
        (self._number, self._lock), *others = held
        for number, lock in others:
            _clean(number)
            lock.close()
        _clean(self._number)
        self.folder = _folder(self._number)
        self.prefix = self.folder.name
        self.network = _SLOTS[self._number]
        self.folder.mkdir(mode=0o700)
        self._owner = os.getpid()
        atexit.register(self.release)

    def release(self) -> None:
        """Kill every process, undo every change of the machine, and give the number back. May be repeated."""
        if self._owner == os.getpid():  # a forked child inherits the exit handler, not the engine
            self._owner = -1
            atexit.unregister(self.release)
            _clean(self._number)
            self._lock.close()


def _folder(number: int) -> Path:
    return Path(f"/tmp/tt{number}")


def _hold(number: int) -> socket.socket | None:
    # An abstract socket's name is a lock that goes with its process, however that ends.
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(f"\0pulumi-tutum-test-engine-{number}")
    except OSError:
        lock.close()
        return None
    return lock


def _clean(number: int) -> None:
    folder, network = _folder(number), _SLOTS[number]
    prefix = folder.name
    if not folder.exists():
        return
    _kill(prefix)
    _unmount(folder)
    for name in run("ip", "netns", "list").split():
        if name.startswith(f"{prefix}-"):
            run("ip", "netns", "del", name)
    for bridge in json.loads(run("ip", "-j", "addr", "show", "type", "bridge")):
        addresses = [ipaddress.ip_address(a["local"]) for a in bridge.get("addr_info", []) if "local" in a]
        if bridge.get("ifname") == prefix or any(a in network for a in addresses if a.version == 4):
            for port in json.loads(run("ip", "-j", "link", "show", "master", bridge["ifname"]) or "[]"):
                _forget("ip", "link", "del", port["ifname"])
            _forget("ip", "link", "del", bridge["ifname"])
    _forget("ip", "link", "del", prefix)
    until(lambda: _remove(prefix), f"cgroup {prefix} is gone")
    shutil.rmtree(folder)


def _forget(*command: str) -> None:
    # A link goes by itself with its peer or its namespace, at a moment of the kernel's choosing.
    with contextlib.suppress(EngineError):
        run(*command)


def _cgroups(path: str) -> list[Path]:
    """The cgroup of that path in each hierarchy in which it exists (one in cgroup v2, a dozen in v1)."""
    roots = [_CGROUPS, *(p for p in _CGROUPS.iterdir() if (p / "cgroup.procs").exists())]
    return [root / path for root in roots if (root / path).is_dir()]


def _pids(path: str) -> set[int]:
    pids: set[int] = set()
    for root in _cgroups(path):
        for procs in [*root.rglob("cgroup.procs")]:
            with contextlib.suppress(OSError):  # the cgroup has just gone
                pids.update(int(pid) for pid in procs.read_text().split())
    return pids


def _kill(path: str) -> None:
    """SIGKILL all processes of the cgroup until none is left."""

    def gone() -> bool:
        for root in _cgroups(path):
            for state in root.rglob("freezer.state"):  # cgroup v1: a paused process does not even die
                state.write_text("THAWED")
        pids = _pids(path)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    until(gone, f"no process is left in cgroup {path}")


def _remove(path: str) -> bool:
    for root in _cgroups(path):
        for group, _, _ in os.walk(root, topdown=False):
            with contextlib.suppress(OSError):  # a process in it has died, but is not all gone
                os.rmdir(group)
    return not _cgroups(path)


def _unmount(folder: Path) -> None:
    """Unmount all that is mounted at or below the folder, and see that it is: it will be deleted next."""

    def points() -> list[str]:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return [p for line in mounts if Path(p := line.split()[4]).is_relative_to(folder)]

    for point in reversed(points()):
        run("umount", "-l", point)
    if left := points():
        raise EngineError(f"still mounted: {left}")


class Daemon:
    """One dockerd and its folder: started, stopped, killed, started again. Its maker owns the slot."""

    def __init__(
        self, slot: Slot, name: str, *, enter: Sequence[str] = (), options: Sequence[str] = ()
    ) -> None:
        """`enter` is a command that runs the command after it elsewhere (`nsenter --net=...`)."""
        self.name = name
        self._slot = slot
        self._folder = slot.folder / name
        self._folder.mkdir()
        self._cgroup = f"{slot.prefix}/{name}"
        self._exec = self._folder / "exec"
        self.url = f"unix://{self._folder}/docker.sock"
        # The machine's own settings must not reach the engine, nor its requests the world.
        (self._folder / "daemon.json").write_text("{}")
        self._environment = {
            "PATH": os.environ["PATH"],
            "HTTP_PROXY": "http://127.0.0.1:9",
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": f"localhost,127.0.0.0/8,{slot.network}",
        }
        daemon = ["dockerd", "--host", self.url, "--config-file", str(self._folder / "daemon.json")]
        daemon += ["--data-root", str(self._folder / "data"), "--exec-root", str(self._exec)]
        daemon += ["--pidfile", str(self._folder / "docker.pid"), "--insecure-registry", str(slot.network)]
        daemon += ["--cgroup-parent", f"/{self._cgroup}", "--exec-opt", "native.cgroupdriver=cgroupfs"]
        self._command = [*enter, *daemon, *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """All that dockerd has said, over all its starts."""
        path = self._folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @contextlib.contextmanager
    def client(self) -> Iterator[docker.DockerClient]:
        """A docker-py client of the engine, closed at the end of the block."""
        client = docker.DockerClient(base_url=self.url, timeout=int(_DEADLINE))
        try:
            yield client
        finally:
            client.close()

    def start(self) -> None:
        """Start dockerd and return when it answers."""
        if self.running:
            raise EngineError(f"dockerd of {self._folder} runs already")
        for stale in (self._folder / "docker.pid", self._exec / "containerd" / "containerd.pid"):
            stale.unlink(missing_ok=True)
        # cgroup v1: any hierarchy would do to find the processes again, pids is always there.
        hierarchy = _CGROUPS / "pids" if (_CGROUPS / "pids").is_dir() else _CGROUPS
        group = hierarchy / self._cgroup / "daemon"
        group.mkdir(parents=True, exist_ok=True)
        join = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*join, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for the tests, which then clean up
            )
        until(lambda: not self.running or self._answers(), "dockerd answers")
        if not self.running:
            raise EngineError(f"dockerd ended at its start:\n{self.log[-2000:]}")

    def stop(self) -> None:
        """SIGTERM, as an orderly shutdown: containers are stopped, unless the engine is to `live_restore`."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=_DEADLINE)

    def kill(self) -> None:
        """SIGKILL, as a crash: containerd and the port proxies die with dockerd, the containers live on.

        On return `start` works at once.
        """
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            gone = {"dockerd", "containerd", "docker-proxy"}
            until(lambda: not gone & {_living(p) for p in _pids(self._cgroup)}, "containerd is gone")

    def power_off(self) -> None:
        """The machine dies: every process at once, and what lay in its memory is lost; the disk stays."""
        self.kill()
        _kill(self._cgroup)
        _unmount(self._folder)
        shutil.rmtree(self._exec, ignore_errors=True)

    def _answers(self) -> bool:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
            if probe.connect_ex(self.url.removeprefix("unix://")) != 0:
                return False  # docker-py leaks a socket when it cannot connect (its pull request 3356)
        with contextlib.suppress(docker.errors.DockerException, OSError), self.client() as client:
            return bool(client.ping())
        return False


def _living(pid: int) -> str | None:
    """The command name of a process; None of one that is gone or waits to be reaped."""
    with contextlib.suppress(OSError):
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
        return None if rest.split()[0] == "Z" else name
    return None


class DockerEngine(Daemon):
    """One private engine, cleaned up without a trace at the end of the `with` block or of the process.

    namespace=False: in the machine's own network. What is published on 127.0.0.1 answers on 127.0.0.1. The
    engine has no firewall rules (it publishes through its proxy, as any engine does on loopback), so the
    machine's firewall and ip_forward are never touched; containers reach this machine and each other, not the
    world. Where another Docker has set the policy of FORWARD to DROP, they may not reach each other.

    namespace=True: in a network namespace of its own, with an engine's defaults, its firewall included. What
    is published on 0.0.0.0 or `address` answers at `address`; 127.0.0.1 is the namespace's own.
    """

    def __init__(
        self, *, namespace: bool = False, live_restore: bool = False, options: Sequence[str] = ()
    ) -> None:
        slot = Slot()
        try:
            super().__init__(slot, "engine", **_network(slot, namespace, live_restore, options))
        except BaseException:
            slot.release()
            raise
        first = slot.network.network_address
        self.address = str(first + 2) if namespace else "127.0.0.1"
        """Where a port answers that a container has published."""
        self.gateway = str(first + 1)
        """Where containers reach this machine: a server that listens here or on 0.0.0.0."""
        self.node_urls = [self.url]

    def __enter__(self) -> DockerEngine:
        try:
            self.start()
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
        self.kill()
        self._slot.release()


def _network(slot: Slot, namespace: bool, live_restore: bool, options: Sequence[str]) -> dict[str, Any]:
    """Lay the engine's network; the arguments that put a daemon into it."""
    first, name = slot.network.network_address, slot.prefix
    *_, pool = slot.network.subnets(prefixlen_diff=1)
    more = ["--default-address-pool", f"base={pool},size=26", *options]
    more += ["--live-restore"] if live_restore else []
    if not namespace:
        run("ip", "link", "add", name, "type", "bridge")
        run("ip", "addr", "add", f"{first + 1}/24", "dev", name)
        run("ip", "link", "set", name, "up")
        own = ["--bridge", name, "--iptables=false", "--ip-masq=false", "--ip-forward=false"]
        return {"options": [*own, *more]}
    space = f"{name}-engine"
    run("ip", "netns", "add", space)
    run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", space)
    run("ip", "addr", "add", f"{first + 1}/24", "dev", name)
    run("ip", "link", "set", name, "up")
    run("ip", "-n", space, "addr", "add", f"{first + 2}/24", "dev", "eth0")
    run("ip", "-n", space, "link", "set", "eth0", "up")
    run("ip", "-n", space, "link", "set", "lo", "up")
    # Not `ip netns exec`, which mounts another /sys and so hides the cgroups.
    return {"enter": ["nsenter", f"--net=/run/netns/{space}"], "options": more}
