"""A desk with a hub and sites, worked at with commands as people type them."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RELEASE = """\
release: {number}
agents:
  - name: watch
    bundle: {bundle}
    policy: policy.yaml
    source: {{kind: http, port: 0}}
"""
POLICY = "policy: p\nversion: {number}\nrules:\n  - {{name: a, when: 'true'}}\n"


class CommandDesk:
    """Commands in a folder, as people type them."""

    def __init__(self, folder: Path, hub: Any) -> None:
        self.folder, self.hub = folder, hub
        self._sites: list[subprocess.Popen[bytes]] = []

    def run(self, *words: object, code: int = 0) -> str:
        """An `edge-agent` command; what it printed."""
        command = [sys.executable, "-m", "edge_cli.main", *map(str, words)]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def write_release(self, number: int, bundle: str) -> Path:
        """A release as an operator writes it."""
        path = ROOT / "models" / "edge_models" / "data" / f"appliance-{bundle}.bundle"
        (self.folder / "policy.yaml").write_text(POLICY.format(number=number))
        file = self.folder / f"release-{number}.yaml"
        file.write_text(RELEASE.format(number=number, bundle=path))
        return file

    def release(self, number: int, bundle: str) -> None:
        """Signed and pushed to every site."""
        file, out = self.write_release(number, bundle), self.folder / f"release-{number}"
        self.run("release", "create", file, "--trust", self.hub.operator.folder, "--out", out)
        self.run("release", "push", out, "--all", "--hub-dir", self.hub.folder)

    def provision(self, site: str) -> Path:
        """A kit with release 1; its site file."""
        token, url = self.hub.folder / "operator.token", self.hub.facts["http"]
        assert self.hub.operator
        self.run(
            "node", "provision", site, "--hub", url, "--token-file", token, "--api-port", 0,
            "--release", self.write_release(1, "1"), "--out", self.folder / site, "--trust", self.hub.operator.folder,
        )  # fmt: skip
        return self.folder / site / "site.yaml"

    def start(self, site_file: Path) -> subprocess.Popen[bytes]:
        """Run the site."""
        with site_file.with_suffix(".log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "edge_cli.main", "run", str(site_file)], stderr=log, stdin=subprocess.DEVNULL
            )
        self._sites.append(child)
        return child

    def status(self, site_file: Path) -> dict[str, Any]:
        """What `update status --json` says."""
        return dict(json.loads(self.run("update", "status", site_file, "--json")))

    def close(self) -> None:
        """End the sites."""
        for child in self._sites:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
            child.wait(20)
