"""Tutum's service model, declared in Python.

    import pulumi_tutum as tutum

    db = tutum.Service("db", image="tutum/mysql:5.6", container_envvars={"MYSQL_PASS": password})
    web = tutum.Service("web", image="tutum/wordpress", linked_to_service=[{"to_service": db}])

`Service` is the resource, `Provider` a second account, `get_service` a look at what exists, `Client` the
plain API.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

from .client import Client
from .errors import (
    ApiError,
    AuthError,
    BadRequest,
    ConfigError,
    Conflict,
    NotFound,
    StreamError,
    TransportError,
    TutumError,
    ValidationError,
    WaitError,
)

if TYPE_CHECKING:
    from .resource import (
        Binding,
        BindingArgs,
        ContainerPort,
        ContainerPortArgs,
        EnvVarArgs,
        Healthcheck,
        HealthcheckArgs,
        Link,
        LinkArgs,
        Provider,
        Service,
        ServiceDetails,
        Tag,
        TagArgs,
        get_service,
    )
else:

    def __getattr__(name: str) -> object:
        """The program's side, at first use: it brings pulumi along, which the control plane and the command
        line do without (they start twice as fast, and need half the memory)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from . import resource

        found = globals()[name] = getattr(resource, name)
        return found


__all__ = [
    "ApiError",
    "AuthError",
    "BadRequest",
    "Binding",
    "BindingArgs",
    "Client",
    "ConfigError",
    "Conflict",
    "ContainerPort",
    "ContainerPortArgs",
    "EnvVarArgs",
    "Healthcheck",
    "HealthcheckArgs",
    "Link",
    "LinkArgs",
    "NotFound",
    "Provider",
    "Service",
    "ServiceDetails",
    "StreamError",
    "Tag",
    "TagArgs",
    "TransportError",
    "TutumError",
    "ValidationError",
    "WaitError",
    "get_service",
]
