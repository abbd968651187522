"""Kairos, an operating system that has k3s in it and takes one file at its installation.

Source: kairos.io, Configuration reference and Stage modules: `k3s`, and `stages` with files, sysctl, commands and if.
"""

from typing import Any

from edge_k3s.forms.packed import ARCHIVE, install_words, packed
from edge_k3s.settings import FOLDER
from edge_k3s.spec import KitSpec
from edge_k3s.tree import File, Tree
from edge_k3s.yamltext import dump

CONFIG = "cloud-config.yaml"

_SEED = "/usr/local/edge-agent-seed"
"""On the partition that outlives a restart and an upgrade."""

_HEADER = """\
#cloud-config
# A node of {site}, for Kairos. It holds passwords: treat this file like a key. Users and SSH keys are yours to add.
"""

_TARGETS = {
    "config.yaml": "/etc/rancher/k3s/config.yaml.d/50-edge-agent.yaml",
    "registries.yaml": "/etc/rancher/k3s/registries.yaml",
    "psa.yaml": "/var/lib/rancher/k3s/server/psa.yaml",
    "audit.yaml": "/var/lib/rancher/k3s/server/audit.yaml",
}


def as_kairos(spec: KitSpec, kit: Tree, key: str | None) -> Tree:
    """``cloud-config.yaml``, with the kit inside."""
    settings = [
        {"path": target, "permissions": 0o600, "content": _text(kit, name)} for name, target in _TARGETS.items()
    ]
    steps = [
        "set -e",
        "umask 077",
        f"cd {_SEED}",
        f"tar -xzf {ARCHIVE}",
        install_words(_SEED, key),
        f"touch {_SEED}.done",
        "cd /",
        f"rm -rf {_SEED}",
    ]
    # k3s starts in the same stage: the site is waited for beside it, and tried again at the next start.
    run = f"systemd-run --no-block --unit=edge-agent-install sh -c '{'; '.join(steps)}'"
    config: dict[str, Any] = {
        "hostname": spec.site,
        "k3s": {"enabled": True},
        "stages": {
            "initramfs": [
                {
                    "name": "Settings of k3s, before it starts",
                    "files": settings,
                    "directories": [{"path": "/var/lib/rancher/k3s/server/logs", "permissions": 0o700}],
                    "sysctl": _sysctl(_text(kit, "sysctl.conf")),
                }
            ],
            "boot": [
                {
                    "name": "The site, once",
                    "if": f"[ ! -f {_SEED}.done ]",
                    "files": [
                        {
                            "path": f"{_SEED}/{ARCHIVE}",
                            "permissions": 0o600,
                            "encoding": "b64",
                            "content": packed(kit),
                        }
                    ],
                    "commands": [run],
                }
            ],
        },
    }
    return {CONFIG: File((_HEADER.format(site=spec.site) + dump(config)).encode(), 0o600)}


def _text(kit: Tree, name: str) -> str:
    each = kit[f"{FOLDER}/{name}"]
    assert isinstance(each, File)  # noqa: S101 - `seal` made it
    return each.data.decode()


def _sysctl(text: str) -> dict[str, str]:
    pairs = (line.split("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}
