# How to run: `pulumi-tutum serve --nodes 3` in another terminal, TUTUM_USER and TUTUM_APIKEY as it shows them, then here
#   pulumi stack init dev && pulumi up
"""An agent on every node: the control plane adds a container when a node comes, and nobody scales it by hand."""

import pulumi

import pulumi_tutum as tutum

agent = tutum.Service(
    "agent",
    image="tutum/logrotate:latest",
    deployment_strategy="EVERY_NODE",
    autorestart="ALWAYS",
    container_envvars={"CROND_PERIOD": "hourly"},
)

pulumi.export("containers", agent.containers)
pulumi.export("running", agent.running_num_containers)
