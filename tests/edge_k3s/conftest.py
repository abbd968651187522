"""A site that stands for all: plant-07, with two agents."""

from pathlib import Path

import pytest

from edge_k3s.kit import write_kit
from edge_k3s.spec import Account, KitAgent, KitSpec


@pytest.fixture
def spec() -> KitSpec:
    """Everything a kit can hold, with fixed passwords."""
    return KitSpec(
        site="plant-07",
        labels={"line": "3a", "kind": "factory"},
        hub=Account("mqtts://mqtt.hub.example:8883", "mqtt.hub.example", 8883, "plant-07", "hub secret: tern"),
        local=Account("mqtts://192.0.2.10:8884", "192.0.2.10", 8884, "_local_plant-07", "local secret: plover"),
        root=b'{"signatures": [], "signed": {"_type": "root"}}\n',
        api_token="api secret: dunlin",
        release=3,
        agents=(
            KitAgent(
                name="press-guard",
                bundle=b"the bytes of a bundle",
                policy=b"policy: press-guard\nversion: 4\n",
                settings={
                    "where": {"kind": "factory"},
                    "source": {"kind": "mqtt", "endpoint": "sensors", "topic": "local/plant-07/press/+/window"},
                    "inputs": {"window": "values"},
                    "subject": "machine",
                    "grants": ["mqtt.publish", "alert"],
                },
            ),
            KitAgent(
                name="door-watch",
                bundle=b"the bytes of another bundle",
                policy=b"policy: door-watch\nversion: 1\n",
                settings={"source": {"kind": "mqtt", "endpoint": "sensors", "topic": "local/plant-07/door"}},
            ),
        ),
        grants=("mqtt.publish", "alert", "fact.set"),
        image="edge-agent-kit:0.1.0-0123456789ab",
        hub_networks=("203.0.113.0/28",),
    )


@pytest.fixture
def kit(spec: KitSpec, tmp_path: Path) -> Path:
    """The kit of `spec`, written."""
    write_kit(spec, tmp_path / "plant-07")
    return tmp_path / "plant-07"
