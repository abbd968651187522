"""Artifacts over HTTPS where a site file says so: the same bytes, verified the same; nothing of them by the broker."""

import base64
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_desk import CommandDesk


@pytest.fixture
def desk(tmp_path: Path, new_hub: Callable[..., Any]) -> Iterator[CommandDesk]:
    made = CommandDesk(tmp_path, new_hub(tmp_path / "hub").start())
    yield made
    made.close()


def by_https(site_file: Path, url: str, **more: object) -> None:
    """Have the site fetch artifacts so."""
    config = yaml.safe_load(site_file.read_text())
    config["hub"] |= {"https": url, **more}
    site_file.write_text(yaml.safe_dump(config))


def counted(desk: CommandDesk, name: str) -> float:
    """A counter of the hub."""
    with urllib.request.urlopen(f"{desk.hub.facts['http']}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith(name + " ")), 0.0)


def test_a_site_fetches_a_release_from_the_hubs_api_and_nothing_by_the_broker(desk: CommandDesk, until: Any) -> None:
    site = desk.provision("plant-01")
    by_https(site, desk.hub.facts["http"])
    desk.start(site)
    until((site.parent / "data" / "api.port").exists, "the site")
    desk.release(2, "2")
    until(lambda: desk.status(site)["release"] == 2, "release 2", 60.0)
    assert counted(desk, "edge_hub_chunks_sent_total") == 0


def test_only_a_sites_own_password_opens_only_the_bytes(desk: CommandDesk) -> None:
    site = desk.provision("plant-01")
    file = desk.write_release(2, "2")
    desk.run("release", "create", file, "--trust", desk.hub.operator.folder, "--out", desk.folder / "r")
    desk.run("release", "push", desk.folder / "r", "--all", "--hub-dir", desk.hub.folder)
    digest = f"sha256:{next((desk.folder / 'r' / 'blobs' / 'sha256').iterdir()).name}"
    secret = (site.parent / "secrets" / "hub.password").read_text()
    local = (site.parent / "secrets" / "local.password").read_text()

    def ask(path: str, user: str, password: str, method: str = "GET") -> int:
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers = {"authorization": f"Basic {token}", "range": "bytes=0-9"}
        request = urllib.request.Request(desk.hub.facts["http"] + path, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    of_bytes = f"/api/v1/artifacts/{digest}/bytes"
    assert ask(of_bytes, "plant-01", secret) == 206
    assert ask(of_bytes, "plant-01", secret + "x") == 401
    assert ask(of_bytes, "plant-02", secret) == 401
    assert ask(of_bytes, "_local_plant-01", local) == 401, "a sensor's password is for sensors"
    assert ask(of_bytes, "plant-01", secret, "PUT") == 401
    for path in (f"/api/v1/artifacts/{digest}", "/api/v1/sites", f"{of_bytes}/../../sites", "/api/v1/trust"):
        assert ask(path, "plant-01", secret) in (401, 404)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://hub.example", "a password may not travel in clear"),
        ("ftp://hub.example", "write https://HOST"),
    ],
)
def test_a_road_that_can_not_be_taken_is_one_clear_line(desk: CommandDesk, url: str, says: str) -> None:
    site = desk.provision("plant-01")
    by_https(site, url)
    assert says in desk.run("run", site, code=2)
