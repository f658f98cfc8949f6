"""The main job on real containers, from `pulumi up` to `pulumi destroy`: what a user gets and sees."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions as expect
from selenium.webdriver.support.wait import WebDriverWait

import pulumi_tutum
from pulumi_tutum.errors import BadRequest
from tests.support import images
from tests.support.docker_engine import DockerEngine
from tests.support.engine import Project
from tests.support.readme import block
from tests.support.server import Server
from tests.support.tools import need, until

pytestmark = [pytest.mark.docker, pytest.mark.engine]

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
EXAMPLE = ROOT / "examples" / "wordpress-mysql"

HITS = """
import pulumi
import pulumi_tutum as tutum

redis = tutum.Service("redis", image="test/redis")
hits = tutum.Service(
    "hits",
    image="test/hits",
    target_num_containers=pulumi.Config().require_int("hits"),
    container_ports=[{"protocol": "tcp", "inner_port": 80, "published": True}],
    linked_to_service=[{"to_service": redis, "name": "redis"}],
)
pulumi.export("urls", hits.endpoint_uris)
"""


def things(engine: DockerEngine) -> dict[str, set[str]]:
    """Everything of an engine that a run could leave behind."""
    with engine.client() as client:
        return {
            "containers": {c.name or "" for c in client.containers.list(all=True, ignore_removed=True)},
            "volumes": {v.name for v in client.volumes.list()},
            "networks": {n.name or "" for n in client.networks.list()},
        }


def page(url: str, wanted: str) -> str:
    """What answers there, as soon as `wanted` is in it."""
    last = [""]

    def arrived() -> bool:
        with suppress(requests.RequestException):
            last[0] = requests.get(url, timeout=10).text
        return wanted in last[0]

    until(arrived, f"{url} answers with {wanted!r}")
    return last[0]


def containers_of(engine: DockerEngine, service: dict[str, Any]) -> list[dict[str, Any]]:
    """What the engine knows of a service's containers."""
    with engine.client() as client:
        filters: Any = {"label": f"io.tutum.service={service['id']}"}
        return [c.attrs for c in client.containers.list(all=True, filters=filters, ignore_removed=True)]


def test_a_linked_pair(engine: DockerEngine, tmp_path: Path) -> None:
    """Redis, and a hit counter in front of it: up, used, scaled, unchanged, destroyed."""
    before = things(engine)
    with Server(backend="docker", environ={"DOCKER_HOST": engine.url}) as server:
        config = {"hits": "1"}
        with Project(tmp_path / "p", HITS, config=config, env=server.environment) as project:
            assert project.preview().ops == {"redis": ["create"], "hits": ["create"]}
            assert things(engine)["containers"] == before["containers"]

            project.up()
            (first,) = project.outputs()["urls"]
            assert page(first, "hit ").startswith("hit 1 on hits-")
            assert project.preview("--expect-no-changes").ops == {}

            project.config_set({"hits": "3"})
            assert project.up().ops == {"hits": ["update"]}
            urls = project.outputs()["urls"]
            assert len(set(urls)) == 3
            assert urls[0] == first
            answers = [page(url, "hit ").split() for url in urls]
            assert [number for _, number, _, _ in answers] == ["2", "3", "4"]
            assert len({host for _, _, _, host in answers}) == 3
            assert project.preview("--expect-no-changes").ops == {}
            assert project.refresh().ops == {}

            project.destroy()
            after = things(engine)
            assert after["containers"] == before["containers"]
            assert after["volumes"] == before["volumes"]
    assert things(engine) == before


def test_serve_as_in_the_readme(engine: DockerEngine, tmp_path: Path) -> None:
    """Its command and its claims: where ports are, what is refused, what outlives a crash."""
    _, serve = block("Backends", "shell").splitlines()
    program, word, *options = serve.split()
    assert (program, word) == ("pulumi-tutum", "serve")
    given = {name.removeprefix("--"): value for name, value in zip(options[::2], options[1::2], strict=True)}
    given["data"] = str(tmp_path / given["data"])
    before = things(engine)
    with Server(environ={"DOCKER_HOST": engine.url}, **given) as server:
        client = pulumi_tutum.Client(server.user, server.apikey, rest_host=server.url)
        allowances = re.findall(r"`--allow ([a-z].*?)`", README.read_text(encoding="utf-8"))
        (everything,) = [words for words in allowances if "," in words]
        asked = {"privileged": True, "network": "host", "pid": "host"}
        asked["bindings"] = [{"host_path": "/srv", "container_path": "/srv"}]
        with pytest.raises(BadRequest) as refused:
            client.create_service({"image": "tutum/hello-world", **asked})
        for name in everything.split(","):
            assert f"--allow {name}" in str(refused.value)

        port = {"protocol": "tcp", "inner_port": 80, "published": True}
        made = client.create_service({"image": "tutum/hello-world", "name": "web", "container_ports": [port]})
        client.start_service(made["uuid"])
        until(lambda: client.get_service(made["uuid"])["state"] == "Running", "it runs")
        (old,) = containers_of(engine, {"id": made["uuid"]})
        (published,) = old["NetworkSettings"]["Ports"]["80/tcp"]
        assert published["HostIp"] == "127.0.0.1"
        url = f"http://127.0.0.1:{published['HostPort']}/"
        page(url, "My hostname is web-1")

        server.restart(kill=True)
        assert client.get_service(made["uuid"])["state"] == "Running"
        page(url, "My hostname is web-1")
        (now,) = containers_of(engine, {"id": made["uuid"]})
        assert now["Id"] == old["Id"]
        command(server, "terminate", "web")
    assert things(engine) == before


# -- WordPress, as a person uses it ----------------------------------------------------------------


class Browser:
    """Chromium without a screen, and without the world: only this machine's own addresses resolve."""

    def __init__(self, folder: Path) -> None:
        program, driver = shutil.which("chromium"), shutil.which("chromedriver")
        need("Chromium", program and driver, "apt-get install chromium chromium-driver")
        assert program
        assert driver
        options = webdriver.ChromeOptions()
        options.binary_location = program
        for argument in (
            "--headless=new",
            "--no-sandbox",  # Chromium's does not work for root
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--no-proxy-server",
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            f"--user-data-dir={folder / 'profile'}",
        ):
            options.add_argument(argument)
        home = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
        service = webdriver.ChromeService(driver, env={**os.environ, **home})
        self._driver = webdriver.Chrome(options, service)
        self._wait = WebDriverWait(self._driver, 60)

    def close(self) -> None:
        self._driver.quit()

    def open(self, url: str) -> None:
        self._driver.get(url)

    @property
    def text(self) -> str:
        """What a reader of the page sees."""
        return self._driver.find_element(By.TAG_NAME, "body").text

    @property
    def title(self) -> str:
        return self._driver.title

    def fill(self, values: dict[str, str]) -> None:
        """Type into fields, by their id."""
        for name, value in values.items():
            field = self._wait.until(expect.element_to_be_clickable((By.ID, name)))
            field.clear()
            field.send_keys(value)
            assert field.get_attribute("value") == value

    def press(self, name: str, wanted: str) -> None:
        """Press a button, by its id, and wait until `wanted` can be read."""
        self._wait.until(expect.element_to_be_clickable((By.ID, name))).click()
        self.see(wanted)

    def see(self, wanted: str) -> None:
        """Wait until the page shows a text."""

        def shown(_: Any) -> bool:
            return wanted in self.text

        self._wait.until(shown, f"{wanted!r} is on the page")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    folder = tmp_path / "browser"
    folder.mkdir()
    browser = Browser(folder)
    yield browser
    browser.close()


def command(server: Server, *arguments: str) -> str:
    """What `pulumi-tutum` writes."""
    program = "from pulumi_tutum.cli import main; main(prog_name='pulumi-tutum')"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | server.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_wordpress(engine: DockerEngine, browser: Browser, tmp_path: Path) -> None:
    """The example, unchanged: set up and used in a browser, scaled, redeployed, its database killed."""
    images.load(engine, images.mariadb(), images.wordpress())
    before = things(engine)
    title, words, password = "Tutum lives", "Written before the redeploy.", "correct horse battery staple"
    with Server(backend="docker", environ={"DOCKER_HOST": engine.url}) as server:
        program = (EXAMPLE / "__main__.py").read_text(encoding="utf-8")
        with Project(tmp_path / "p", program, name=EXAMPLE.name, env=server.environment) as project:
            project.write((EXAMPLE / "Pulumi.yaml").read_text(encoding="utf-8"), "Pulumi.yaml")
            project.config_set({"dbPassword": "s3cret of the database"}, secret=True)

            project.up()
            urls = project.outputs()["urls"]
            assert len(urls) == 2
            page(urls[0], "WordPress &rsaquo; Installation")
            assert project.preview("--expect-no-changes").ops == {}

            browser.open(urls[0])
            browser.fill({"weblog_title": title, "user_login": "editor", "pass1": password})
            browser.fill({"admin_email": "editor@example.com"})
            browser.press("submit", "Success!")

            # The second container serves the same site.
            browser.open(urls[1])
            assert browser.title == title
            browser.see("Hello world!")
            browser.open(f"{urls[1]}wp-login.php")
            browser.fill({"user_login": "editor", "user_pass": password})
            browser.press("wp-submit", "Dashboard")
            browser.open(f"{urls[1]}?p=1")
            browser.fill({"comment": words})
            browser.press("submit", words)

            project.config_set({"webContainers": "3"})
            assert project.up().ops == {"web": ["update"]}
            scaled = project.outputs()["urls"]
            assert scaled[:2] == urls
            page(scaled[2], f"<title>{title}")

            web, db = project.resources()["web"], project.resources()["db"]
            old = {c["Id"] for c in containers_of(engine, web)}
            command(server, "redeploy", web["outputs"]["name"])
            new = {c["Id"] for c in containers_of(engine, web)}
            assert len(new) == 3
            assert not new & old
            # New containers have new dynamic ports: a refresh finds them, an up puts them into the outputs.
            assert project.refresh("--expect-no-changes").ops == {}
            assert project.up().ops == {}
            urls = project.outputs()["urls"]
            assert len(urls) == 3
            for url in urls:
                page(url, f"<title>{title}")
            browser.open(f"{urls[0]}?p=1")
            assert browser.title.endswith(title)
            browser.see(words)

            # As the kernel kills: `docker kill` would count as a wish of the user's.
            (database,) = containers_of(engine, db)
            os.kill(database["State"]["Pid"], signal.SIGKILL)

            def restarted() -> bool:
                (now,) = containers_of(engine, db)
                assert now["Id"] == database["Id"]
                state = now["State"]
                return bool(state["Running"]) and state["StartedAt"] > database["State"]["StartedAt"]

            until(restarted, "the database is restarted")
            page(f"{urls[0]}?p=1", words)

            def runs() -> bool:
                shown = json.loads(command(server, "inspect", "--json", db["id"]))
                return (shown["state"], shown["running_num_containers"]) == ("Running", 1)

            until(runs, "the control plane sees it run")
            assert project.refresh("--expect-no-changes").ops == {}

            lines = command(server, "logs", "--tail", "100", web["outputs"]["name"])
            assert re.search(r"GET /\?p=1", lines)
            project.destroy()
            after = things(engine)
            assert after["containers"] == before["containers"]
            assert after["volumes"] == before["volumes"]
    assert things(engine) == before
