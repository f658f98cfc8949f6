"""A user's own unit test of a program: Pulumi's mocks, with no engine and no control plane."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import pulumi


class Mocks(pulumi.runtime.Mocks):
    made = {}

    def new_resource(self, args):
        self.made[args.name] = args
        outputs = {**args.inputs, "state": "Running", "endpoint_uris": ["http://x/"]}
        ports = args.inputs.get("container_ports", [])
        outputs["container_ports"] = [{"endpoint_uri": "http://x/", **port} for port in ports]
        return args.resource_id or args.name + "-id", outputs

    def call(self, args):
        return {}


pulumi.runtime.set_mocks(Mocks(), project="shop", stack="test", preview=False)

import pulumi_tutum as tutum


@pulumi.runtime.test
def test_program():
    db = tutum.Service("db", image="acme/db", container_envvars={"PASS": pulumi.Output.secret("s")})
    web = tutum.Service("web", image="acme/web", tags={"a"}, linked_to_service=[db],
        container_ports=[{"protocol": "tcp", "inner_port": 80}])
    other = tutum.Service.get("other", "an-id")

    def check(args):
        state, port, uri, uris, image, id, env = args
        assert (state, port, uri, uris, image) == ("Running", 80, "http://x/", ["http://x/"], "acme/web")
        assert env == {"PASS": "s"}
        made = Mocks.made["web"]
        assert made.typ == "pulumi-python:dynamic/tutum:Service"
        assert made.inputs["linked_to_service"] == [{"to_service": "db-id", "name": "db"}]
        assert made.inputs["tags"] == ["a"]
        assert "memory" not in made.inputs
        assert id == "an-id"
        print("checked")

    ports = web.container_ports
    return pulumi.Output.all(
        web.state, ports[0].inner_port, ports[0].endpoint_uri, web.endpoint_uris, web.image, other.id,
        db.container_envvars,
    ).apply(check)


test_program()
"""


def test_mocks(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout) == (0, "checked\n"), done.stderr
