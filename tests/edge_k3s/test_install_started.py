"""install.sh without a prefix, in a root of its own: systemctl, sysctl and k3s are stand-ins that note their calls.

What it starts, in which order, and what it says to a technician. Needs root and mount namespaces; else skipped.
"""

import dataclasses
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_k3s.kit import write_kit
from edge_k3s.sealing import Sealer
from edge_k3s.spec import KitSpec
from edge_k3s.spec import Machine as MachineSpec

SYSTEMCTL = """\
#!/bin/sh
echo "$*" >>/var/log/systemctl.log
case "$*" in
"is-active -q k3s") [ -f /run/k3s-is-active ] ;;
"start k3s")
  [ ! -f /run/k3s-fails ] || exit 1
  touch /run/k3s-is-active
  mkdir -p /var/lib/rancher/k3s/storage/pvc-1
  ;;
*disable*k3s) rm -f /run/k3s-is-active ;;
esac
"""

MOUNTS = """\
mount --make-rprivate /
mount --bind /usr "$ROOT/usr"
mount -t tmpfs none "$ROOT/usr/local"
cp -r "$ROOT/tools/." "$ROOT/usr/local"
mkdir "$ROOT/usr/local/bin"
mount -t proc proc "$ROOT/proc"
mount --bind "$ROOT/local-bin" "$ROOT/usr/local/bin"
mount --bind /dev "$ROOT/dev"
exec chroot "$ROOT" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin sh "$@"
"""


def can() -> bool:
    """Whether a root of its own can be made here."""
    if os.getuid() != 0 or shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    return tried.returncode == 0


pytestmark = pytest.mark.skipif(not can(), reason="needs root and mount namespaces: install.sh's starting is not tried")


class Machine:
    """A root with nothing in it but what the system has in /usr."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        for name in ("etc", "var/lib", "var/log", "usr", "proc", "dev", "run", "tmp", "local-bin", "tools/sbin"):
            (folder / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (folder / name).symlink_to(f"usr/{name}")
        self.tool("systemctl", SYSTEMCTL)
        self.tool("sysctl", '#!/bin/sh\necho "sysctl $*" >>/var/log/systemctl.log\n')

    def tool(self, name: str, text: str) -> None:
        (self.root / "tools" / "sbin" / name).write_text(text)
        (self.root / "tools" / "sbin" / name).chmod(0o755)

    def run(self, *words: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        """`sh WORDS` with that root."""
        done = subprocess.run(
            ["unshare", "-m", "sh", "-ec", MOUNTS, "sh", *words],
            capture_output=True, text=True, check=False, env={**os.environ, "ROOT": str(self.root)}, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def calls(self) -> list[str]:
        """What was asked of the machine since this was asked last, but for questions."""
        log = self.root / "var/log/systemctl.log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line for line in lines if not line.startswith("is-active")]


@pytest.fixture
def machine(joining: KitSpec, sealer: Sealer, tmp_path: Path) -> Iterator[Machine]:
    """With the kit in /kit."""
    made = Machine(tmp_path / "machine")
    now_us = time.time_ns() // 1000
    assert joining.enrol is not None
    cargo = tuple(each for each in joining.machine.cargo if each.name != "k3s-install.sh")
    spec = dataclasses.replace(
        joining,
        made_us=now_us,
        enrol=dataclasses.replace(joining.enrol, expires_us=now_us + 3_600_000_000),
        machine=dataclasses.replace(joining.machine, cargo=cargo),
    )
    write_kit(spec, made.root / "kit", sealer)
    yield made
    assert not (made.root / "usr" / "bin").exists(), "a mount is left"


OPTIONS = ("--ignore-size", "--add-route", "--wait", "4")
"""So that the test needs no certain machine."""


def test_a_machine_becomes_a_node(machine: Machine) -> None:
    said = machine.run("/kit/install.sh", *OPTIONS).stdout.splitlines()
    assert said[-2:] == [
        "the first release is in the site's volume: restart the site",
        "this machine is a node of plant-08",
    ]
    assert machine.calls() == [
        "daemon-reload",
        "start edge-agent-route.service",
        "sysctl -q -p /etc/sysctl.d/90-kubelet.conf",
        "start edge-agent-k3s-restart.timer",
        "start k3s",
    ]
    inside = machine.root / "var/lib/rancher/k3s/storage/pvc-1/release"
    assert (inside / "press-guard.bundle").read_bytes() == b"the bytes of a bundle"
    assert inside.stat().st_uid == 10001
    # Again: nothing is restarted.
    said = machine.run("/kit/install.sh", *OPTIONS).stdout.splitlines()
    assert said == ["this machine is a node of plant-08"]
    assert not [call for call in machine.calls() if "restart k3s" in call or call == "start k3s"]


def test_changed_settings_restart_k3s(machine: Machine) -> None:
    machine.run("/kit/install.sh", *OPTIONS)
    machine.calls()
    (machine.root / "etc/rancher/k3s/config.yaml.d/50-edge-agent.yaml").write_text("# somebody was here\n")
    machine.run("/kit/install.sh", *OPTIONS)
    assert "restart k3s" in machine.calls()


def test_a_k3s_that_does_not_start(machine: Machine) -> None:
    (machine.root / "run" / "k3s-fails").touch()
    done = machine.run("/kit/install.sh", *OPTIONS, code=4)
    assert done.stderr.splitlines()[-1] == ("error: k3s did not start: journalctl -u k3s says why; then run this again")
    (machine.root / "run" / "k3s-fails").unlink()
    machine.run("/kit/install.sh", *OPTIONS)


def test_a_volume_that_is_late_is_left_to_the_unit(machine: Machine) -> None:
    (machine.root / "local-bin" / "no-volume").touch()
    done = machine.run("/kit/install.sh", *OPTIONS, code=4)
    assert "It is tried again by itself, and at every start of this machine" in done.stderr
    assert machine.calls()[-1] == "start --no-block edge-agent-release.service"
    (machine.root / "local-bin" / "no-volume").unlink()
    machine.run("/var/lib/edge-agent-kit/install.sh", "--fill", "--wait", "4")
    assert (machine.root / "var/lib/rancher/k3s/storage/pvc-1/release/press-guard.bundle").exists()


def test_a_volume_on_a_disk_of_its_own_is_refused(machine: Machine) -> None:
    """Nothing can be renamed into it, and what is copied into it would follow the pod's links."""
    volume = "/var/lib/rancher/k3s/storage/pvc-1"
    mount = f"mkdir -p {volume}; mount -t tmpfs none {volume}"
    done = machine.run("-c", f"{mount}; sh /kit/install.sh {' '.join(OPTIONS)}", code=2)
    assert f"error: the site's volume {volume} is a disk of its own" in done.stderr
    machine.run("/kit/install.sh", *OPTIONS)
    assert (machine.root / f"{volume[1:]}/release/press-guard.bundle").is_file()


def test_it_is_taken_away_without_the_kit(machine: Machine) -> None:
    machine.run("/kit/install.sh", *OPTIONS)
    machine.calls()
    shutil.rmtree(machine.root / "kit")
    done = machine.run("/var/lib/edge-agent-kit/install.sh", "--uninstall")
    assert "restart this machine to end what k3s left running" in done.stderr
    assert machine.calls() == [
        "disable -q --now edge-agent-k3s-restart.timer edge-agent-release.service",
        "disable -q --now k3s",
        "daemon-reload",
    ]
    log = (machine.root / "local-bin" / "k3s.log").read_text().splitlines()
    assert "kubectl -n edge-agent scale deployment/site --replicas=0 --timeout=60s" in log
    left = {
        path.relative_to(machine.root / "etc").as_posix()
        for path in (machine.root / "etc").rglob("*")
        if path.is_file()
    }
    assert left == set()
    assert (machine.root / "var/lib/rancher/k3s/storage/pvc-1").is_dir()
    # Its last line says how the memory goes too, whenever that is wanted.
    last = done.stdout.splitlines()[-1]
    assert last.endswith("run: sudo sh /var/lib/edge-agent-kit/install.sh --uninstall --purge")
    _, _, *words = last.partition("run: ")[2].split()
    assert machine.run(*words).stderr == ""
    for path in ("var/lib/rancher/k3s", "etc/rancher/k3s", "var/lib/edge-agent-kit"):
        assert not (machine.root / path).exists(), path
    assert machine.run("-c", "! test -e /var/lib/edge-agent-kit").stderr == ""


def test_a_k3s_that_came_after_the_kits_own_is_not_purged(machine: Machine) -> None:
    """It found the site's memory where the kit's k3s had it, and what else is there is its owner's by now."""
    machine.run("/kit/install.sh", *OPTIONS)
    stand_in = (machine.root / "local-bin/k3s").read_text()
    machine.run("/kit/install.sh", "--uninstall")
    (machine.root / "local-bin/k3s").write_text(stand_in)
    (machine.root / "local-bin/k3s").chmod(0o755)
    (machine.root / "local-bin/k3s.log").unlink()
    (machine.root / "run/k3s-is-active").touch()
    machine.calls()
    machine.run("/kit/install.sh", "--uninstall", "--purge")
    assert not [call for call in machine.calls() if "disable" in call and call.endswith("k3s")]
    assert (machine.root / "var/lib/rancher/k3s/storage").is_dir()
    assert "kubectl delete namespace edge-agent --ignore-not-found" in (machine.root / "local-bin/k3s.log").read_text()
    assert (machine.root / "local-bin/k3s").is_file()
    assert not (machine.root / "var/lib/edge-agent-kit").exists()


HOLDS = {
    "a mount": ("mkdir -p /run/k3s/x; mount -t tmpfs none /run/k3s/x", "/run/k3s/x mounted"),
    "a process": (
        "d=/var/lib/rancher/k3s/data/current/bin; mkdir -p $d; cp /usr/bin/sleep $d/containerd-shim; "
        "$d/containerd-shim 60 & trap 'kill $!; wait' EXIT; "
        "until [ $(readlink /proc/$!/exe) = $d/containerd-shim ]; do :; done",
        "/proc/",
    ),
}


@pytest.mark.parametrize("what", HOLDS)
def test_purged_only_once_nothing_of_k3s_is_alive(machine: Machine, what: str) -> None:
    """Not half of it with errors: first nothing, and after the restart of the machine all."""
    machine.run("/kit/install.sh", *OPTIONS)
    shutil.rmtree(machine.root / "kit")
    hold, says = HOLDS[what]
    script = "/var/lib/edge-agent-kit/install.sh"
    done = machine.run("-c", f"{hold}; sh {script} --uninstall --purge", code=4)
    assert done.stderr.startswith(f"error: k3s is switched off and left {says}")
    assert done.stderr.endswith(": restart this machine, then run this again\n")
    assert done.stderr.count("\n") == 1
    assert (machine.root / "var/lib/rancher/k3s/storage/pvc-1/release/press-guard.bundle").is_file()
    # The mount and the process are gone with the shell that had them, as after a restart.
    assert machine.run(script, "--uninstall", "--purge").stderr == ""
    for path in ("var/lib/rancher/k3s", "run/k3s", "etc/rancher/k3s", "etc/edge-agent", "var/lib/edge-agent-kit"):
        assert not (machine.root / path).exists(), path


def test_a_disk_that_fstab_mounts_is_no_reason_to_restart_for_ever(machine: Machine) -> None:
    machine.run("/kit/install.sh", *OPTIONS)
    (machine.root / "etc/fstab").write_text("none /var/lib/rancher/k3s/storage tmpfs defaults 0 0\n")
    mount = "mount -t tmpfs none /var/lib/rancher/k3s/storage"
    done = machine.run("-c", f"{mount}; sh /var/lib/edge-agent-kit/install.sh --uninstall --purge")
    assert "mind: something of /var/lib/rancher/k3s is left" in done.stderr


def test_memory_that_cannot_be_removed_is_not_said_to_be_gone(machine: Machine) -> None:
    machine.run("/kit/install.sh", *OPTIONS)
    (machine.root / "etc/fstab").write_text("none /var/lib/rancher/k3s/storage tmpfs defaults 0 0\n")
    storage = "/var/lib/rancher/k3s/storage"
    mount = f"mount -t tmpfs none {storage}; touch {storage}/memory.db; mount -o remount,ro {storage}"
    script = "/var/lib/edge-agent-kit/install.sh"
    done = machine.run("-c", f"{mount}; sh {script} --uninstall --purge", code=4)
    assert f"error: {storage}/memory.db cannot be removed: see what holds it, then run this again" in done.stderr
    assert "SITE=plant-08\n" in (machine.root / "etc/edge-agent/kit.env").read_text()
    machine.run(script, "--uninstall", "--purge")
    assert not (machine.root / "var/lib/edge-agent-kit").exists()


def test_a_k3s_that_was_here_applies_all_of_it_anew(machine: Machine, joining: KitSpec, sealer: Sealer) -> None:
    """It ran when the site was taken away, and knows its manifests: but for a restart it would skip every one."""
    now_us = time.time_ns() // 1000
    assert joining.enrol is not None
    enrol = dataclasses.replace(joining.enrol, expires_us=now_us + 3_600_000_000)
    spec = dataclasses.replace(joining, made_us=now_us, enrol=enrol, machine=MachineSpec())
    write_kit(spec, machine.root / "site", sealer)
    machine.tool("k3s", joining.machine.cargo[0].source.read_text())
    (machine.root / "run" / "k3s-is-active").touch()
    (machine.root / "var/lib/rancher/k3s/storage/pvc-1").mkdir(parents=True)
    for _ in range(2):
        machine.run("/site/install.sh", *OPTIONS)
        assert machine.calls().count("restart k3s") == 1
        machine.run("/site/install.sh", *OPTIONS)
        assert "restart k3s" not in machine.calls(), "it is done once"
        machine.run("/site/install.sh", "--uninstall")
        machine.calls()


def test_a_k3s_that_was_here_and_does_not_do_it(machine: Machine, joining: KitSpec, sealer: Sealer) -> None:
    """Nothing is said to be gone that is not: whose memory it is stays known until k3s has removed it."""
    now_us = time.time_ns() // 1000
    assert joining.enrol is not None
    enrol = dataclasses.replace(joining.enrol, expires_us=now_us + 3_600_000_000)
    spec = dataclasses.replace(joining, made_us=now_us, enrol=enrol, machine=MachineSpec())
    write_kit(spec, machine.root / "site", sealer)
    script = joining.machine.cargo[0].source.read_text()
    machine.tool("k3s", script)
    machine.run("/site/install.sh", *OPTIONS)
    kept = "/var/lib/edge-agent-kit/install.sh"
    machine.run(kept, "--uninstall")
    machine.tool("k3s", '#!/bin/sh\n[ "$2" != delete ]\n')
    done = machine.run(kept, "--uninstall", "--purge", code=4)
    assert "error: k3s did not remove the namespace edge-agent, which holds what plant-08 remembers" in done.stderr
    (machine.root / "tools/sbin/k3s").unlink()
    done = machine.run(kept, "--uninstall", "--purge", code=2)
    assert "error: k3s is no longer on this machine, and what plant-08 remembers" in done.stderr
    machine.tool("k3s", script)
    machine.run(kept, "--uninstall", "--purge")
    assert not (machine.root / "var/lib/edge-agent-kit").exists()


def test_that_restart_is_made_too_where_the_first_run_was_cut_off(machine: Machine, joining: KitSpec) -> None:
    machine.run("/kit/install.sh", *OPTIONS)
    (machine.root / "etc/edge-agent/kit.env").write_text("SITE=plant-08\n")
    machine.tool("systemctl", '#!/bin/sh\n[ "$1" != daemon-reload ] || kill -9 $PPID\n')
    machine.run("/kit/install.sh", *OPTIONS, code=-9)
    machine.tool("systemctl", SYSTEMCTL)
    machine.run("/kit/install.sh", *OPTIONS)
    assert "restart k3s" in machine.calls()


def test_a_processor_that_the_k3s_is_not_for(machine: Machine, joining: KitSpec) -> None:
    other = "arm64" if os.uname().machine == "x86_64" else "amd64"
    spec = dataclasses.replace(joining, machine=dataclasses.replace(joining.machine, arch=other), made_us=0)
    assert spec.enrol is not None
    spec = dataclasses.replace(spec, enrol=dataclasses.replace(spec.enrol, expires_us=2**52))
    write_kit(spec, machine.root / "other")
    done = machine.run("/other/install.sh", *OPTIONS, code=2)
    assert f"and the k3s of this kit is for {other}: take another machine" in done.stderr
    assert machine.calls() == []


def test_a_person_who_is_not_root(machine: Machine) -> None:
    done = machine.run("-c", "setpriv --reuid 65534 --clear-groups sh /kit/install.sh --add-route", code=2)
    assert "error: this needs root: sudo sh install.sh" in done.stderr
