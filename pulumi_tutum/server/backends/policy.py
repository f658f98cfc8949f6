"""What the operator lets services ask of their machine: nothing, unless `--allow` says so.

  privileged            `privileged: true`
  host-path[=/folder]   a `host_path` in bindings; with a folder, only that folder and what is below it. May
                        be repeated
  host-pid              `pid: host`
  host-network          `network: host`

A path is compared as it is written: whoever can make symbolic links in an allowed folder of the host can lead
out of it."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import ConfigError, Problem

ALLOWANCES = ("privileged", "host-path", "host-pid", "host-network")


@dataclass(frozen=True)
class Policy:
    """See the module's docstring.

    Attributes:
        allowed: those of ALLOWANCES that are allowed.
        folders: below which host paths must be; empty: anywhere.
    """

    allowed: frozenset[str] = frozenset()
    folders: tuple[str, ...] = ()

    @classmethod
    def parse(cls, words: Iterable[str]) -> Policy:
        """What `--allow` was given; each word may hold several, separated by commas.

        Raises:
            ConfigError: it names something that cannot be allowed.
        """
        allowed: set[str] = set()
        folders: list[str] = []
        anywhere = False
        for word in (part.strip() for given in words for part in given.split(",")):
            if not word:
                continue
            name, has_value, value = word.partition("=")
            if name not in ALLOWANCES or (has_value and (name != "host-path" or not value.startswith("/"))):
                raise ConfigError(
                    f"--allow {word}: give one of {', '.join(ALLOWANCES)}, or host-path=/folder"
                )
            allowed.add(name)
            if name == "host-path":
                anywhere = anywhere or not has_value
                folders += [posixpath.normpath(value)] if has_value else []
        return cls(frozenset(allowed), () if anywhere else tuple(folders))

    def refuse(self, definition: Mapping[str, Any]) -> Iterator[Problem]:
        """What of a service's definition is not allowed."""
        if definition.get("privileged") and "privileged" not in self.allowed:
            yield _problem("privileged", "privileged")
        if definition.get("pid") == "host" and "host-pid" not in self.allowed:
            yield _problem("pid", "host-pid")
        if definition.get("network") == "host" and "host-network" not in self.allowed:
            yield _problem("network", "host-network")
        for index, binding in enumerate(definition.get("bindings") or ()):
            path = binding.get("host_path")
            if not path:
                continue
            where = f"bindings[{index}].host_path"
            if "host-path" not in self.allowed or (
                self.folders and not any(_below(path, folder) for folder in self.folders)
            ):
                yield _problem(where, f"host-path={posixpath.normpath(path)}")


def _problem(path: str, allowance: str) -> Problem:
    name = allowance.partition("=")[0]
    return Problem(path, f"not allowed by the operator's policy {name} (serve --allow {allowance})")


def _below(path: str, folder: str) -> bool:
    path = posixpath.normpath(path)
    return path == folder or path.startswith(folder.rstrip("/") + "/")
