"""What hub and site are rendered into, for tests of what is changed of it."""

from collections.abc import Mapping

import pytest
import yaml

from edge_k3s.bases import Object
from edge_k3s.hub.rendering import render_hub
from edge_k3s.hub.spec import HubSpec, Secrets
from edge_k3s.rendering import render
from edge_k3s.spec import Account, Enrolment, KitSpec


@pytest.fixture
def rendered() -> list[Object]:
    """Every object of a hub and of a site that joins it."""
    hub = HubSpec("edge-agent-kit-hub:1", ("hub.example.com",), secrets=Secrets({"operator.token": "a token"}))
    site = KitSpec(
        site="check-01",
        labels={},
        hub=Account("mqtts://hub.example.com:8883", "hub.example.com", 8883, "check-01", None),
        local=Account("mqtts://hub.example.com:8883", "hub.example.com", 8883, "_local_check-01", "a password"),
        root=b"{}",
        api_token="a token",
        release=0,
        agents=(),
        grants=("alert",),
        image="edge-agent-kit:1",
        enrol=Enrolment("https://hub.example.com:8443", "hub.example.com", 8443, "EK1::check-01:secret", 1),
    )
    return _documents(render_hub(hub)) + _documents(render(site))


def _documents(files: Mapping[str, str]) -> list[Object]:
    return [each for text in files.values() for each in yaml.safe_load_all(text)]
