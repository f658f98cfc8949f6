"""What a program wants of a service, and how far the service is from it. Pure: nothing is asked or sent.

*Inputs* are what check makes of a program's arguments: `schema.INPUTS` and `schema.OPTIONS` in normal form,
and a few hidden entries whose keys begin with `__`. Absent is the default, which the state leaves out. A
*service* is the API's detail object, or the outputs that were made from one (outputs.py), which have the same
names.

The functions stand in the order in which the provider needs them: name and key are chosen, inputs are
compared with those before, the next thing to do is found from what the service is now, and when nothing is
left to do, what is still not as wanted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from typing import Any

from . import lifecycle, schema
from .errors import Problem
from .lifecycle import NOT_RUNNING, PARTLY_RUNNING, RUNNING, STOPPED

#: Hidden inputs. Keys that begin with two underscores are not compared by us. The engine shows them only
#: when they are added, changed or taken away.
URN = "__urn"  # the resource's URN, from the constructor, where the host cannot tell it
DELETE_FIRST = (
    "__delete_before_replace"  # that resource option, from the constructor; kept by old states only
)
#: True when the program gave no name and the service was adopted, so that the name does not look like an
#: automatic one. States of earlier releases have it for each automatic name.
NAME_IS_AUTOMATIC = "__automatic_name"
#: Key of the dict {UNSUPPORTED: type name} that the constructor puts where Pulumi cannot carry a value.
UNSUPPORTED = "__unsupported"
#: Hidden output, there when the last operation failed, so that a job counts as not run: BUT_WAS_GOOD when the
#: inputs in the state are those of the last success (the engine keeps them when an update fails), else True.
FAILED = "__failed"
BUT_WAS_GOOD = "update"

#: How long a container must run before it is up, where neither program nor configuration says so.
MONITOR_SECONDS = 5

#: How many characters of the resource's name an automatic name takes. With the suffix that makes 56; a name
#: may have 63. A service keeps the name that it has, also when an earlier release took 55.
_STEM_LENGTH = 48
_SUFFIX_LENGTH = 7

#: `container_envvars.MODE`, `container_envvars["MODE"]`
_PATH_OF_KEY = re.compile(r'(\w+)(?:\.([^.\[\]]+)|\["([^"]+)"\])')
#: What `questionable` looks at.
_QUESTIONABLE = ("bindings", "cpu_shares", "memory", "network", "pid", "privileged")
#: What decides whether an HTTP health check has a port to ask.
_OF_HEALTH = ("healthcheck", "image", "container_ports", "network")

_ALL_INPUTS = {**schema.INPUTS, **schema.OPTIONS}

#: Inputs that the state has in any case. Absent, the count would be for EVERY_NODE to decide, and
#: `autodestroy` would be that of a job; `ignore_changes` looks for paths in the environment.
_ALWAYS = ("target_num_containers", "autodestroy", "container_envvars")
#: What the inputs are that the state leaves out.
DEFAULTS: dict[str, Any] = {
    name: attribute.default
    for name, attribute in _ALL_INPUTS.items()
    if attribute.default is not None and name not in _ALWAYS
}


# -- check ---------------------------------------------------------------------------------------------------


def problems(declared: Mapping[str, Any]) -> list[Problem]:
    """Everything that is wrong with a program's arguments. Hidden and absent ones are not looked at."""
    marked = [problem for name, value in declared.items() for problem in _unsupported(value, name)]
    found = schema.problems(declared)
    for name, value in declared.items():
        if name.startswith("__") or value is None:
            continue
        if name in schema.OPTIONS:
            if not schema.is_unknown(value):
                found.extend(schema.OPTIONS[name].kind.problems(value, name, True))
        elif name in schema.COMPUTED:
            found.append(Problem(name, "is set by Tutum and cannot be given"))
        elif name not in schema.INPUTS:
            found.append(Problem(name, f"is not an input of a Service; inputs are {', '.join(_ALL_INPUTS)}"))
    found.extend(_job_problems(declared))
    # A mark is no value, so what else is said about it is about us.
    said = tuple(problem.path for problem in marked)
    return marked + [problem for problem in found if not problem.path.startswith(said)]


def _job_problems(declared: Mapping[str, Any]) -> Iterator[Problem]:
    """Rules for jobs, whose containers are expected to end."""
    if declared.get("job") is not True:
        return
    if declared.get("autorestart") == "ALWAYS":
        yield Problem("autorestart", "cannot be ALWAYS with job: its containers are expected to end")
    if declared.get("running") is False:
        yield Problem("running", "cannot be False with job: `up` waits until its containers have ended")
    monitor = declared.get("monitor_seconds")
    if monitor is not None and not schema.is_unknown(monitor) and monitor != 0:
        yield Problem(
            "monitor_seconds", "must be 0 with job, or left out: its containers are expected to end"
        )


def window_problems(monitor_seconds: int, timeout_seconds: float) -> list[Problem]:
    """What is wrong with the window in which a service's containers are watched.

    Args:
        monitor_seconds: what is sent for the service.
        timeout_seconds: of an operation on the service.
    """
    found = list(schema.INPUTS["monitor_seconds"].kind.problems(monitor_seconds, "monitor_seconds", True))
    if not found and monitor_seconds >= timeout_seconds:
        reason = f"must be less than timeout_seconds ({timeout_seconds:g}), not {monitor_seconds}"
        found.append(Problem("monitor_seconds", f"{reason}: an operation would end before it is over"))
    return found


def questionable(olds: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Of new inputs those that not every backend can do, or not every operator allows; as the API has them.

    Nothing of it is secret. What is not known yet is left out.
    """
    found = {}
    for name in _QUESTIONABLE:
        value = inputs.get(name)
        if value is not None and not schema.has_unknown(value):
            default, old = schema.INPUTS[name].default, olds.get(name)
            if not schema.same(name, default, value) and not schema.same(name, old, value):
                found[name] = value
    if not any(binding.get("host_path") for binding in found.get("bindings", ())):
        found.pop("bindings", None)
    return schema.body({**found, **_of_health(olds, inputs)})


def _of_health(olds: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """An HTTP health check with all that it depends on; nothing if that is as before, or not known yet."""
    check = inputs.get("healthcheck")
    if not isinstance(check, Mapping) or "http" not in check:
        return {}
    found = {name: inputs[name] for name in _OF_HEALTH if inputs.get(name) is not None}
    if any(map(schema.has_unknown, found.values())):
        return {}
    return {} if all(schema.same(name, olds.get(name), found.get(name)) for name in _OF_HEALTH) else found


def references(inputs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The services that inputs in normal form refer to: the path of each reference, and the uuid. References
    that are not known yet are left out."""
    for name, key in (("linked_to_service", "to_service"), ("bindings", "volumes_from")):
        entries = inputs.get(name)
        for i, entry in enumerate(entries if isinstance(entries, list) else ()):
            target = entry.get(key) if isinstance(entry, Mapping) else None
            uuid = schema.service_uuid(target) if isinstance(target, str) else None
            if uuid is not None:
                yield f"{name}[{i}].{key}", uuid


def named_links(links: Any, name_of: Callable[[str], str | None]) -> Any:
    """Links in normal form, each with a name where its target's is known. A name that is taken is not given
    again: then Tutum decides.

    Args:
        name_of: uuid of a service -> the name that a link to it has.
    """
    if not isinstance(links, list):
        return links
    taken = {str(link["name"]).lower() for link in links if isinstance(link, Mapping) and link.get("name")}
    named = []
    for link in links:
        if isinstance(link, Mapping) and link.get("name") is None:
            target = link.get("to_service")
            uuid = schema.service_uuid(target) if isinstance(target, str) else None
            name = name_of(uuid) if uuid is not None else None
            if name is not None and name.lower() not in taken:
                taken.add(name.lower())
                link = {**link, "name": name}
        named.append(link)
    return named


def earlier_name(olds: Mapping[str, Any], links: Any, uuid: str) -> str | None:
    """The name that a link to a service has had, where the inputs before leave no doubt.

    Args:
        olds: the inputs before.
        links: the new ones. A name that one of them has is not the one of another.
    """
    uri = schema.service_uri(uuid)

    def names(entries: Any) -> list[str]:
        found = entries if isinstance(entries, list) else []
        links = [link for link in found if isinstance(link, Mapping)]
        to_it = [link for link in links if link.get("to_service") == uri]
        return [link["name"] for link in to_it if isinstance(link.get("name"), str)]

    left = [name for name in names(olds.get("linked_to_service")) if name not in names(links)]
    return left[0] if len(left) == 1 else None


def _unsupported(value: Any, path: str) -> Iterator[Problem]:
    """Values that the constructor could not hand over, at any depth."""
    if isinstance(value, Mapping):
        if UNSUPPORTED in value:
            yield Problem(path, f"cannot be of type {value[UNSUPPORTED]}")
        for key, item in value.items():
            yield from _unsupported(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _unsupported(item, f"{path}[{i}]")


def normal(declared: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs for a program's valid arguments: normal forms, and defaults where nothing was given."""
    inputs = schema.normal(declared)
    for name, option in schema.OPTIONS.items():
        value = declared.get(name)
        if value is None:
            value = option.default
        elif not schema.is_unknown(value):
            value = option.kind.normal(value)
        if value is not None:
            inputs[name] = value
    if is_job(inputs) and declared.get("autodestroy") is None:
        inputs["autodestroy"] = "ON_SUCCESS"
    return inputs


def terse(bag: Mapping[str, Any], before: Container[str] = ()) -> dict[str, Any]:
    """A bag of properties without the inputs that have their defaults.

    Args:
        before: names that stay all the same. The state of an earlier release has the defaults, too; the
            engine would show that they go.
    """
    return {
        name: value
        for name, value in bag.items()
        if name not in DEFAULTS or name in before or schema.is_unknown(value) or value != DEFAULTS[name]
    }


def is_job(inputs: Mapping[str, Any]) -> bool:
    """Whether the containers are expected to end."""
    return inputs.get("job") is True


def monitor_seconds(inputs: Mapping[str, Any], configured: int | None, timeout_seconds: float) -> int:
    """How long a container of the service must run before it is up.

    Args:
        configured: config `tutum:monitorSeconds`; None: not given.
        timeout_seconds: of an operation on the service. The default window takes at most half of it.
    """
    if is_job(inputs):
        return 0
    own = inputs.get("monitor_seconds")
    if isinstance(own, (int, float)):
        return int(own)
    if configured is not None:
        return configured
    return min(MONITOR_SECONDS, int(timeout_seconds // 2))


def create_key(urn: str, namespace: str = "", replaced: str = "") -> str:
    """The key under which a resource's service is made once (docs/made-once.md): 64 hex digits.

    Args:
        urn: has project and stack in it, too.
        namespace: config `tutum:namespace`.
        replaced: id of the service that still exists while this one, its replacement, is made.
    """
    return hashlib.sha256("\0".join((urn, namespace, replaced)).encode()).hexdigest()


def automatic_name(urn: str, key: str) -> str:
    """The name of a service whose program gives none: the resource's name and the beginning of its create
    key."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "-", urn.split("::", 3)[-1]).lstrip("-_")[:_STEM_LENGTH]
    return f"{stem or 'service'}-{key[:_SUFFIX_LENGTH]}"


def has_automatic_name(inputs: Mapping[str, Any]) -> bool:
    """Whether checked inputs have a name that the program did not give, as far as they tell."""
    looks_automatic = re.fullmatch(rf".+-[0-9a-f]{{{_SUFFIX_LENGTH}}}", str(inputs.get("name")))
    return bool(inputs.get(NAME_IS_AUTOMATIC) or looks_automatic)


# -- diff ----------------------------------------------------------------------------------------------------


def visible(bag: Mapping[str, Any]) -> dict[str, Any]:
    """A bag of properties without the hidden ones."""
    return {name: value for name, value in bag.items() if not name.startswith("__")}


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Which inputs differ, and what each needs: one of schema's words; options need no request (PATCH).

    Args:
        old: inputs, or outputs. A name that `new` does not have is the old one.
    """
    if new.get("name") is None:
        new = {**new, "name": old.get("name")}
    found = schema.changes(old, new)
    for name, option in schema.OPTIONS.items():
        before, after = (option.default if bag.get(name) is None else bag[name] for bag in (old, new))
        if name != "adopt" and (schema.is_unknown(after) or before != after):
            found[name] = schema.PATCH
    return found


def disturbed(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    """What an update changes: names of inputs, and schema.CONTAINERS if it may start, stop or replace some.

    Args:
        old: the outputs in the state.
        new: the inputs.
    """
    found = set(changes(old, new))
    moving = {name for name in found if name in schema.INPUTS and schema.INPUTS[name].change != schema.PATCH}
    if new.get("deployment_strategy") == schema.EVERY_NODE:
        moving |= found & {"tags"}  # they decide how many nodes there are
    if moving or "running" in found or not _is_settled(old, new):
        found.add(schema.CONTAINERS)
    return found


def _is_settled(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether an update finds nothing to start, stop or repair (which it does with `wait=False`, too)."""
    state = old.get("state")
    if state not in lifecycle.STABLE or old.get(FAILED):
        return False
    if is_job(new) and state in (RUNNING, PARTLY_RUNNING):
        return False  # the update waits for its end
    return not faults(old, {**new, "wait": True}) and next_action(old, new) is None


def ignore(inputs: dict[str, Any], ignored: Collection[str], found: Mapping[str, Any]) -> None:
    """Makes those inputs whose changes the program ignores what they are found to be.

    Args:
        ignored: paths of the resource option `ignore_changes`. The engine has seen to changes in the program,
            at any depth; left is what somebody else has changed, which it does not know. (In lists, whose
            places say nothing about what somebody else has put there, that is not left to him.)
    """
    for name in schema.INPUTS:
        if name in ignored or "*" in ignored:
            _leave(inputs, name, found)
    for match in filter(None, map(_PATH_OF_KEY.fullmatch, ignored)):
        name, key = match[1], match[2] or match[3]
        if isinstance(inputs.get(name), Mapping) and isinstance(found.get(name), Mapping):
            inputs[name] = dict(inputs[name])
            _leave(inputs[name], key, found[name])


def _leave(bag: dict[str, Any], key: str, found: Mapping[str, Any]) -> None:
    bag.pop(key, None)
    if found.get(key) is not None:
        bag[key] = found[key]


def replaced(changed: Mapping[str, str]) -> list[str]:
    """The names among `changes` for which the service has to be replaced."""
    return [name for name, needs in changed.items() if needs == schema.REPLACE]


def cannot_stand_side_by_side(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether both services would need the same thing, so that the old one has to be deleted first."""
    given = not new.get(NAME_IS_AUTOMATIC)
    return (given and new.get("name") in (None, old.get("name"))) or _is_exclusive(old) or _is_exclusive(new)


def _is_exclusive(inputs: Mapping[str, Any]) -> bool:
    """Whether a service holds something of a node that another one cannot have at the same time."""

    def any_has(name: str, key: str) -> bool:
        entries = inputs.get(name)
        return isinstance(entries, list) and any(
            isinstance(e, Mapping) and e.get(key) is not None for e in entries
        )

    return (
        inputs.get("network") == "host"
        or any_has("container_ports", "outer_port")
        or any_has("bindings", "host_path")
    )


def volume_paths(service: Mapping[str, Any]) -> list[str]:
    """Where its bindings mount volumes of the service's own, which end with it."""
    entries = service.get("bindings")
    found = []
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and not (entry.get("host_path") or entry.get("volumes_from")):
            path = entry.get("container_path")
            if isinstance(path, str) and path:
                found.append(path)
    return found


# -- update --------------------------------------------------------------------------------------------------


def definition(service: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The service's inputs as they are, each in the declared spelling where that means the same."""
    seen = schema.observed(service)
    found = {
        name: schema.declared_or_observed(name, inputs.get(name), seen.get(name)) for name in schema.INPUTS
    }
    return {name: value for name, value in found.items() if value is not None}


def differences(service: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, str]:
    """Like `changes`, from what the service is to what is wanted; options do not count."""
    found = changes(definition(service, inputs), inputs)
    return {name: needs for name, needs in found.items() if name in schema.INPUTS}


def target(inputs: Mapping[str, Any]) -> int | None:
    """How many containers are wanted; None for EVERY_NODE, which decides itself."""
    if inputs.get("deployment_strategy") == schema.EVERY_NODE:
        return None
    wanted = inputs.get("target_num_containers")
    return int(wanted) if isinstance(wanted, (int, float)) else schema.INPUTS["target_num_containers"].default


def next_action(
    service: Mapping[str, Any],
    inputs: Mapping[str, Any],
    changed: Collection[str] = (),
    done: Sequence[str] = (),
    *,
    again: bool = False,
) -> str | None:
    """What to ask of a service in a stable state, whose definition is as wanted; None when there is nothing.

    Args:
        changed: the attributes that this operation has changed.
        done: the actions that it has asked for, in order. After a start or redeploy only a scale may follow:
            what those could not bring up, a second one does not either.
        again: the last operation failed, so that a job that seems to have finished has not.
    """
    state, wanted = service.get("state"), target(inputs)
    if inputs.get("running") is False:
        return "stop" if state in (RUNNING, PARTLY_RUNNING) and not done else None
    if is_job(inputs):
        return _next_of_job(service, inputs, changed, done, again=again)
    if "scale" in done:
        return None
    current, stopped = _count(service, "current"), _count(service, "stopped")
    if wanted == 0:
        return "scale" if state in (RUNNING, PARTLY_RUNNING) and current else None
    if not ("start" in done or "redeploy" in done):
        if state == NOT_RUNNING:
            remade = again or any(schema.INPUTS[name].change == schema.REDEPLOY for name in changed)
            return "start" if remade or not has_finished(service, inputs) else None
        if service.get("synchronized") is False:
            return "redeploy"
        # With as many as are wanted, and none stopped, a scale that failed or a lack of health is the reason.
        if state == STOPPED or (state == PARTLY_RUNNING and (stopped or wanted in (None, current))):
            return "start"
    if wanted is None or stopped or state not in (RUNNING, PARTLY_RUNNING):
        return None
    if current < wanted and may_finish(inputs) and not again and "target_num_containers" not in changed:
        return None  # those that are missing have done their work
    return "scale" if current != wanted else None


def _next_of_job(
    service: Mapping[str, Any],
    inputs: Mapping[str, Any],
    changed: Collection[str],
    done: Sequence[str],
    *,
    again: bool,
) -> str | None:
    """`next_action` of a job: it runs once for each definition of its containers, and again when it has
    failed."""
    if done:
        return None
    state, wanted, current = service.get("state"), target(inputs), _count(service, "current")
    is_alive = state in (RUNNING, PARTLY_RUNNING)
    if wanted == 0:
        return "scale" if is_alive and current else None
    if service.get("synchronized") is False and state != NOT_RUNNING:
        return "redeploy"
    if is_alive:
        is_resized = "target_num_containers" in changed and current != wanted
        return "scale" if is_resized and wanted is not None else None
    if state == NOT_RUNNING:
        remade = any(schema.INPUTS[name].change == schema.REDEPLOY for name in changed)
        return "start" if again or remade or not has_finished(service, inputs) else None
    return "start" if again or _has_failed_exits(service, inputs) else None


def _has_failed_exits(service: Mapping[str, Any], inputs: Mapping[str, Any]) -> bool:
    """Whether the containers that are left of a job show that it failed: successful ones would be gone."""
    return service.get("state") == STOPPED and inputs.get("autodestroy") == "ON_SUCCESS"


def may_finish(inputs: Mapping[str, Any]) -> bool:
    """Whether the service may be a job: it is one, or containers that exit are destroyed."""
    return is_job(inputs) or bool(inputs.get("autodestroy", "OFF") != "OFF")


def has_finished(service: Mapping[str, Any], inputs: Mapping[str, Any]) -> bool:
    """Whether the service looks like a job that has been run: it deployed, and what exited was destroyed."""
    deployed = service.get("deployed_datetime") is not None
    return may_finish(inputs) and deployed and not _count(service, "stopped")


def faults(
    service: Mapping[str, Any],
    inputs: Mapping[str, Any],
    containers: Sequence[Mapping[str, Any]] | None = None,
) -> list[str]:
    """What is not as wanted of a service, in words; empty when all is. With `wait=False` nothing is looked
    at.

    Args:
        containers: those that this operation has deployed, in list shape, also those that are gone: proof
            that a job has finished well. None: there is no proof, so the looks decide.
    """
    if inputs.get("wait") is False:
        return []
    state = str(service.get("state"))
    if inputs.get("running") is False:
        return [] if state in (STOPPED, NOT_RUNNING) else [f"it is {state}, and should be stopped"]
    wanted, running, current = target(inputs), _count(service, "running"), _count(service, "current")
    if is_job(inputs) and wanted != 0:
        return _job_faults(service, inputs, containers)
    if wanted == 0:
        settled = state in lifecycle.STABLE and not (state in (RUNNING, PARTLY_RUNNING) and current)
        return (
            []
            if settled
            else [f"it is {state} with {lifecycle.containers_text(current)}, and should have none"]
        )
    finished = state in (NOT_RUNNING, PARTLY_RUNNING) and has_finished(service, inputs)
    found = []
    if finished and containers is not None:
        found += [_exit(container) for container in failed_exits(containers)]
        finished = bool(containers) and not found
    if state != RUNNING and not finished:
        of = "" if wanted is None else f"/{wanted}"
        found.insert(0, f"it is {state}: {running}{of} containers running")
    elif wanted is not None and (current > wanted or (current < wanted and not finished)):
        found.append(f"it has {lifecycle.containers_text(current)}, and should have {wanted}")
    if service.get("synchronized") is False and current:
        found.append("its containers are not those of its definition")
    return found


def _job_faults(
    service: Mapping[str, Any], inputs: Mapping[str, Any], containers: Sequence[Mapping[str, Any]] | None
) -> list[str]:
    """`faults` of a job. One that is still running is as wanted."""
    state = str(service.get("state"))
    if state in (RUNNING, PARTLY_RUNNING):
        return []
    if state not in (STOPPED, NOT_RUNNING):
        return [f"it is {state}, and should have finished"]
    if containers is not None:
        exits = [_exit(container) for container in failed_exits(containers)]
        return exits if exits or containers else ["its containers have not run"]
    if not has_finished(service, inputs) and state == NOT_RUNNING:
        return ["it has not been run"]
    if _has_failed_exits(service, inputs):
        return ["it has failed: containers that had succeeded would be gone"]
    return []


def _exit(container: Mapping[str, Any]) -> str:
    return f"container {container.get('name')} exited with code {container['exit_code']}"


def failed_exits(containers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The containers that exited with another code than 0; of several with one name the last one counts."""
    newest = {container.get("name"): container for container in containers}
    return [container for container in newest.values() if container.get("exit_code") not in (None, 0)]


def _count(service: Mapping[str, Any], which: str) -> int:
    value = service.get(f"{which}_num_containers")
    return int(value) if isinstance(value, (int, float)) else 0
