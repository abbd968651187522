"""Images as they are built, loaded and looked into; nothing of them but its own process runs."""

import json
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from containers import EDGE_AGENT, LOCKED_DOWN, Podman, Workshop, cannot, need

from edge_k3s.image.target import Platform

pytestmark = pytest.mark.timeout(900)  # the first to ask builds the images

ONCE = ("run", "--rm", "--network", "none", *LOCKED_DOWN)
PYTHON = "/opt/edge-agent/bin/python3"

MAX_BYTES = 72_000_000
"""What an image of a site may weigh, and here it is compressed weakly. Source: docs/design.md section 8."""

EVERYTHING = """
import importlib, json, os, pkgutil, sys
import edge_agent, edge_cli, edge_models, edge_sync, onnxruntime, numpy, ssl, sqlite3, zoneinfo
from cel_expr_python import cel
import edge_agent.site, edge_agent.policy.cel
failed = []
for name in sorted(sys.stdlib_module_names):
    if name in LEFT_OUT or name.startswith("_test"):
        continue
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed.append(f"{name}: {error}")
print(json.dumps({
    "failed": failed,
    "compiled": all(os.path.exists(m.__cached__) for m in list(sys.modules.values()) if getattr(m, "__cached__", None)),
    "uid": os.getuid(),
    "certificates": len(ssl.create_default_context().get_ca_certs()),
    "telemetry": os.environ["ORT_DISABLE_TELEMETRY"],
    "encoding": sys.getfilesystemencoding(),
    "fts": sqlite3.connect(":memory:").execute("CREATE VIRTUAL TABLE t USING fts5(a)").fetchall(),
    "somewhere": str(zoneinfo.ZoneInfo("Europe/Berlin")),
    "inverse": numpy.linalg.inv(numpy.eye(2)).tolist(),
}))
"""

NOT_THERE = {
    # Windows and other systems.
    *("_msi", "_overlapped", "_scproxy", "_winapi", "msilib", "msvcrt", "nt", "ntpath", "winreg", "winsound"),
    *("_winreg", "asyncio.windows_events"),
    # A terminal, windows, other databases, building and installing.
    *("_curses", "_curses_panel", "curses", "readline", "rlcompleter", "_tkinter", "tkinter", "turtle", "turtledemo"),
    *("idlelib", "lib2to3", "ensurepip", "venv", "pydoc_data", "test", "distutils", "_dbm", "_gdbm", "nis"),
    # These open a window or print when they are imported.
    *("antigravity", "this", "_osx_support", "_aix_support", "_ios_support", "_android_support"),
}
"""Modules of the standard library that an image leaves out, or that no Linux has."""


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The command of a client of a containerd that runs for us; k3s keeps images in one."""
    need("containerd", "ctr")
    if os.getuid() != 0:
        cannot("containerd is run as root here")
    folder = tmp_path_factory.mktemp("containerd")
    socket = folder / "sock"
    (folder / "config.toml").write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{socket}"\n[ttrpc]\naddress = "{folder}/ttrpc"\n'
    )
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(["containerd", "--config", str(folder / "config.toml")], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while subprocess.run(["ctr", "-a", str(socket), "version"], capture_output=True, check=False).returncode:
            assert child.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "containerd did not answer"
            time.sleep(0.1)
        yield ["ctr", "-a", str(socket), "-n", "k8s.io"]
    finally:
        child.terminate()
        child.wait(20)


def layers(archive: Path) -> list[dict[str, tarfile.TarInfo]]:
    """Path → member of each layer of an image, lowest first."""
    with tarfile.open(archive) as outer:

        def blob(name: str) -> bytes:
            stream = outer.extractfile(name)
            assert stream is not None
            return stream.read()

        listed = json.loads(blob("manifest.json"))[0]["Layers"]
        found = []
        for name in listed:
            with tarfile.open(fileobj=BytesIO(zstd.decompress(blob(name)))) as layer:
                found.append({member.name: member for member in layer})
    return found


def test_the_same_inputs_give_the_same_bytes(workshop: Workshop, tmp_path: Path) -> None:
    first = workshop.image("site")
    # Elsewhere, later, by other names, and each wheel with another time.
    moved = tmp_path / "elsewhere"
    shutil.copytree(workshop.wheels(), moved, copy_function=shutil.copyfile)
    base = tmp_path / "root.tar"
    shutil.copyfile(workshop.base(), base)
    words = ("--base", base, "--wheels", moved, "--level", "3", "--out", tmp_path / "again.tar")
    edge_agent(tmp_path, "image", "build", *words)
    assert (tmp_path / "again.tar").read_bytes() == first.path.read_bytes()


def test_a_base_made_again_gives_the_same_bytes(workshop: Workshop, tmp_path: Path) -> None:
    first = workshop.image("broker")
    words = ("--role", "broker", "--level", "3", "--out", tmp_path / "again.tar")
    edge_agent(tmp_path, "image", "build", *words)
    assert (tmp_path / "again.tar").read_bytes() == first.path.read_bytes()


def test_a_hub_shares_what_a_site_has(workshop: Workshop) -> None:
    site, hub = (workshop.image(role).said["layers"] for role in ("site", "hub"))
    assert [layer["name"] for layer in hub] == ["base", "dependencies", "extras", "kit"]
    assert [layer["digest"] for layer in site[:2]] == [layer["digest"] for layer in hub[:2]]


def test_what_is_in_it_and_what_is_not(workshop: Workshop) -> None:
    site = workshop.image("site")
    assert site.said["size_bytes"] <= MAX_BYTES
    found = {path: member for layer in layers(site.path) for path, member in layer.items()}
    programs = sorted(
        path for path in found if path.rpartition("/")[0] in ("usr/bin", "usr/sbin", "opt/edge-agent/bin")
    )
    assert programs == ["opt/edge-agent/bin/edge-agent", "opt/edge-agent/bin/python3", "usr/bin/python3.11"]
    assert not [path for path in found if "/site-packages/pip" in path or path.endswith(("/RECORD", ".pyi"))]
    assert {(member.uid, member.mode) for member in found.values() if member.uid} == {(10001, 0o750)}
    assert not [path for path, member in found.items() if member.mode & 0o6022 and path != "tmp" and not member.issym()]
    assert {member.mtime for member in found.values()} == {1_580_601_600}
    assert "var/lib/dpkg/status.d/libssl3" in found
    # A link to nowhere is a package that was forgotten.
    for path, member in found.items():
        if member.issym() and path not in ("etc/mtab", "etc/localtime"):
            target = os.path.normpath(os.path.join("/", os.path.dirname(path), member.linkname)).lstrip("/")
            merged = f"usr/{target}" if target.split("/")[0] in ("lib", "lib64", "bin", "sbin") else target
            assert target in found or merged in found, f"{path} -> {member.linkname}"


@pytest.mark.parametrize(("platform", "machine"), [("linux/amd64", 62), ("linux/arm64", 183)])
def test_all_programs_are_for_its_machine_and_find_their_libraries(
    workshop: Workshop, tmp_path: Path, platform: Platform, machine: int
) -> None:
    need("readelf")
    built = workshop.image("site", platform)
    assert built.said["size_bytes"] <= MAX_BYTES
    names: set[str] = set()
    programs: list[Path] = []
    machines: set[int] = set()
    with tarfile.open(built.path) as outer:
        for name in json_of(built.path)["Layers"]:
            stream = outer.extractfile(name)
            assert stream is not None
            with tarfile.open(fileobj=BytesIO(zstd.decompress(stream.read()))) as layer:
                for member in layer:
                    names.add(member.name.rpartition("/")[2])
                    data = layer.extractfile(member) if member.isreg() else None
                    content = data.read() if data is not None else b""
                    if content[:4] == b"\x7fELF":
                        machines.add(int.from_bytes(content[18:20], "little"))
                        programs.append(tmp_path / f"{len(programs)}.elf")
                        programs[-1].write_bytes(content)
    assert machines == {machine}
    said = subprocess.run(["readelf", "-dW", *map(str, programs)], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", said))
    assert {"libc.so.6", "libstdc++.so.6"} <= needed
    assert needed - names == set()


def test_podman_keeps_its_digest_and_knows_its_content_by_the_tag(workshop: Workshop, podman: Podman) -> None:
    site = workshop.image("site")
    name = podman.load(site)
    about = json.loads(podman.run("image", "inspect", name))[0]
    assert about["Digest"] == site.said["digest"]
    assert name.rpartition("-")[2] == about["Id"][:12] == site.said["image_id"].removeprefix("sha256:")[:12]
    assert about["Config"]["User"] == "10001:10001"
    assert about["Config"]["Labels"]["edge-agent-kit/role"] == "site"


def test_containerd_keeps_its_digest_under_the_name_that_a_pod_asks_for(
    workshop: Workshop, containerd: list[str]
) -> None:
    site = workshop.image("site")
    subprocess.run([*containerd, "images", "import", str(site.path)], check=True, capture_output=True)
    listed = subprocess.run([*containerd, "images", "ls"], check=True, capture_output=True, text=True).stdout
    line = next(line for line in listed.splitlines() if line.startswith(f"docker.io/library/{site.reference} "))
    assert site.said["digest"] in line
    assert "linux/amd64" in line
    checked = subprocess.run([*containerd, "images", "check"], check=True, capture_output=True, text=True).stdout
    assert "complete" in next(each for each in checked.splitlines() if site.reference in each)


def test_skopeo_reads_it_as_oci(workshop: Workshop) -> None:
    need("skopeo")
    site = workshop.image("site")
    done = subprocess.run(["skopeo", "inspect", f"oci-archive:{site.path}"], check=True, capture_output=True, text=True)
    about = json.loads(done.stdout)
    assert about["Digest"] == site.said["digest"]
    assert (about["Architecture"], about["Os"]) == ("amd64", "linux")


def test_it_runs_read_only_as_nobody_in_particular_and_has_all_it_imports(workshop: Workshop, podman: Podman) -> None:
    name = podman.load(workshop.image("site"))
    code = f"LEFT_OUT = {NOT_THERE!r}\n{EVERYTHING}"
    said = json.loads(podman.run(*ONCE, "--entrypoint", PYTHON, name, "-c", code))
    assert said["failed"] == []
    assert said["compiled"]
    assert said["uid"] == 10001
    assert said["certificates"] > 100
    assert (said["telemetry"], said["encoding"]) == ("1", "utf-8")
    assert said["inverse"] == [[1.0, 0.0], [0.0, 1.0]]
    assert "doctor" in podman.run(*ONCE, name, "--help")


@pytest.mark.parametrize("program", ["sh", "/bin/sh", "/usr/bin/dash", "bash", "pip", "apt-get", "dpkg", "perl"])
def test_there_is_no_shell_and_nothing_that_installs(workshop: Workshop, podman: Podman, program: str) -> None:
    name = podman.load(workshop.image("site"))
    # 127: there is no such program.
    assert podman.ends(*ONCE, "--entrypoint", program, name) == 127


def test_nothing_in_it_can_be_written(workshop: Workshop, podman: Podman) -> None:
    name = podman.load(workshop.image("site"))
    code = "open('/opt/edge-agent/x', 'w')"
    assert "Read-only file system" in podman.run(*ONCE, "--entrypoint", PYTHON, name, "-c", code, code=1)
    # Nor where the root is not read-only.
    said = podman.run(
        "run", "--rm", "--user", "10001", "--network", "none", "--entrypoint", PYTHON, name, "-c", code, code=1
    )
    assert "Permission denied" in said


def json_of(archive: Path) -> dict[str, Any]:
    """What `podman load` reads of an image."""
    with tarfile.open(archive) as outer:
        stream = outer.extractfile("manifest.json")
        assert stream is not None
        return dict(json.loads(stream.read())[0])


def edge_agent(folder: Path, *words: object) -> None:
    """A command in another folder, under another umask."""
    done = subprocess.run(
        [*EDGE_AGENT, *map(str, words)], cwd=folder, umask=0o077, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
