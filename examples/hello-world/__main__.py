# To run it: `pulumi-tutum serve` in another terminal, TUTUM_USER and TUTUM_APIKEY as it shows them, here
#   pulumi stack init dev && pulumi up
"""One service with one published port."""

import pulumi

import pulumi_tutum as tutum

hello = tutum.Service(
    "hello",
    image="tutum/hello-world",
    container_ports=[{"protocol": "tcp", "inner_port": 80, "published": True}],
)

pulumi.export("state", hello.state)
pulumi.export("urls", hello.endpoint_uris)
