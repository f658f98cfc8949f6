# To run it: `pulumi-tutum serve` in another terminal, TUTUM_USER and TUTUM_APIKEY as it shows them, here
#   pulumi stack init dev && pulumi up
"""A job: containers that do their work and end.

`job=True` makes it one. `pulumi up` waits until the containers have ended: exit code 0 is success. Any other
exit code fails the run, and the container stays, so that its output can be read. The job runs again when its
definition changes, and not with every `up`.
"""

import pulumi

import pulumi_tutum as tutum

db = tutum.Service("db", image="tutum/postgresql:latest")

migrate = tutum.Service(
    "migrate",
    image="acme/migrate:1.4",
    run_command="migrate --database DB up",
    linked_to_service=[{"to_service": db, "name": "DB"}],
    job=True,
    # A simulated container ends only if it is told to; real ones do not care about these.
    container_envvars={"SIMULATE_EXIT": "0", "SIMULATE_EXIT_AFTER": "0.5"},
)

web = tutum.Service(
    "web",
    image="acme/web:1.4",
    container_ports=[{"protocol": "tcp", "inner_port": 80, "published": True}],
    linked_to_service=[{"to_service": db, "name": "DB"}],
    opts=pulumi.ResourceOptions(depends_on=[migrate]),
)

pulumi.export("urls", web.endpoint_uris)
