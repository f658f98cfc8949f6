# To run it: `pulumi-tutum serve` in another terminal, TUTUM_USER and TUTUM_APIKEY as it shows them, here
#   pulumi stack init dev && pulumi up
"""A service with a volume, and a second one that mounts it read-only.

The volume outlives redeploys of its service and goes with the service. A change of `bindings` replaces a
service, so that what its volumes hold is lost: `pulumi preview` says so.
"""

import pulumi

import pulumi_tutum as tutum

editor = tutum.Service(
    "editor",
    image="tutum/ubuntu:trusty",
    bindings=[{"container_path": "/usr/share/nginx/html"}],
    container_ports=[{"protocol": "tcp", "inner_port": 22, "published": True}],
)

site = tutum.Service(
    "site",
    image="tutum/nginx:latest",
    bindings=[{"volumes_from": editor, "rewritable": False}],
    container_ports=[{"protocol": "tcp", "inner_port": 80, "published": True}],
)

pulumi.export("edit", editor.endpoint_uris)
pulumi.export("urls", site.endpoint_uris)
