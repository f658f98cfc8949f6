"""What a preview says of services that are no longer in the program: which volumes would end with them."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.engine import Result
from tests.support.scenario import Scenario
from tests.support.server import Server

VOLUMES = 'image="acme/db", bindings=[{"container_path": "/data"}, {"container_path": "/log"}]'
WEB = 'tutum.Service("web", image="acme/web")\n'
DB = f'tutum.Service("db", {VOLUMES})\n'
CLOSED = "http://127.0.0.1:9"  # discard: nobody listens there


def removals(result: Result) -> list[str]:
    """All warnings about services that left the program."""
    return [warning for warning in result.diagnostics("warning") if "not in the program" in warning]


def test_a_removed_service_with_volumes_is_warned_about(scenario: Scenario) -> None:
    of_image = 'tutum.Service("of-image", image="redis")\n'
    scenario.program(WEB, DB, of_image, 'tutum.Service("plain", image="acme/web")\n')
    scenario.up()
    assert removals(scenario.preview()) == []
    db = scenario.live("db")["name"]

    scenario.program(WEB)
    preview = scenario.preview()
    assert preview.ops == {name: ["delete"] for name in ("db", "of-image", "plain")}
    (warning,) = preview.diagnostics("warning", "of-image")
    assert warning.endswith("its volumes and the data in them: /data")
    (warning,) = preview.diagnostics("warning", "db")
    assert warning.startswith(f"service '{db}' is not in the program any more")
    assert "`pulumi up` would terminate it" in warning
    assert warning.endswith(": /data, /log")
    assert len(removals(preview)) == 2

    # A program that fails says nothing of what is missing in it.
    scenario.program(WEB, "raise ValueError('broken')\n")
    assert removals(scenario.project.preview(fails=True)) == []

    # Without a control plane that answers, the bindings in the state are all that is known.
    scenario.program(WEB)
    scenario.project.env["TUTUM_REST_HOST"] = CLOSED
    assert removals(scenario.preview()) == [warning]
    scenario.project.env["TUTUM_REST_HOST"] = scenario.proxy.url

    # The preview of an up says it, and the update only what it does.
    previewed, _, updated = scenario.project.run("up", "--yes").output.partition("Updating (")
    assert warning in previewed
    assert warning not in updated
    assert "the termination of service" in updated
    scenario.assert_settled()
    scenario.destroy()


def test_a_plain_host_does_not_warn(scenario: Scenario) -> None:
    scenario.program(WEB, DB)
    scenario.up()
    scenario.program(WEB)
    scenario.project.env["PULUMI_TUTUM_PLAIN_HOST"] = "1"
    preview = scenario.preview()
    assert preview.ops == {"db": ["delete"]}
    assert removals(preview) == []


STACK = """
    class Stack(pulumi.ComponentResource):
        def __init__(self, name, databases):
            super().__init__("acme:index:Stack", name)
            for database in databases:
                tutum.Service(database, image="acme/db", bindings=[{"container_path": f"/{database}"}],
                    opts=ResourceOptions(parent=self))
            self.register_outputs({})

"""


def test_what_the_program_still_has_is_not_warned_about(scenario: Scenario) -> None:
    """Under another name, or taken over by another resource. What it only reads it does not keep."""
    before = [f'tutum.Service("{name}", {VOLUMES})\n' for name in ("old", "given", "seen")]
    scenario.program(STACK, WEB, *before, 'Stack("s", ["a", "b"])\n')
    scenario.up()
    given, seen = scenario.id("given"), scenario.id("seen")
    scenario.program(
        STACK,
        WEB,
        f'tutum.Service("new", {VOLUMES}, opts=ResourceOptions(aliases=[pulumi.Alias(name="old")]))\n',
        f'tutum.Service("taken", {VOLUMES}, adopt="{given}")\n',
        f'tutum.Service.get("seen-only", "{seen}")\n',
        'Stack("s", ["a"])\n',
    )
    preview = scenario.preview()
    deleted = {name for name, ops in preview.ops.items() if ops == ["delete"]}
    assert deleted == {"b", "given", "seen"}
    assert preview.diagnostics("warning", "given") == []
    (child,) = preview.diagnostics("warning", "b")
    assert child.endswith(": /b")
    assert len(preview.diagnostics("warning", "seen")) == 1
    assert len(removals(preview)) == 2


def test_what_was_only_read_is_not_warned_about(scenario: Scenario) -> None:
    scenario.program(WEB, DB)
    scenario.up()
    read = f'tutum.Service.get("read", "{scenario.id("db")}")\n'
    scenario.program(WEB, DB, read)
    scenario.up()
    scenario.program(WEB, DB)
    assert removals(scenario.preview()) == []


def test_another_account_and_secrets(new_scenario: Callable[..., Scenario]) -> None:
    """Of a service of another account only the bindings are known; what is secret is not named."""
    with Server(container_start_seconds=0.02, user="eve", apikey="k3y-of-eve-0123456789abcdef") as other:
        scenario = new_scenario()
        there = f"""
            there = tutum.Provider("there", user="eve", apikey="{other.apikey}", rest_host="{other.url}",
                stream_host="{other.stream_url}")
        """
        hidden = VOLUMES.replace("/data", "/hush")
        scenario.program(
            there,
            WEB,
            f'tutum.Service("db", {VOLUMES}, opts=ResourceOptions(provider=there))\n',
            f'tutum.Service("hidden", {hidden},\n',
            '    opts=ResourceOptions(additional_secret_outputs=["bindings", "name"]))\n',
        )
        scenario.up()
        name = scenario.live("hidden")["name"]
        scenario.program(there, WEB)
        preview = scenario.preview()
        (warning,) = preview.diagnostics("warning", "db")
        assert warning.endswith(": /data, /log")
        (warning,) = preview.diagnostics("warning", "hidden")
        assert warning.startswith("service 'hidden' is not in the program any more")
        assert name not in warning
        assert "/hush" not in preview.output
        scenario.up()
