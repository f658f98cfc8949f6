# To run it: `pulumi-tutum serve` in another terminal, TUTUM_USER and TUTUM_APIKEY as it shows them, here
#   pulumi stack init dev && pulumi up && pulumi config set version 2 && pulumi up
"""A rolling redeploy: one container after another, each has to be healthy before the next one is replaced.

With a health check, running means healthy: `pulumi up` waits for it. A version that does not get healthy
stops at the first container and fails the run; `rollback_on_failure` then brings the last good version back.
"""

import pulumi

import pulumi_tutum as tutum

config = pulumi.Config()

web = tutum.Service(
    "web",
    image=f"acme/web:{config.require('version')}",
    target_num_containers=3,
    container_ports=[{"protocol": "tcp", "inner_port": 80, "published": True}],
    healthcheck={"http": "/health", "interval_seconds": 1, "retries": 3},
    sequential_deployment=True,
    rollback_on_failure=True,
)

pulumi.export("image", web.image_name)
pulumi.export("urls", web.endpoint_uris)
