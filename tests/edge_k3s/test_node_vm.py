"""A Debian machine that boots a kit: cloud-init's two files, and the CD. k3s is a stand-in: this checks the kit alone.

The machine is emulated (qemu, no KVM), with systemd, udev and cloud-init as Debian has them; no network but a route.
"""

import dataclasses
import hashlib
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from containers import cannot, need

from edge_k3s.cargo import image_cargo, k3s_cargo
from edge_k3s.forms.cloud import as_cloud_init
from edge_k3s.forms.iso import ISO, as_iso, write_iso
from edge_k3s.kit import seal, write_kit
from edge_k3s.sealing import Sealer
from edge_k3s.spec import KitSpec, Machine
from edge_k3s.tree import File

TOOLS = ("qemu-system-x86_64", "mmdebstrap", "mke2fs", "debugfs")
PACKAGES = "systemd-sysv,udev,cloud-init,linux-image-cloud-amd64,iproute2,openssl,kmod,procps"
BOOT_S = 720.0
"""For what takes about a minute on two idle cores, and four to five on busy ones."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

STAND_IN = """\
#!/bin/sh
# Stands in for k3s: notes how it was called, makes the site's volume, and tells systemd that it is ready.
echo "$*" >>/var/log/k3s-calls
case "$*" in
server)
  mkdir -p /var/lib/rancher/k3s/storage/pvc-1
  systemd-notify --ready --pid=$$
  exec sleep infinity
  ;;
*"get pvc site-data"*) printf 'pvc-1' ;;
*"get pv pvc-1"*) printf '/var/lib/rancher/k3s/storage/pvc-1' ;;
esac
"""

UNIT = "[Service]\nType=notify\nNotifyAccess=all\nExecStart=/usr/bin/k3s server\n"

# What a person would do next, and off: the machine's disk is read afterwards.
AFTER = """\
[Unit]
After=cloud-final.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'cloud-init status --wait --long >/var/log/state 2>&1; echo $$? >>/var/log/state'
ExecStart=/bin/sh -c 'systemctl is-active k3s edge-agent-k3s-restart.timer >/var/log/active 2>&1 || true'
ExecStart=/bin/sh -c 'sysctl -n kernel.panic vm.overcommit_memory >/var/log/kernel; hostname >>/var/log/kernel'
ExecStart=/bin/sh -c 'find /etc /var/lib/edge-agent-kit /var/lib/rancher -type f -exec sha256sum {} + >/var/log/once'
ExecStart=/bin/sh -c 'mkdir -p /run/cd && mount -o ro LABEL=cidata /run/cd || true'
ExecStart=/bin/sh -c 'sh /run/cd/kit/install.sh >/var/log/again 2>&1 || true'
ExecStart=/bin/sh -c 'find /etc /var/lib/edge-agent-kit /var/lib/rancher -type f -exec sha256sum {} + >/var/log/twice'
ExecStart=/bin/systemctl poweroff
"""

FILES = {
    "usr/bin/k3s": (STAND_IN, 0o755),
    "usr/lib/systemd/system/k3s.service": (UNIT, 0o644),
    "etc/systemd/system/after.service": (AFTER, 0o644),
    "etc/systemd/network/10-all.network": ("[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n", 0o644),
    "etc/cloud/cloud.cfg.d/99-test.cfg": (
        # What a kit asks for, and none of what wants ssh, apt or a network.
        "datasource_list: [NoCloud]\nnetwork: {config: disabled}\ncloud_init_modules: [write-files, set_hostname]\n"
        "cloud_config_modules: [runcmd]\ncloud_final_modules: [scripts-user]\n",
        0o644,
    ),
}


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``disk.img``, ``vmlinuz`` and ``initrd.img``."""
    need(*TOOLS)
    if os.getuid() != 0:
        cannot("a root file system is made by root")
    folder = tmp_path_factory.mktemp("debian")
    words = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--include={PACKAGES}",
        "bookworm",
        str(folder / "root.tar"),
    ]
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        cannot(f"there is no Debian to boot: {made.stderr.splitlines()[-1:]}")
    with tarfile.open(folder / "root.tar") as tar:
        tar.extractall(folder / "root", filter="fully_trusted")
    for name, (text, mode) in FILES.items():
        path = folder / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    wants = folder / "root/etc/systemd/system/multi-user.target.wants"
    # Of cloud-init's own target: multi-user's would have to be reached before cloud-init ends, and after.
    (wants.parent / "cloud-init.target.wants").mkdir(exist_ok=True)
    (wants.parent / "cloud-init.target.wants" / "after.service").symlink_to("/etc/systemd/system/after.service")
    (wants / "systemd-networkd.service").symlink_to("/lib/systemd/system/systemd-networkd.service")
    (folder / "root/etc/machine-id").write_text("uninitialized\n")
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy(next((folder / "root/boot").glob(f"{name}-*")), folder / name)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", folder / "root", folder / "disk.img", "10G"], check=True)
    shutil.rmtree(folder / "root")
    (folder / "root.tar").unlink()
    return folder


@dataclasses.dataclass(frozen=True)
class Booted:
    """A machine that was on, and is off again."""

    disk: Path

    def read(self, path: str) -> str:
        done = subprocess.run(["debugfs", "-R", f"cat {path}", self.disk], capture_output=True, text=True, check=True)
        return done.stdout

    def mode(self, path: str) -> str:
        done = subprocess.run(["debugfs", "-R", f"stat {path}", self.disk], capture_output=True, text=True, check=True)
        return done.stdout.partition("Mode:")[2].split()[0] if "Mode:" in done.stdout else ""


def boot(debian: Path, seed: Path, folder: Path) -> Booted:
    """Start a machine with this CD, and wait until it has switched itself off."""
    disk, console = folder / "disk.img", folder / "console.log"
    subprocess.run(["cp", "--sparse=always", debian / "disk.img", disk], check=True)
    words = [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048", "-nographic",
        "-no-reboot", "-kernel", str(debian / "vmlinuz"), "-initrd", str(debian / "initrd.img"),
        "-append", "root=/dev/vda rw console=ttyS0 quiet panic=-1",
        "-drive", f"file={disk},format=raw,if=virtio,cache=unsafe",
        "-drive", f"file={seed},format=raw,if=virtio,readonly=on",
        "-nic", "user,model=virtio-net-pci,restrict=on", "-serial", f"file:{console}", "-monitor", "none",
    ]  # fmt: skip
    began = time.monotonic()
    try:
        subprocess.run(words, check=True, timeout=BOOT_S, stdin=subprocess.DEVNULL, capture_output=True)
    except subprocess.TimeoutExpired:
        pytest.fail(f"the machine is still on after {BOOT_S:.0f} s:\n{console.read_text(errors='replace')[-3000:]}")
    print(f"the machine was on for {time.monotonic() - began:.0f} s")
    return Booted(disk)


@pytest.fixture
def now(joining: KitSpec) -> KitSpec:
    """A kit that was made just now, and whose k3s is the stand-in of this module."""
    now_us = time.time_ns() // 1000
    assert joining.enrol is not None
    enrol = dataclasses.replace(joining.enrol, expires_us=now_us + 86_400_000_000)
    return dataclasses.replace(joining, made_us=now_us, enrol=enrol, machine=Machine())


def test_the_cd_makes_a_bare_machine_a_node(debian: Path, now: KitSpec, sealer: Sealer, tmp_path: Path) -> None:
    (tmp_path / "k3s").write_text(STAND_IN)
    (tmp_path / "image.tar").write_bytes(b"the bytes of an image" * 1000)
    binary, _ = k3s_cargo(tmp_path / "k3s", hashlib.sha256(STAND_IN.encode()).hexdigest())
    machine = Machine((binary, *image_cargo([tmp_path / "image.tar"])), None, "v1.35.2+k3s1", airgap=True)
    spec = dataclasses.replace(now, machine=machine)
    write_kit(spec, tmp_path / "medium", sealer, as_iso)
    kit = seal(spec, sealer)
    booted = boot(debian, tmp_path / "medium" / ISO, tmp_path)
    assert booted.read("/var/log/state").splitlines()[-1] == "0", booted.read("/var/log/cloud-init-output.log")
    assert booted.read("/var/log/active").splitlines() == ["active", "active"]
    assert booted.read("/var/log/kernel").splitlines() == ["10", "1", "plant-08"]
    for source, target in (
        ("node/config.yaml", "/etc/rancher/k3s/config.yaml.d/50-edge-agent.yaml"),
        ("node/psa.yaml", "/var/lib/rancher/k3s/server/psa.yaml"),
        ("manifests/05-secrets.yaml", "/var/lib/rancher/k3s/server/manifests/05-secrets.yaml"),
        ("release/press-guard.bundle", "/var/lib/rancher/k3s/storage/pvc-1/release/press-guard.bundle"),
    ):
        each = kit[source]
        assert isinstance(each, File)
        assert booted.read(target).encode() == each.data, target
    assert booted.read("/var/lib/rancher/k3s/agent/images/image.tar") == "the bytes of an image" * 1000
    assert booted.mode("/var/lib/rancher/k3s/server/manifests/05-secrets.yaml") == "0600"
    calls = booted.read("/var/log/k3s-calls").splitlines()
    assert calls[0] == "server"
    assert calls.count("server") == 1
    assert "kubectl -n edge-agent rollout restart deployment/site" in calls
    # Again, by hand: as once.
    assert booted.read("/var/log/again").splitlines() == ["this machine is a node of plant-08"]
    assert booted.read("/var/log/twice") == booted.read("/var/log/once")


def test_cloud_inits_two_files_make_a_machine_that_has_k3s_a_node(
    debian: Path, now: KitSpec, sealer: Sealer, tmp_path: Path
) -> None:
    write_iso(as_cloud_init(now, seal(now, sealer), sealer.public), tmp_path / "seed.iso")
    booted = boot(debian, tmp_path / "seed.iso", tmp_path)
    assert booted.read("/var/log/state").splitlines()[-1] == "0", booted.read("/var/log/cloud-init-output.log")
    assert "SITE=plant-08" in booted.read("/etc/edge-agent/kit.env")
    assert booted.read("/var/log/active").splitlines() == ["active", "active"]
    assert "the bytes of a bundle" in booted.read("/var/lib/rancher/k3s/storage/pvc-1/release/press-guard.bundle")
    assert booted.mode("/var/lib/edge-agent-seed") == "", "copies of secrets are left"
    assert booted.mode("/etc/rancher/k3s/config.yaml.d/50-edge-agent.yaml") == "", (
        "the k3s that was there keeps its own"
    )
