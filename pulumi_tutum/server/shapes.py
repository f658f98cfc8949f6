"""Records as the API's JSON objects: list shape and detail shape of every kind.

Types are exactly the documented ones (numbers are numbers, absent texts null, lists never null): Go clients
decode strictly. A list object of a service leaves out what is not `listed` in `schema` (tutum-api.md, 3.3).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import NotFound
from ..lifecycle import STABLE, TERMINATED
from . import environment, model
from .backends import ImageInfo
from .deployment import World
from .model import (
    Action,
    Container,
    Image,
    Node,
    NodeCluster,
    Record,
    Service,
    Settings,
    Stack,
    Trigger,
    Volume,
    VolumeGroup,
    date,
    uri,
)
from .records import link_targets


class Shapes:
    """See the module's docstring."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.records = world.records
        self._render: dict[type[Record], Callable[[Any], dict[str, Any]]] = {
            Service: self.service,
            Container: self.container,
            Action: self.action,
            Stack: self.stack,
            Node: self.node,
            NodeCluster: self.cluster,
            Volume: self.volume,
            VolumeGroup: self.group,
            Trigger: self.trigger,
            Image: self.image,
        }

    @property
    def settings(self) -> Settings:
        return self.world.settings

    def detail(self, record: Record) -> dict[str, Any]:
        return self._render[type(record)](record)

    def listed(self, record: Record) -> dict[str, Any]:
        if isinstance(record, Service):
            return self.service(record, listed=True)
        if isinstance(record, Container):
            return self.container(record, listed=True)
        return self.detail(record)

    # -- services

    def service(self, s: Service, listed: bool = False) -> dict[str, Any]:
        # A service at rest does not count a container that is being removed: counts and state agree.
        at_rest = s.state in STABLE
        containers = self.records.staying_of(s.uuid) if at_rest else self.records.containers_of(s.uuid)
        stack = self.records.stack_name(s)
        running = sum(c.steady for c in containers)
        image = s.definition["image"]
        out: dict[str, Any] = {
            "uuid": s.uuid,
            "resource_uri": uri("service", s.uuid),
            "name": s.name,
            "nickname": s.nickname or s.name,
            "image_name": image,
            "image_tag": image_tag(image),
            "public_dns": model.service_dns(self.settings, s.name, stack),
            "state": s.state,
            "synchronized": self.synchronized(s, containers),
            "deployed_datetime": date(s.deployed),
            "started_datetime": date(s.started),
            "stopped_datetime": date(s.stopped),
            "destroyed_datetime": date(s.destroyed),
            "target_num_containers": s.target,
            "current_num_containers": len(containers),
            "running_num_containers": running,
            "stopped_num_containers": sum(c.state == "Stopped" for c in containers),
            "stack": uri("stack", s.stack) if s.stack else None,
            "container_ports": self.service_ports(s, stack, containers),
            "run_command": s.get("run_command"),
            "entrypoint": s.get("entrypoint"),
            "sequential_deployment": s.get("sequential_deployment"),
            "cpu_shares": s.get("cpu_shares"),
            "memory": s.get("memory"),
            "autorestart": s.get("autorestart"),
            "autodestroy": s.get("autodestroy"),
            "autoredeploy": s.get("autoredeploy"),
            "privileged": s.get("privileged"),
            "deployment_strategy": s.get("deployment_strategy"),
        }
        if listed:
            return out
        network = s.get("network")
        out |= {
            "bindings": [_binding(b) for b in s.get("bindings")],
            "calculated_envvars": self.calculated_envvars(s, stack, containers),
            "container_envvars": [{"key": k, "value": v} for k, v in s.get("container_envvars").items()],
            "containers": [uri("container", c.uuid) for c in containers],
            "healthcheck": s.get("healthcheck"),
            "link_variables": self.world.variables_of(s, s.name),
            "linked_from_service": self.linked_from(s),
            "linked_to_external_service": [],
            "linked_to_service": [
                {"from_service": out["resource_uri"], "name": link["name"], "to_service": link["to_service"]}
                for link in s.get("linked_to_service")
            ],
            "net": network,
            "network": network,
            "pid": s.get("pid"),
            "roles": list(s.get("roles")),
            "tags": [{"name": tag["name"]} for tag in s.get("tags")],
            "working_dir": s.get("working_dir"),
        }
        if s.get("monitor_seconds") is not None:
            out["monitor_seconds"] = s.get("monitor_seconds")
        return out

    def synchronized(self, s: Service, containers: list[Container]) -> bool:
        """Whether the containers match the definition."""
        if not containers:
            return True
        revision = s.revision
        return all(c.revision == revision for c in containers if c.wanted != "gone")

    def service_ports(self, s: Service, stack: str, containers: list[Container]) -> list[dict[str, Any]]:
        host = ""
        out = []
        for port in s.get("container_ports"):
            outer = port.get("outer_port")
            endpoint = None
            if outer is not None:
                host = host or self.service_host(s, stack, containers)
                endpoint = f"{model.scheme(port['protocol'], port['inner_port'])}://{host}:{outer}/"
            out.append(
                {
                    "endpoint_uri": endpoint,
                    "inner_port": port["inner_port"],
                    "outer_port": outer,
                    "port_name": model.port_name(port["protocol"], port["inner_port"]),
                    "protocol": port["protocol"],
                    "published": bool(port.get("published")),
                }
            )
        return out

    def service_host(self, s: Service, stack: str, containers: list[Container]) -> str:
        """The host of a fixed port's endpoint; see `Settings.public_address`."""
        if self.settings.dns_suffix:
            return model.service_dns(self.settings, s.name, stack)
        running = [c for c in containers if c.runs] or containers
        return self.address(running[0].node if running else "")

    def address(self, node: str) -> str:
        """An address at which ports of a node answer, as URIs have it."""
        found = self.records.nodes.get(node)
        known = self.settings.public_address or (found.address if found is not None else "")
        return f"[{known}]" if ":" in known else known or "127.0.0.1"

    def linked_from(self, s: Service) -> list[dict[str, Any]]:
        out = []
        for other_uuid in self.records.linkers.get(s.uuid, ()):
            other = self.records.services[other_uuid]
            for link, target in zip(
                other.get("linked_to_service"), link_targets(other.definition), strict=True
            ):
                if target == s.uuid:
                    out.append(
                        {
                            "from_service": uri("service", other.uuid),
                            "name": link["name"],
                            "to_service": uri("service", s.uuid),
                        }
                    )
        return out

    def calculated_envvars(self, s: Service, stack: str, containers: list[Container]) -> list[dict[str, str]]:
        bridge = s.get("network") != "host"
        roles: dict[str, str] = {}
        if "global" in s.get("roles"):
            roles = environment.role_variables(self.settings, s.token)
        info = next(
            (c.image_info for c in containers if c.image_info and c.image == s.definition["image"]), None
        )
        if info is None and (image := self.records.images.get(s.definition["image"])) is not None:
            info = image.info
        node = environment.node_variables(
            self.settings,
            service=(s.uuid, s.name),
            stack=stack,
            address=environment.LATER if bridge and self.world.overlay else "",
            trigger_body=s.trigger_body,
        )
        return environment.calculated(
            (
                ("user", s.get("container_envvars")),
                ("tutum", node),
                ("role", roles),
                ("image", info.environment if info else {}),
                ("link", self.world.variables_of_links(s.definition, s)),
            )
        )

    # -- containers

    def container(self, c: Container, listed: bool = False) -> dict[str, Any]:
        s = self.records.services.get(c.service)
        stack = self.records.stack_name(s) if s is not None else ""
        info, spec = c.image_info, c.spec
        dns = model.container_dns(self.settings, c.name, stack)
        exit_code, exit_message = last_exit(c)
        out: dict[str, Any] = {
            "uuid": c.uuid,
            "resource_uri": uri("container", c.uuid),
            "name": c.name,
            "public_dns": dns,
            "state": c.state,
            "service": uri("service", c.service),
            "node": uri("node", c.node),
            "image_name": c.image,
            "image_tag": image_tag(c.image),
            "docker_id": c.backend_id or None,
            "private_ip": (c.address or None) if c.get("network") != "host" else None,
            "run_command": c.get("run_command") or (info.run_command if info else "") or "",
            "entrypoint": c.get("entrypoint") or (info.entrypoint if info else "") or "",
            "exit_code": exit_code,
            "exit_code_msg": exit_message,
            "synchronized": s is not None and c.revision == s.revision,
            # Extensions: the action that deployed it, and what its health check says.
            "deployed_by": uri("action", c.deployed_by) if c.deployed_by else None,
            "healthy": c.healthy,
            "health_detail": (c.health_detail or None) if c.runs else None,
            "deployed_datetime": date(c.deployed),
            "started_datetime": date(c.started),
            "stopped_datetime": date(c.stopped),
            "destroyed_datetime": date(c.destroyed),
            "container_ports": self.container_ports(c, dns),
            "cpu_shares": c.get("cpu_shares"),
            "memory": c.get("memory"),
            "autorestart": c.get("autorestart"),
            "autodestroy": c.get("autodestroy"),
            "privileged": c.get("privileged"),
        }
        if listed:
            return out
        network = c.get("network")
        variables = spec.environment if spec else c.get("container_envvars")
        own = self.world.peers(s, name=s.name) if s is not None else []
        me = [p for p in own if p.uuid == c.uuid]
        links = environment.link_variables(self.settings, s.name, me, s.uuid) if s and me else {}
        out |= {
            "bindings": self.container_bindings(c),
            "container_envvars": [{"key": k, "value": v} for k, v in variables.items()],
            "healthcheck": c.get("healthcheck"),
            "last_metric": None,
            "layer": self.layer(info),
            "link_variables": links,
            "linked_to_container": self.linked_to_container(c),
            "net": network,
            "network": network,
            "pid": c.get("pid"),
            "roles": list(c.get("roles")),
            "working_dir": c.get("working_dir") or (info.working_dir if info else "") or "",
        }
        return out

    def container_ports(self, c: Container, dns: str) -> list[dict[str, Any]]:
        host = dns if self.settings.dns_suffix else self.address(c.node)
        ports: list[tuple[str, int, int | None]]
        if c.spec is not None:
            ports = [(p.protocol, p.inner_port, p.outer_port) for p in c.spec.ports]
        else:
            ports = [(p, i, o) for p, i, o in c.outer]
        out = []
        for protocol, inner, outer in ports:
            scheme = model.scheme(protocol, inner)
            out.append(
                {
                    "endpoint_uri": f"{scheme}://{host}:{outer}/" if outer is not None else None,
                    "inner_port": inner,
                    "outer_port": outer,
                    "port_name": model.port_name(protocol, inner),
                    "protocol": protocol,
                    "published": outer is not None,
                    "uri_protocol": scheme,
                }
            )
        return out

    def container_bindings(self, c: Container) -> list[dict[str, Any]]:
        return [
            {
                "container_path": v.container_path,
                "host_path": v.host_path,
                "rewritable": v.rewritable,
                "volume": uri("volume", v.volume) if v.volume else None,
            }
            for v in (c.spec.volumes if c.spec else ())
        ]

    def linked_to_container(self, c: Container) -> list[dict[str, Any]]:
        out = []
        for link in c.spec.links if c.spec else ():
            for ordinal, uuid in link.containers:
                target = self.records.containers.get(uuid)
                if target is None or target.spec is None:
                    continue
                host = target.address or f"{link.name}-{ordinal}"
                endpoints = {
                    f"{p.inner_port}/{p.protocol}": f"{p.protocol}://{host}:{p.inner_port}"
                    for p in target.spec.ports
                }
                out.append(
                    {
                        "endpoints": endpoints,
                        "from_container": uri("container", c.uuid),
                        "name": f"{link.name}_{ordinal}",
                        "to_container": uri("container", uuid),
                    }
                )
        return out

    @staticmethod
    def layer(info: ImageInfo | None) -> dict[str, Any] | None:
        if info is None:
            return None
        return {
            "author": "",
            "creation": None,
            "docker_id": info.id,
            "entrypoint": info.entrypoint,
            "envvars": [{"key": k, "value": v} for k, v in info.environment.items()],
            "labels": {},
            "ports": [{"port": n, "protocol": p} for p, n in info.ports],
            "run_command": info.run_command,
            "volumes": [{"container_path": path} for path in info.volumes],
        }

    # -- the rest

    def action(self, a: Action) -> dict[str, Any]:
        return {
            "uuid": a.uuid,
            "resource_uri": uri("action", a.uuid),
            "object": a.object,
            "action": a.action,
            "method": a.method,
            "path": a.path,
            "user_agent": a.user_agent,
            "start_date": date(a.start),
            "end_date": date(a.end),
            "state": a.state,
            "ip": a.ip,
            "location": "",
            "body": a.body,
            "is_user_action": a.is_user_action,
            "can_be_canceled": can_be_canceled(a),
            "can_be_retried": a.state in ("Failed", "Canceled") and a.verb in RETRIABLE,
            "error": a.error or None,
        }

    def stack(self, s: Stack) -> dict[str, Any]:
        members = [self.records.services[u] for u in self.records.of_stack.get(s.uuid, ())]
        services = [x for x in members if x.state != TERMINATED or s.state == TERMINATED]
        services.sort(key=lambda service: service.seq)
        return {
            "uuid": s.uuid,
            "resource_uri": uri("stack", s.uuid),
            "name": s.name,
            "nickname": s.nickname or s.name,
            "state": s.state,
            "synchronized": all(self.synchronized(x, self.records.containers_of(x.uuid)) for x in services),
            "services": [uri("service", x.uuid) for x in services],
            "deployed_datetime": date(s.deployed),
            "destroyed_datetime": date(s.destroyed),
        }

    def node(self, n: Node) -> dict[str, Any]:
        return {
            "uuid": n.uuid,
            "resource_uri": uri("node", n.uuid),
            "external_fqdn": model.node_dns(self.settings, n.uuid),
            "nickname": n.nickname or n.name,
            "state": n.state,
            "node_cluster": uri("nodecluster", n.cluster),
            "node_type": model.node_type_uri(self.world.backend),
            "region": model.region_uri(self.world.backend),
            "availability_zone": None,
            "docker_version": n.docker_version or None,
            "docker_execdriver": None,
            "docker_graphdriver": None,
            "cpu": n.cpu,
            "memory": n.memory,
            "disk": n.disk,
            "current_num_containers": len(self.records.on_node.get(n.uuid, ())),
            "last_seen": date(n.last_seen),
            "last_metric": None,
            "public_ip": n.address or None,
            "tunnel": None,
            "tags": [{"name": tag} for tag in n.tags],
            "deployed_datetime": date(n.deployed),
            "destroyed_datetime": date(n.destroyed),
        }

    def cluster(self, c: NodeCluster) -> dict[str, Any]:
        nodes = [n for n in self.records.nodes.values() if n.cluster == c.uuid and n.state != "Terminated"]
        return {
            "uuid": c.uuid,
            "resource_uri": uri("nodecluster", c.uuid),
            "name": c.name,
            "nickname": c.name,
            "state": c.state,
            "node_type": c.node_type or model.node_type_uri(self.world.backend),
            "region": c.region or model.region_uri(self.world.backend),
            "disk": c.disk,
            "nodes": [uri("node", n.uuid) for n in nodes],
            "target_num_nodes": c.target,
            "current_num_nodes": len(nodes),
            "tags": [{"name": tag} for tag in c.tags],
            "provider_options": {},
            "deployed_datetime": date(c.deployed),
            "destroyed_datetime": date(c.destroyed),
        }

    def volume(self, v: Volume) -> dict[str, Any]:
        users = [
            uri("container", c.uuid)
            for c in self.records.on_node.get(v.node, {}).values()
            if c.spec and any(m.volume == v.uuid for m in c.spec.volumes)
        ]
        return {
            "uuid": v.uuid,
            "resource_uri": uri("volume", v.uuid),
            "containers": users,
            "node": uri("node", v.node),
            "state": v.state,
            "volume_group": uri("volumegroup", v.group),
        }

    def group(self, g: VolumeGroup) -> dict[str, Any]:
        services = [g.service, *self.records.mounters.get(g.service, ())]
        volumes = [v.uuid for v in self.records.volumes_of.get(g.service, {}).values() if v.group == g.uuid]
        return {
            "uuid": g.uuid,
            "resource_uri": uri("volumegroup", g.uuid),
            "name": g.name,
            "services": [uri("service", u) for u in services],
            "state": g.state,
            "volumes": [uri("volume", u) for u in volumes],
        }

    def trigger(self, t: Trigger) -> dict[str, Any]:
        base = f"{model.API}/service/{t.service}/trigger/{t.uuid}/"
        return {
            "uuid": t.uuid,
            "name": t.name,
            "operation": t.operation,
            "resource_uri": base,
            "url": f"{base}call/",
        }

    def image(self, i: Image) -> dict[str, Any]:
        repository, tag = model.split_image(i.uuid)
        return {
            "name": repository,
            "resource_uri": f"{model.API}/image/{repository}/",
            "base_image": False,
            "cluster_aware": False,
            "description": "",
            "docker_registry": None,
            "image_url": "",
            "imagetag_set": [f"{model.API}/image/{repository}/tag/{tag}/"],
            "is_private_image": False,
            "jumpstart": False,
            "last_build_date": None,
            "public_url": "",
            "starred": False,
        }

    def image_tag(self, i: Image) -> dict[str, Any]:
        repository, tag = model.split_image(i.uuid)
        return {
            "full_name": i.uuid,
            "image": f"{model.API}/image/{repository}/",
            "image_info": None,
            "layer": self.layer(i.info),
            "name": tag,
            "resource_uri": f"{model.API}/image/{repository}/tag/{tag}/",
        }


#: Verbs whose action can be asked for again.
RETRIABLE = frozenset({"start", "stop", "scale", "redeploy", "terminate"})


def render(value: Any) -> bytes:
    """JSON with its keys in alphabetical order."""
    return json.dumps(value, sort_keys=True).encode("ascii")


def can_be_canceled(action: Action) -> bool:
    return action.state == "Pending" or (
        action.state == "In progress" and action.verb in ("start", "scale", "redeploy")
    )


def last_exit(container: Container) -> tuple[int | None, str | None]:
    """A container's `exit_code` and `exit_code_msg`: of its last exit, unless it runs steadily."""
    if container.steady:
        return None, None
    if not container.runs:
        return container.exit_code, model.exit_message(container.exit_code, container.reason)
    code, loop = container.last_exit_code, ""
    if container.looping:
        loop = f"crash loop: {container.restarts} restarts"
    return code, model.exit_message(code, container.last_reason, loop)


def image_tag(image: str) -> str:
    repository, tag = model.split_image(image)
    return f"{model.API}/image/{repository}/tag/{tag}/"


def _binding(binding: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "container_path": binding.get("container_path"),
        "host_path": binding.get("host_path"),
        "rewritable": binding.get("rewritable", True),
        "volumes_from": binding.get("volumes_from"),
    }


def static(kind: str, backend: str, identifier: str | None = None) -> Any:
    """Providers, regions, node types and availability zones: what there is of them is fixed.

    Raises:
        NotFound: no such object.
    """
    api = model.API
    region, node_type = model.region_uri(backend), model.node_type_uri(backend)
    provider = f"{api}/provider/{backend}/"
    shared = {"available": True, "label": backend.capitalize()}
    everything: dict[str, dict[str, dict[str, Any]]] = {
        "provider": {backend: {**shared, "name": backend, "regions": [region], "resource_uri": provider}},
        "region": {
            f"{backend}/{model.REGION}": {
                **shared,
                "availability_zones": [],
                "name": model.REGION,
                "node_types": [node_type],
                "provider": provider,
                "resource_uri": region,
            }
        },
        "nodetype": {
            f"{backend}/{model.NODE_TYPE}": {
                **shared,
                "availability_zones": [],
                "name": model.NODE_TYPE,
                "provider": provider,
                "regions": [region],
                "resource_uri": node_type,
            }
        },
        "az": {},
    }
    found = everything[kind]
    if identifier is None:
        return list(found.values())
    if identifier.strip("/") not in found:
        raise NotFound(f"There is no such {kind}")
    return found[identifier.strip("/")]


STATIC = ("provider", "region", "nodetype", "az")
