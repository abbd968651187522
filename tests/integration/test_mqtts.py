"""A site on another machine: it reaches the hub's own broker by TLS, and is who its certificate says."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from certificates import CLIENT, Authorities
from command_desk import CommandDesk

from edge_hub.broker import BrokerFolder
from edge_hub.broker.process import free_port


def test_a_site_with_a_certificate_and_no_password_takes_a_release_and_delivers(
    tmp_path: Path, new_hub: Callable[..., Any], until: Any
) -> None:
    authorities = Authorities(tmp_path / "authorities")
    hub, port = tmp_path / "hub", free_port()
    authorities.equip(BrokerFolder(hub / "broker").tls)
    desk = CommandDesk(tmp_path, new_hub(hub, "--mqtts", f"127.0.0.1:{port}").start())
    site = desk.provision("plant-01")
    config = yaml.safe_load(site.read_text())
    for key in ("username", "password_file"):
        del config["hub"][key]
    certificate = authorities.clients.issue("plant-01", CLIENT, site.parent / "secrets")
    shutil.copy(authorities.root_file, site.parent / "secrets" / "root.pem")
    config["hub"] |= {
        "broker": f"mqtts://localhost:{port}",
        "ca_file": "secrets/root.pem",
        "cert_file": f"secrets/{certificate.name}",
        "key_file": "secrets/plant-01.key",
    }
    site.write_text(yaml.safe_dump(config))
    try:
        desk.start(site)
        until((site.parent / "data" / "api.port").exists, "the site")
        desk.release(2, "2")
        until(lambda: desk.status(site)["release"] == 2, "release 2", 60.0)
        until(lambda: desk.hub.api("GET", "/api/v1/sites/plant-01")["records"], "its records", 60.0)
    finally:
        desk.close()
