"""Stackfile keys (tutum.yml, docker-cloud.yml) to service attributes, and back (tutum-api.md, section 9).
Pure.

A stack's service may be written with the API's keys, with the stackfile's, or with both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import BadRequest

_RESTART = {
    "no": "OFF",
    "off": "OFF",
    "on-failure": "ON_FAILURE",
    "on_failure": "ON_FAILURE",
    "always": "ALWAYS",
}
_AUTODESTROY = {
    "no": "OFF",
    "off": "OFF",
    "on-success": "ON_SUCCESS",
    "on_success": "ON_SUCCESS",
    "always": "ALWAYS",
}
_TRANSLATED = frozenset(
    {"command", "environment", "ports", "expose", "links", "volumes", "volumes_from", "restart", "mem_limit"}
)
_UNSUPPORTED = ("build", "external_links", "env_file")


def to_attributes(definition: Mapping[str, Any]) -> dict[str, Any]:
    """The API's keys for a service as a stackfile writes it. What is in the API's form already passes
    through.

    Raises:
        BadRequest: a key that cannot be translated; the text names it.
    """
    for key in _UNSUPPORTED:
        if definition.get(key) is not None:
            raise BadRequest(f"{key}: is not supported in stack files here")
    out: dict[str, Any] = {}
    for key, value in definition.items():
        if key not in _TRANSLATED:
            out[key] = value
    if definition.get("command") is not None:
        out.setdefault("run_command", _command(definition["command"]))
    if definition.get("entrypoint") is not None:
        out["entrypoint"] = _command(definition["entrypoint"])
    if definition.get("environment") is not None:
        out["container_envvars"] = _environment(definition["environment"])
    ports = _list(definition, "ports") + _list(definition, "expose")
    if ports:
        entries = [_port(p) for p in _list(definition, "ports")] + [
            _exposed(p) for p in _list(definition, "expose")
        ]
        out["container_ports"] = [*(out.get("container_ports") or []), *_unique_ports(entries)]
    if _list(definition, "links"):
        out["linked_to_service"] = [
            *(out.get("linked_to_service") or []),
            *map(_link, _list(definition, "links")),
        ]
    bindings = [_volume(v) for v in _list(definition, "volumes")]
    bindings += [{"volumes_from": _word(v, "volumes_from")} for v in _list(definition, "volumes_from")]
    if bindings:
        out["bindings"] = [*(out.get("bindings") or []), *bindings]
    if "restart" in definition:
        out["autorestart"] = definition["restart"]
    for key, words in (("autorestart", _RESTART), ("autodestroy", _AUTODESTROY)):
        if out.get(key) is not None:
            out[key] = _choice(out[key], words)
    if isinstance(out.get("deployment_strategy"), str):
        out["deployment_strategy"] = out["deployment_strategy"].upper()
    if definition.get("mem_limit") is not None:
        out["memory"] = megabytes(definition["mem_limit"])
    return out


def _list(definition: Mapping[str, Any], key: str) -> list[Any]:
    value = definition.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRequest(f"{key}: must be a list")
    return value


def _word(value: Any, key: str) -> str:
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise BadRequest(f"{key}: must be a string")
    return str(value)


def _command(value: Any) -> str:
    import shlex

    if isinstance(value, list):
        return shlex.join(_word(word, "command") for word in value)
    return _word(value, "command")


def _environment(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, Mapping):
        return [{"key": str(k), "value": "" if v is None else _text(v)} for k, v in value.items()]
    if not isinstance(value, list):
        raise BadRequest("environment: must be an object or a list of KEY=value")
    out: list[dict[str, Any]] = []
    for entry in value:
        if isinstance(entry, Mapping):
            out.append(dict(entry))
        else:
            key, _, text = _word(entry, "environment").partition("=")
            out.append({"key": key, "value": text})
    return out


def _text(value: Any) -> Any:
    # YAML reads yes and no as booleans; in a variable they were meant as words.
    return str(value).lower() if isinstance(value, bool) else value


_PORT = re.compile(r"(?:(?P<outer>\d{1,5}):)?(?P<inner>\d{1,5})(?:/(?P<protocol>tcp|udp))?")


def _port(value: Any) -> dict[str, Any]:
    match = _PORT.fullmatch(_word(value, "ports"))
    if match is None:
        raise BadRequest('ports: must be like "8080:80", "80" or "53:53/udp"')
    port: dict[str, Any] = {
        "protocol": match["protocol"] or "tcp",
        "inner_port": int(match["inner"]),
        "published": True,
    }
    if match["outer"]:
        port["outer_port"] = int(match["outer"])
    return port


def _exposed(value: Any) -> dict[str, Any]:
    match = _PORT.fullmatch(_word(value, "expose"))
    if match is None or match["outer"]:
        raise BadRequest('expose: must be like "80" or "90/udp"')
    return {"protocol": match["protocol"] or "tcp", "inner_port": int(match["inner"]), "published": False}


def _unique_ports(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A port that is published and exposed is published."""
    published = {(e["protocol"], e["inner_port"]) for e in entries if e["published"]}
    return [e for e in entries if e["published"] or (e["protocol"], e["inner_port"]) not in published]


def _link(value: Any) -> dict[str, Any]:
    target, _, alias = _word(value, "links").partition(":")
    return {"to_service": target, "name": alias or target.split(".", 1)[0]}


def _volume(value: Any) -> dict[str, Any]:
    parts = _word(value, "volumes").split(":")
    if len(parts) > 3 or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
        raise BadRequest('volumes: must be like "/inside", "/host:/inside" or "/host:/inside:ro"')
    binding: dict[str, Any] = {"container_path": parts[-1] if len(parts) < 3 else parts[1]}
    if len(parts) > 1:
        binding["host_path"] = parts[0]
    if len(parts) == 3:
        binding["rewritable"] = parts[2] == "rw"
    return binding


def _choice(value: Any, words: Mapping[str, str]) -> Any:
    if value is False:
        return "OFF"
    return words.get(value.lower(), value) if isinstance(value, str) else value


_SIZE = re.compile(r"(\d{1,15})\s*([bkmg]?)b?", re.IGNORECASE)
_UNITS = {"": 1 / 1048576, "b": 1 / 1048576, "k": 1 / 1024, "m": 1, "g": 1024}


def megabytes(value: Any) -> int:
    """A size as Docker writes it (`512m`, `1g`, bytes as a number) in MB."""
    match = _SIZE.fullmatch(str(value).strip()) if not isinstance(value, bool) else None
    if match is None:
        raise BadRequest("mem_limit: must be a size like 512m or 1g")
    return int(int(match[1]) * _UNITS[match[2].lower()])


def to_stackfile(detail: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A service's detail object as a stackfile writes it: what has its default is left out.

    Args:
        names: resource URI of a service to its name, `name.stack` for one of another stack.
    """
    out: dict[str, Any] = {"image": detail["image_name"]}
    if detail.get("run_command"):
        out["command"] = detail["run_command"]
    for key in ("entrypoint", "working_dir", "cpu_shares"):
        if detail.get(key):
            out[key] = detail[key]
    for key in ("privileged", "sequential_deployment", "autoredeploy"):
        if detail.get(key):
            out[key] = True
    if detail.get("container_envvars"):
        out["environment"] = [f"{e['key']}={e['value']}" for e in detail["container_envvars"]]
    ports = [_write_port(p) for p in detail.get("container_ports", ()) if p["published"]]
    expose = [_write_port(p) for p in detail.get("container_ports", ()) if not p["published"]]
    links = [
        f"{names.get(x['to_service'], x['to_service'])}:{x['name']}"
        for x in detail.get("linked_to_service", ())
    ]
    bindings = detail.get("bindings", ())
    volumes = [_write_volume(b) for b in bindings if not b["volumes_from"]]
    volumes_from = [names.get(b["volumes_from"], b["volumes_from"]) for b in bindings if b["volumes_from"]]
    tags = [tag["name"] for tag in detail.get("tags", ())]
    for key, found in (
        ("ports", ports),
        ("expose", expose),
        ("links", links),
        ("volumes", volumes),
        ("volumes_from", volumes_from),
        ("tags", tags),
        ("roles", list(detail.get("roles", ()))),
    ):
        if found:
            out[key] = found
    for key, name in (("autorestart", "restart"), ("autodestroy", "autodestroy")):
        if detail.get(key, "OFF") != "OFF":
            out[name] = detail[key].lower().replace("_", "-")
    if detail.get("deployment_strategy", "EMPTIEST_NODE") != "EMPTIEST_NODE":
        out["deployment_strategy"] = detail["deployment_strategy"].lower()
    if detail.get("target_num_containers") not in (None, 1):
        out["target_num_containers"] = detail["target_num_containers"]
    if detail.get("memory"):
        out["mem_limit"] = f"{detail['memory']}m"
    for key, default in (("net", "bridge"), ("pid", "none")):
        if detail.get(key, default) != default:
            out[key] = detail[key]
    return out


def _write_port(port: Mapping[str, Any]) -> str:
    outer = f"{port['outer_port']}:" if port["outer_port"] is not None else ""
    return f"{outer}{port['inner_port']}" + ("/udp" if port["protocol"] == "udp" else "")


def _write_volume(binding: Mapping[str, Any]) -> str:
    if not binding["host_path"]:
        return str(binding["container_path"])
    return f"{binding['host_path']}:{binding['container_path']}" + ("" if binding["rewritable"] else ":ro")
