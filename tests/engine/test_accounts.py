"""Accounts: credentials that are missing, wrong or renewed; a second account; two users of one account."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.scenario import Scenario, living
from tests.support.server import Server

WEB = 'tutum.Service("web", image="acme/web", container_ports=[{"protocol": "tcp", "inner_port": 80}])\n'
NOBODY = {"TUTUM_USER": "", "TUTUM_APIKEY": ""}
CLOSED = "http://127.0.0.1:9"  # discard: nobody listens there


def test_without_credentials_or_control_plane(new_scenario: Callable[..., Scenario], plane: Server) -> None:
    """A preview works, and says what an up will lack; an up says it in one sentence and keeps nothing."""
    scenario = new_scenario(env=NOBODY)
    scenario.program(WEB)
    preview = scenario.preview()
    assert preview.ops == {"web": ["create"]}
    (warning,) = preview.diagnostics("warning", "web")
    (error,) = scenario.up(fails=True).diagnostics("error", "web")
    for text in (warning, error):
        assert "tutum:apikey" in text
        assert "TUTUM_APIKEY" in text
        assert "\n" not in text
    assert not scenario.seen()

    scenario.project.env |= {"TUTUM_USER": plane.user, "TUTUM_APIKEY": "wrong-key-0123456789"}
    (error,) = scenario.up(fails=True).diagnostics("error", "web")
    assert "401" in error
    assert "TUTUM_APIKEY" in error
    assert "wrong-key" not in error
    assert scenario.asked() == ["create"], "refused, and not tried again"

    scenario.project.env |= {"TUTUM_APIKEY": plane.apikey, "TUTUM_REST_HOST": CLOSED}
    preview = scenario.preview()
    assert preview.ops == {"web": ["create"]}
    (warning,) = preview.diagnostics("warning", "web")
    (error,) = scenario.up(fails=True).diagnostics("error", "web")
    for text in (warning, error):
        assert CLOSED in text
        assert "pulumi-tutum serve" in text
    assert "web" not in scenario.project.resources()

    # A preview of what is there already, too.
    scenario.project.env["TUTUM_REST_HOST"] = scenario.proxy.url
    scenario.up()
    scenario.project.env["TUTUM_REST_HOST"] = CLOSED
    scenario.program(WEB.replace("acme/web", "acme/web:2"))
    assert scenario.preview().ops == {"web": ["update"]}
    (error,) = scenario.up(fails=True).diagnostics("error", "web")
    assert "pulumi-tutum serve" in error
    (error,) = scenario.destroy(fails=True).diagnostics("error", "web")
    assert "pulumi-tutum serve" in error
    assert "web" in scenario.project.resources()
    scenario.project.env["TUTUM_REST_HOST"] = scenario.proxy.url
    scenario.destroy()
    assert not scenario.living()


def test_a_renewed_key(new_scenario: Callable[..., Scenario], tmp_path: Path) -> None:
    """destroy and refresh go by the configuration of the last up; a 401 says what helps."""
    old, new = "key-before-0123456789", "key-after-0123456789"
    with Server(data=tmp_path / "data", apikey=old) as server:
        scenario = new_scenario(
            server, env=NOBODY, config={"tutum:user": server.user}, secrets={"tutum:apikey": old}
        )
        scenario.program(WEB)
        scenario.up()
        server.apikey = new
        server.restart()
        scenario.project.config_set({"tutum:apikey": new}, secret=True)
        (error,) = scenario.destroy(fails=True).diagnostics("error", "web")
        assert "401" in error
        assert "--run-program" in error
        assert "TUTUM_AUTH" in error
        scenario.project.env["TUTUM_AUTH"] = f"ApiKey {server.user}:{new}"
        scenario.refresh()
        del scenario.project.env["TUTUM_AUTH"]
        assert scenario.preview("--expect-no-changes").ops == {}, "this takes the configuration of now"
        scenario.destroy("--run-program")
        assert scenario.project.resources() == {}
        assert not [path for path, text in scenario.project.written() if old in text or new in text]


def test_a_second_account(new_scenario: Callable[..., Scenario], plane: Server) -> None:
    with Server(user="alice", apikey="key-of-alice-0123456789", container_start_seconds=0.02) as other:
        scenario = new_scenario(secrets={"aliceKey": other.apikey})
        program = f"""
            alice = tutum.Provider("alice", user="{other.user}",
                apikey=pulumi.Config().require_secret("aliceKey"), rest_host="{other.url}", monitor_seconds=0)
            mine = tutum.Service("mine", image="acme/web")
            hers = tutum.Service("hers", image="acme/web", opts=ResourceOptions(provider=alice))
            class Site(pulumi.ComponentResource):
                def __init__(self, name, opts):
                    super().__init__("shop:index:Site", name, None, opts)
                    tutum.Service("inside", image="acme/web", opts=ResourceOptions(parent=self))
            Site("site", ResourceOptions(providers=[alice]))
            pulumi.export("hers", hers.public_dns)
        """
        scenario.program(program)
        scenario.up()
        assert [name.rpartition("-")[0] for name in scenario.living()] == ["mine"]
        hers = living(other)
        assert [name.rpartition("-")[0] for name in hers] == ["hers", "inside"]
        assert ".alice." in scenario.project.outputs()["hers"]
        scenario.assert_settled()
        # For the engine another account is no change of a service; asked to replace it, it moves it.
        mine = '"mine", image="acme/web"'
        scenario.program(program.replace(mine, f"{mine}, opts=ResourceOptions(provider=alice)"))
        scenario.up("--replace", scenario.state("mine")["urn"])
        assert not scenario.living()
        assert len(living(other)) == 3
        scenario.assert_settled()
        scenario.destroy()
        assert not living(other)
        assert not scenario.living()
        assert not [path for path, text in scenario.project.written() if other.apikey in text]


def test_two_users_with_stacks_of_the_same_names(new_scenario: Callable[..., Scenario]) -> None:
    first, second = new_scenario(name="shared"), new_scenario(name="shared")
    for user in (first, second):
        user.program(WEB)
    first.up()
    before = first.live("web")
    (error,) = second.up(fails=True).diagnostics("error", "web")
    assert "adopt" in error
    assert before["uuid"] in error
    assert "web" not in second.project.resources()
    assert first.live("web") == before

    second.project.config_set({"tutum:namespace": "second"})
    second.up()
    assert second.id("web") != first.id("web")
    assert len(first.living("web-")) == 2
    second.destroy()
    assert first.live("web")["state"] == "Running"
    first.destroy()
    assert not first.living()
    # What was destroyed leaves its name and its key to the other.
    second.project.run("config", "rm", "tutum:namespace")
    second.up()
    assert second.live("web")["name"] == before["name"]
    second.destroy()
