"""Tutum's service model, declared in Python.

    import pulumi_tutum as tutum

    db = tutum.Service("db", image="tutum/mysql:5.6", container_envvars={"MYSQL_PASS": password})
    web = tutum.Service("web", image="tutum/wordpress", linked_to_service=[{"to_service": db}])

`Service` is the resource, `Provider` a second account, `get_service` a look at what exists, `Client` the
plain API.
"""

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
