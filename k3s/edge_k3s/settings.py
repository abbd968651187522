"""k3s's settings on a node: hardened, in files, since what is given to its installer is lost when that runs again."""

import functools
from pathlib import Path
from typing import Any

from edge_k3s.spec import KitSpec
from edge_k3s.yamltext import dump

FOLDER = "node"
INSTALLER = "install.sh"

_AS_THEY_ARE = (
    "psa.yaml",
    "audit.yaml",
    "sysctl.conf",
    "k3s.service",
    "edge-agent-release.service",
    "edge-agent-k3s-restart.service",
    "edge-agent-route.service",
)

_CIPHERS = (
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,"
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,"
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
)
"""Source: CIS Kubernetes Benchmark 1.8, 4.2.13."""

_CONFIG_HEADER = (
    "# /etc/rancher/k3s/config.yaml.d/50-edge-agent.yaml: what k3s is on this node. A key is a flag of `k3s server`.\n"
    "# Settings of your own go into a file beside it with a higher number: `KEY+:` there adds to a list of this one.\n"
)

_REGISTRIES = """\
# Where images come from. This node's own store and its neighbours' are asked first, for any name.
# A registry of the company's goes here, with its CA: see k3s's documentation, Private Registry Configuration.
mirrors:
  "*": {}
"""

_TIMER = """\
# Once a week k3s's certificates are looked at, and k3s restarted if they end soon. The pods go on meanwhile.
[Unit]
Description=Look at k3s's certificates

[Timer]
OnCalendar={when}
RandomizedDelaySec=30min
# A node that was off at the time catches up.
Persistent=true

[Install]
WantedBy=timers.target
"""


def node_files(spec: KitSpec) -> dict[str, bytes]:
    """File name in the kit's ``node/`` → content."""
    return {
        **{name: _read(name) for name in _AS_THEY_ARE},
        "config.yaml": (_CONFIG_HEADER + dump(k3s_config(spec))).encode(),
        "registries.yaml": _REGISTRIES.encode(),
        "edge-agent-k3s-restart.timer": _TIMER.format(when=spec.machine.restart).encode(),
    }


def installer() -> bytes:
    """install.sh: one text for every kit; what differs is in kit.env."""
    return _read(INSTALLER)


def k3s_config(spec: KitSpec) -> dict[str, Any]:
    """The flags of `k3s server`. Source: docs.k3s.io, CIS Hardening Guide; what is beyond it has its reason here."""
    # A machine that is replaced has the name of the one before. A k3s that was here before keeps the name it has: with
    # another it would be another node, and the site's volume would be on none.
    named = {"node-name": spec.site} if any(each.name == "k3s" for each in spec.machine.cargo) else {}
    config: dict[str, Any] = {
        **named,
        "write-kubeconfig-mode": "0600",
        # They take ports 80 and 443 of the machine, which the site's own machines may use, and the site serves nothing.
        "disable": ["traefik", "servicelb"],
        "protect-kernel-defaults": True,
        "secrets-encryption": True,
        # The nodes of one site hand each other images: one download, or one stick, is enough.
        "embedded-registry": True,
        "kube-apiserver-arg": [
            "admission-control-config-file=/var/lib/rancher/k3s/server/psa.yaml",
            "enable-admission-plugins=NodeRestriction,EventRateLimit",
            "audit-log-path=/var/lib/rancher/k3s/server/logs/audit.log",
            "audit-policy-file=/var/lib/rancher/k3s/server/audit.yaml",
            # At most 50 MB: a site's disk is a flash card, and nobody looks often.
            "audit-log-maxage=90",
            "audit-log-maxbackup=4",
            "audit-log-maxsize=10",
            "service-account-extend-token-expiration=false",
        ],
        "kube-controller-manager-arg": ["terminated-pod-gc-threshold=10"],
        "kubelet-arg": ["streaming-connection-idle-timeout=5m", f"tls-cipher-suites={_CIPHERS}"],
    }
    if spec.machine.airgap:
        # Without it an image that is missing is asked for on the internet for minutes, and the error hides what it is.
        config["disable-default-registry-endpoint"] = True
    return config


@functools.cache
def _read(name: str) -> bytes:
    return (Path(__file__).resolve().parent / FOLDER / name).read_bytes()
