"""README.md, line by line, as a new user types it: only the ports and the folder are other ones."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import needed
import pytest

ROOT = Path(__file__).parents[2]
PORTS = ("8600", "8090", "8080", "8883", "8443")


def blocks(heading: str) -> list[str]:
    """The commands of the indented block below a heading, one a line, continued lines joined."""
    section = re.split(r"^## ", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    [found] = [part for part in section if part.startswith(heading)]
    lines = "\n".join(line[4:] for line in found.splitlines() if line.startswith("    "))
    return [line.partition("  #")[0].strip() for line in lines.replace("\\\n", " ").splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder like a checkout, with free ports for those that the README names."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


@pytest.fixture
def ports(folder: Path) -> dict[str, str]:
    """README's ports → free ones, put into the examples too."""
    found = {}
    for port in PORTS:
        with socket.create_server(("127.0.0.1", 0)) as free:
            found[port] = str(free.getsockname()[1])
    for file in folder.glob("examples/*.yaml"):
        text = file.read_text()
        for port, free_port in found.items():
            text = text.replace(port, free_port)
        file.write_text(text)
    (folder / "examples" / "site.yaml").write_text(
        (folder / "examples" / "site.yaml").read_text() + f"api: {{port: {found['8080']}}}\n"
    )
    return found


class Shell:
    """Runs a README's lines; those that stay are ended with the test."""

    def __init__(self, folder: Path, ports: dict[str, str]) -> None:
        self.folder, self._ports = folder, ports
        self._staying: list[subprocess.Popen[bytes]] = []

    def run(self, line: str) -> str:
        """What a line prints, errors included; it must exit 0."""
        done = subprocess.run(self._words(line), cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout

    def leave_running(self, line: str) -> None:
        """A line that does not come back."""
        with (self.folder / "said.log").open("ab") as said:
            child = subprocess.Popen(self._words(line), cwd=self.folder, stdout=said, stderr=said)
        self._staying.append(child)

    def end(self) -> None:
        """SIGTERM to all, newest first: each must end well."""
        for child in reversed(self._staying):
            child.send_signal(signal.SIGTERM)
            assert child.wait(20) == 0, (self.folder / "said.log").read_text()

    def _words(self, line: str) -> list[str]:
        for port, free in self._ports.items():
            line = line.replace(port, free)
        if " hub serve " in line:
            line = line.replace("0.0.0.0", "127.0.0.1") + f" --http 127.0.0.1:{self._ports['8600']}"
        if " node provision " in line:
            line += " --api-port 0"
        words = line.split()
        return [sys.executable, "-m", "edge_cli.main", *words[1:]] if words[0] == "edge-agent" else words


@pytest.fixture
def shell(folder: Path, ports: dict[str, str]) -> Iterator[Shell]:
    made = Shell(folder, ports)
    yield made
    made.end()


def test_a_model_alone(shell: Shell) -> None:
    said = [shell.run(line) for line in blocks("A model, alone")]
    assert "held-out" in said[0]
    assert "drop-after-spike" in said[1]


def test_one_site(shell: Shell) -> None:
    run, tail, doctor = blocks("One site")
    shell.run(run)
    assert len(shell.run(tail).splitlines()) == 5
    assert "passes its golden check" in shell.run(doctor)


def test_a_fleet(shell: Shell) -> None:
    serve, init, create, provision, run, measure, ls = blocks("A fleet")
    build, create_2, push, show, export, take = blocks("A release")
    assert build.startswith("edge-agent model build trace"), "it trains: tests/edge_models does that"
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    shell.leave_running(serve)
    wait((shell.folder / "out" / "hub" / "hub.json").exists)
    shell.run(init)
    shell.run(create)
    shell.run(provision)
    shell.leave_running(run)
    wait((shell.folder / "out" / "plant-01" / "data" / "api.port").exists)
    wait(lambda: "plant-01  up" in shell.run(ls))
    shell.run(measure)
    shell.run(create_2)
    assert "plant-01: release 2" in shell.run(push)
    wait(lambda: '"release": 2' in shell.run(show + " --json"))
    memory = "edge-agent memory tail -m out/plant-01/site.yaml --kind decision"
    wait(lambda: "drop" in shell.run(memory + " --json"))
    assert "for 1 sites" in shell.run(export)
    assert "it runs release 2" in shell.run(take)


def test_a_machine_at_a_site_whose_k3s_is_no_k3s(shell: Shell) -> None:
    serve, provision, check = blocks("A machine at a site")
    needed.mosquitto()
    shell.leave_running(serve)
    wait((shell.folder / "out" / "hub" / "hub.json").exists)
    shell.run(blocks("A fleet")[1])
    (shell.folder / "k3s").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(11) + b"\x3e\x00and no more")
    shell.run(provision)
    assert (shell.folder / "out" / "plant-07" / "secrets" / "join.token").read_text().startswith("EK1")
    assert "plant-07" in shell.run(check)


def wait(true: object, seconds: float = 30.0) -> None:
    assert callable(true)
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
