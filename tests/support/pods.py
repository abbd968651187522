"""Pods of rendered manifests, made by hand: a network of their own, cables between them, and containers that are run as
the Deployment says, by podman. No Kubernetes: nothing here reads policies, Services or probes.
"""

import base64
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml
from containers import Podman

UID = 10001

Object = dict[str, Any]


def give(folder: Path) -> Path:
    """A folder, made where it is missing, for the user in the containers."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, UID, UID)
    return folder


class Network:
    """Namespaces, and cables between any two of them or one and this machine. Root's, and Linux's."""

    def __init__(self) -> None:
        self._own = os.getpid()
        self._spaces: list[str] = []
        self._cables = 0

    def space(self, name: str) -> Path:
        """A new namespace, for podman's ``--network ns:PATH``."""
        name = f"edge{self._own}-{name}"
        _ip("netns", "add", name)
        self._spaces.append(name)
        _ip("-n", name, "link", "set", "lo", "up")
        return Path("/run/netns") / name

    def cable(self, one: Path | None, other: Path) -> tuple[str, str]:
        """Connect two, None: this machine; the address of each."""
        number, self._cables = self._cables, self._cables + 1
        # Of a network for trials of devices (RFC 2544): nobody's own.
        low = (self._own % 4096) * 16 + number * 4
        addresses = [f"198.{18 + low // 65536}.{low // 256 % 256}.{low % 256 + end}" for end in (1, 2)]
        ends = [f"ed{self._own % 100000}-{number}{end}" for end in "ab"]
        _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for end, space, address in zip(ends, (one, other), addresses, strict=True):
            at = () if space is None else ("-n", space.name)
            if space is not None:
                _ip("link", "set", end, "netns", space.name)
            _ip(*at, "addr", "add", f"{address}/30", "dev", end)
            _ip(*at, "link", "set", end, "up")
        return addresses[0], addresses[1]

    def close(self) -> None:
        """Take all away: a cable goes with its namespace."""
        for name in self._spaces:
            _ip("netns", "del", name)


class Manifests:
    """A folder of rendered manifests, and one of what pods mount of them."""

    def __init__(self, manifests: Path, volumes: Path) -> None:
        self._volumes = volumes
        texts = [path.read_text() for path in sorted(manifests.glob("*.yaml"))]
        objects = [each for text in texts for each in yaml.safe_load_all(text)]
        self._objects = {(each["kind"], each["metadata"]["name"]): each for each in objects}

    def claimed(self, claim: str) -> Path:
        """The folder that stands for the volume of a PersistentVolumeClaim."""
        assert ("PersistentVolumeClaim", claim) in self._objects
        return give(self._volumes / claim)

    def settings(self, name: str, key: str) -> Object:
        """What a ConfigMap says under a key, as YAML."""
        return dict(yaml.safe_load(self._objects["ConfigMap", name]["data"][key]))

    def start(self, podman: Podman, deployment: str, container: str, *options: object) -> None:
        """Start a container of a Deployment's pod, by its own name, with `options` of podman's beside."""
        pod = self._objects["Deployment", deployment]["spec"]["template"]["spec"]
        [about] = [each for each in pod["containers"] if each["name"] == container]
        volumes = {each["name"]: each for each in pod["volumes"]}
        words: list[object] = ["--memory", about["resources"]["limits"]["memory"].replace("i", "").lower()]
        for each in about.get("env", ()):
            words += ["-e", f"{each['name']}={each['value']}"]
        for mount in about["volumeMounts"]:
            words += self._mounted(volumes[mount["name"]], mount)
        program, *arguments = about["command"]
        podman.start(container, about["image"], *arguments, options=("--entrypoint", program, *words, *options))

    def _mounted(self, volume: Object, mount: Object) -> list[object]:
        path, mode = mount["mountPath"], ":ro" if mount.get("readOnly") else ""
        if "emptyDir" in volume:
            return ["--tmpfs", path]
        if "persistentVolumeClaim" in volume:
            return ["-v", f"{self.claimed(volume['persistentVolumeClaim']['claimName'])}:{path}{mode}"]
        if "configMap" in volume:
            return ["-v", f"{self._laid_out('ConfigMap', volume['configMap']['name'])}:{path}{mode}"]
        return ["-v", f"{self._laid_out('Secret', volume['secret']['secretName'])}:{path}{mode}"]

    def _laid_out(self, kind: str, name: str) -> Path:
        """A folder with a file a key."""
        folder = self._volumes / name
        folder.mkdir(parents=True, exist_ok=True)
        for key, value in self._objects[kind, name]["data"].items():
            (folder / key).write_bytes(base64.b64decode(value) if kind == "Secret" else value.encode())
            (folder / key).chmod(0o440)
        return give(folder)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
