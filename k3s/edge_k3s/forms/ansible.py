"""k3s-ansible: an inventory with the kit's settings, and what its roles do not do, before and after them.

    ansible-playbook -i inventory.yml before.yml
    ansible-playbook -i inventory.yml k3s.orchestration.site
    ansible-playbook -i inventory.yml after.yml

Source: k3s-io/k3s-ansible, inventory-sample.yml and its role `airgap`.
"""

from typing import Any

from edge_k3s.forms.packed import WAIT_S
from edge_k3s.settings import FOLDER
from edge_k3s.spec import Cargo, KitSpec
from edge_k3s.tree import File, Made, Tree
from edge_k3s.yamltext import dump

_HERE = "{{ inventory_dir }}"
_SEED = "/var/lib/edge-agent-seed"

_INVENTORY = """\
# The node of {site}, for k3s-ansible. To be edited: ansible_host, ansible_user. Then, in this order:
#   ansible-playbook -i inventory.yml before.yml
#   ansible-playbook -i inventory.yml k3s.orchestration.site
#   ansible-playbook -i inventory.yml after.yml
"""


def as_ansible(spec: KitSpec, kit: Tree, key: str | None) -> Tree:
    """``inventory.yml``, ``before.yml``, ``after.yml``, and the kit in ``kit/``."""
    variables: dict[str, Any] = {
        "ansible_user": "root",
        "k3s_version": spec.machine.k3s_version,
        "api_endpoint": "{{ hostvars[groups['server'][0]]['ansible_host'] | default(groups['server'][0]) }}",
        "server_config_yaml": _text(kit, "config.yaml"),
        "registries_config_yaml": _text(kit, "registries.yaml"),
    }
    if spec.machine.cargo:
        variables["airgap_dir"] = f"{_HERE}/kit/airgap"
    server = {"hosts": {spec.site: {"ansible_host": spec.site}}}
    inventory = {"k3s_cluster": {"children": {"server": server, "agent": {"hosts": {}}}, "vars": variables}}
    tree: dict[str, File | Cargo | Made] = {
        "inventory.yml": File((_INVENTORY.format(site=spec.site) + dump(inventory)).encode()),
        "before.yml": File(_before().encode()),
        "after.yml": File(_after(spec, key).encode()),
    }
    return tree | {f"kit/{path}": each for path, each in kit.items()}


def _text(kit: Tree, name: str) -> str:
    each = kit[f"{FOLDER}/{name}"]
    assert isinstance(each, File)  # noqa: S101 - `seal` made it
    return each.data.decode()


def _before() -> str:
    """k3s does not start without the files that its settings name."""
    server = "/var/lib/rancher/k3s/server"
    files = {f"{server}/psa.yaml": "psa.yaml", f"{server}/audit.yaml": "audit.yaml"}
    tasks: list[dict[str, Any]] = [
        {
            "name": "The folders that k3s makes only when it starts",
            "ansible.builtin.file": {"path": "{{ item }}", "state": "directory", "mode": "0700"},
            "loop": [server, f"{server}/logs"],
        },
        *(
            {
                "name": f"Lay {name}",
                "ansible.builtin.copy": {"src": f"{_HERE}/kit/node/{name}", "dest": target, "mode": "0600"},
            }
            for target, name in files.items()
        ),
        {
            "name": "What the kubelet expects of the kernel",
            "ansible.builtin.copy": {
                "src": f"{_HERE}/kit/node/sysctl.conf",
                "dest": "/etc/sysctl.d/90-kubelet.conf",
                "mode": "0644",
            },
        },
        {
            "name": "Have the kernel read it",
            "ansible.builtin.command": {"cmd": "sysctl -q -p /etc/sysctl.d/90-kubelet.conf"},
            "changed_when": False,
        },
    ]
    return dump([{"name": "Before k3s", "hosts": "server", "become": True, "tasks": tasks}])


def _after(spec: KitSpec, key: str | None) -> str:
    """The site itself, by the kit's own install.sh: k3s is there by then, and the same."""
    command = f"sh {_SEED}/install.sh --wait {WAIT_S}" + (f" --key {key}" if key else "")
    tasks: list[dict[str, Any]] = [
        {"name": "The kit", "ansible.builtin.copy": {"src": f"{_HERE}/kit/", "dest": f"{_SEED}/", "mode": "preserve"}},
        {
            "name": f"Make this machine a node of {spec.site}",
            "ansible.builtin.command": {"cmd": command},
            "register": "installed",
            "changed_when": "'write ' in installed.stdout",
        },
        {
            "name": "What is left of it are copies of secrets",
            "ansible.builtin.file": {"path": _SEED, "state": "absent"},
        },
    ]
    return dump([{"name": "The site", "hosts": "server", "become": True, "tasks": tasks}])
