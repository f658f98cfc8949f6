"""Prints what `host.engine_with_hooks` says before and after the SDK has learned what the engine can do."""

from pulumi.runtime import settings
from pulumi.runtime.proto import resource_pb2

from pulumi_tutum import host


class Engine:
    """Stands for the SDK's connection to an engine."""


engine = Engine()
settings.configure(settings.Settings(project="probe", stack="dev", monitor=engine))
print(host.engine_with_hooks())
run = settings.SETTINGS
if hasattr(run, "feature_support"):
    run.feature_support["resourceHooks"] = True
else:
    run.monitor_features = {resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_HOOKS}
print(host.engine_with_hooks() is engine)
