"""cloud-init, data source NoCloud: two files that make a machine a node at its first start.

Source: cloud-init's documentation, NoCloud, and modules Write Files and Runcmd.
"""

from collections.abc import Mapping
from typing import Any

from edge_k3s.forms.packed import ARCHIVE, install_words, packed
from edge_k3s.sealing import SUMS, fingerprint
from edge_k3s.spec import Cargo, KitSpec
from edge_k3s.tree import File, Made, Tree
from edge_k3s.yamltext import dump

USER_DATA, META_DATA = "user-data", "meta-data"
LABEL = "cidata"
"""Of a medium on which cloud-init looks for these two files."""

_SEED = "/var/lib/edge-agent-seed"
_MOUNT = "/run/edge-agent-seed"

_HEADER = """\
#cloud-config
# Makes this machine a node of {site}. It holds passwords: treat this file like a key.
# What it did is in /var/log/cloud-init-output.log. If it failed: {again}
"""


def as_cloud_init(spec: KitSpec, kit: Tree, key: str | None) -> Tree:
    """``user-data`` with the kit inside, and ``meta-data``. `key`: of who signed it."""
    steps = [
        "set -e",
        "umask 077",
        f"cd {_SEED}",
        f"tar -xzf {ARCHIVE}",
        f"rm {ARCHIVE}",
        install_words(_SEED, key),
        # The node has what it needs; what is left here are copies of secrets.
        "cd /",
        f"rm -rf {_SEED}",
    ]
    config = {
        "hostname": spec.site,
        "write_files": [
            {
                "path": f"{_SEED}/{ARCHIVE}",
                "owner": "root:root",
                "permissions": "0600",
                "encoding": "b64",
                "content": packed(kit),
            }
        ],
        "runcmd": [["sh", "-c", "; ".join(steps)]],
    }
    return _seed(spec, kit, config, f"sh {_SEED}/install.sh")


def as_medium(spec: KitSpec, kit: Tree, key: str | None) -> Tree:
    """The same for a medium labelled `LABEL` that has the kit beside the two files, k3s and images included."""
    # The medium is not left mounted, whatever came of it: who does it again by hand mounts it again.
    install = [f"mkdir -p {_MOUNT}", f"mount -o ro LABEL={LABEL} {_MOUNT}", install_words(f"{_MOUNT}/kit", key)]
    steps = [
        *install,
        "code=$?",
        f"umount {_MOUNT}",
        "exit $code",
    ]
    config = {"hostname": spec.site, "runcmd": [["sh", "-c", "; ".join(steps)]]}
    tree: dict[str, File | Cargo | Made] = dict(_seed(spec, kit, config, "; ".join(install)))
    return tree | {f"kit/{path}": each for path, each in kit.items()}


def _seed(spec: KitSpec, kit: Tree, config: Mapping[str, Any], again: str) -> Tree:
    """The two files. `again`: what a person types where it failed."""
    sums = kit[SUMS]
    assert isinstance(sums, File)  # noqa: S101 - `seal` made it
    # Another kit is another instance to cloud-init, which then does all of it again.
    meta = {"instance-id": f"{spec.site}-{fingerprint(sums.data)[:12]}", "local-hostname": spec.site}
    return {
        USER_DATA: File((_HEADER.format(site=spec.site, again=again) + dump(config)).encode(), 0o600),
        META_DATA: File(dump(meta).encode()),
    }
