# To run it: `pulumi-tutum serve --nodes 3` elsewhere, TUTUM_USER and TUTUM_APIKEY as it shows them, here
#   pulumi stack init dev && pulumi up
"""An agent on every node: a node that comes later gets its container too, and nobody scales by hand."""

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
