# To run it: `pulumi-tutum serve` in another terminal, TUTUM_USER and TUTUM_APIKEY as it shows them, here
#   pulumi stack init dev && pulumi config set --secret dbPassword <password> && pulumi up
"""WordPress linked to MySQL, as in Tutum's own documentation.

MySQL has no published port: only services that link to it reach it, under the link's name, `DB`. WordPress
publishes port 80 without choosing the outer port, so that any number of its containers fit on any number of
nodes.
"""

import pulumi

import pulumi_tutum as tutum

config = pulumi.Config()
tags = config.get_object("nodeTags") or []

db = tutum.Service(
    "db",
    image="tutum/mysql:5.6",
    container_envvars={"MYSQL_PASS": config.require_secret("dbPassword")},
    autorestart="ON_FAILURE",
    tags=tags,
)

web = tutum.Service(
    "web",
    image="tutum/wordpress-stackable:latest",
    target_num_containers=config.require_int("webContainers"),
    container_ports=[{"protocol": "tcp", "inner_port": 80, "published": True}],
    linked_to_service=[{"to_service": db, "name": "DB"}],
    autorestart="ON_FAILURE",
    tags=tags,
)

pulumi.export("urls", web.endpoint_uris)
pulumi.export("state", web.state)
pulumi.export("web", web.name)
pulumi.export("db", db.name)
