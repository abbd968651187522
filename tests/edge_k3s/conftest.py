"""Sites that stand for all: plant-07 with two agents and a password, plant-08 with all that a kit can bring."""

import dataclasses
import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import Metadata, Root

from edge_k3s.cargo import image_cargo, k3s_cargo, script_cargo
from edge_k3s.kit import write_kit
from edge_k3s.sealing import Sealer
from edge_k3s.spec import Account, Enrolment, KitAgent, KitSpec, Machine

MADE_S = 1_796_000_000
"""2026-11-30: when the kits of tests were made."""

STAND_IN = """\
#!/bin/sh
# Stands in for k3s: notes how it was called, and answers as one that has made the site's volume would.
here=$(dirname "$0")
printf '%s\\n' "$*" >>"$here/k3s.log"
case "$*" in
*"get pvc site-data"*) [ ! -f "$here/no-volume" ] && printf 'pvc-1' ;;
*"get pv pvc-1"*) printf '/var/lib/rancher/k3s/storage/pvc-1' ;;
esac
"""

INSTALLER = """\
#!/bin/sh
# Stands in for k3s's install script: notes what it was told, and makes the unit that it is there for.
env | grep '^INSTALL_K3S' | sort >"$INSTALL_K3S_BIN_DIR/installer.log"
mkdir -p "$INSTALL_K3S_SYSTEMD_DIR"
echo "[Service]" >"$INSTALL_K3S_SYSTEMD_DIR/k3s.service"
"""


def sealer_of(seed: bytes) -> Sealer:
    """A key that is the same in every run."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return Sealer(key.public_key().public_bytes_raw().hex(), key.sign)


def root_of(public: str) -> bytes:
    """A root of trust whose `targets` key is this one."""
    root = Root(expires=datetime(2028, 1, 1, tzinfo=UTC))
    root.add_key(SSlibKey("0" * 64, "ed25519", "ed25519", {"public": public}), "targets")
    return Metadata(root).to_bytes()


@pytest.fixture(scope="session")
def sealer() -> Sealer:
    """The operator's key."""
    return sealer_of(b"the operator's own targets key.!")


@pytest.fixture
def spec() -> KitSpec:
    """A site with a password, on a machine that has k3s."""
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
        made_us=MADE_S * 1_000_000,
    )


@pytest.fixture
def joining(spec: KitSpec, sealer: Sealer, tmp_path: Path) -> KitSpec:
    """A site that joins with a token, on a bare machine without a network: the kit brings k3s and images."""
    stock = tmp_path / "stock"
    stock.mkdir()
    (stock / "k3s").write_text(STAND_IN)
    (stock / "install.sh").write_text(INSTALLER)
    (stock / "edge-agent-kit.tar.zst").write_bytes(b"the bytes of an image")
    binary, _ = k3s_cargo(stock / "k3s", hashlib.sha256(STAND_IN.encode()).hexdigest())
    images = image_cargo([stock / "edge-agent-kit.tar.zst"])
    return dataclasses.replace(
        spec,
        site="plant-08",
        hub=Account("mqtts://mqtt.hub.example:8883", "mqtt.hub.example", 8883, "plant-08", None),
        root=root_of(sealer.public),
        enrol=Enrolment(
            "https://hub.example:8443",
            "hub.example",
            8443,
            f"EK1{'ab' * 32}::plant-08:join-secret-of-a-whimbrel",
            (MADE_S + 7 * 86_400) * 1_000_000,
        ),
        machine=Machine((binary, *images, script_cargo(stock / "install.sh")), None, "v1.35.2+k3s1", airgap=True),
    )


@pytest.fixture
def kit(spec: KitSpec, tmp_path: Path) -> Path:
    """The kit of `spec`, written."""
    write_kit(spec, tmp_path / "plant-07")
    return tmp_path / "plant-07"


@pytest.fixture
def full_kit(joining: KitSpec, sealer: Sealer, tmp_path: Path) -> Path:
    """The kit of `joining`, written and signed."""
    write_kit(joining, tmp_path / "plant-08", sealer)
    return tmp_path / "plant-08"
