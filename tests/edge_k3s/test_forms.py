"""The other shapes of a kit: read by what reads them here, and the kit inside them is the kit."""

import base64
import dataclasses
import io
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_k3s.forms.ansible import as_ansible
from edge_k3s.forms.cloud import as_cloud_init, as_medium
from edge_k3s.forms.iso import ISO, as_iso
from edge_k3s.forms.kairos import as_kairos
from edge_k3s.forms.packed import check_small
from edge_k3s.kit import Form, seal, write_kit, write_kits
from edge_k3s.sealing import Sealer
from edge_k3s.spec import KitSpec, Machine
from edge_k3s.tree import File, Tree
from edge_models.errors import ConfigError


@pytest.fixture
def light(joining: KitSpec) -> KitSpec:
    """A kit without k3s and images."""
    return dataclasses.replace(joining, machine=Machine())


def inside(text: str) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(text)), mode="r:gz") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore[union-attr]


def small(tree: Tree) -> dict[str, bytes]:
    return {path: each.data for path, each in tree.items() if isinstance(each, File)}


def shape(form: Form, spec: KitSpec, sealer: Sealer) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The kit's own files, and the form's."""
    kit = seal(spec, sealer)
    return small(kit), small(form(spec, kit, sealer.public))


def test_cloud_init_gets_the_kit_and_one_command(light: KitSpec, sealer: Sealer) -> None:
    kit, made = shape(as_cloud_init, light, sealer)
    assert made["user-data"].startswith(b"#cloud-config\n")
    config = yaml.safe_load(made["user-data"])
    (written,) = config["write_files"]
    assert (written["permissions"], written["owner"], written["encoding"]) == ("0600", "root:root", "b64")
    assert inside(written["content"]) == kit
    meta = yaml.safe_load(made["meta-data"])
    assert (config["hostname"], meta["local-hostname"]) == ("plant-08", "plant-08")
    ((shell, flag, command),) = config["runcmd"]
    assert (shell, flag) == ("sh", "-c")
    assert f"install.sh --wait 900 --key {sealer.public}" in command
    other, _ = shape(as_cloud_init, dataclasses.replace(light, release=4), sealer)
    assert other != kit
    again = shape(as_cloud_init, dataclasses.replace(light, release=4), sealer)[1]
    assert yaml.safe_load(again["meta-data"])["instance-id"] != meta["instance-id"]


def test_the_command_does_what_it_says(light: KitSpec, sealer: Sealer, tmp_path: Path) -> None:
    """As cloud-init would: the file is written and the command run, below a prefix and with a shell that is told so."""
    now_us = time.time_ns() // 1000
    assert light.enrol is not None
    now = dataclasses.replace(
        light, made_us=now_us, enrol=dataclasses.replace(light.enrol, expires_us=now_us + 3_600_000_000)
    )
    config = yaml.safe_load(shape(as_cloud_init, now, sealer)[1]["user-data"])
    (written,), ((_, _, command),) = config["write_files"], config["runcmd"]
    seed = tmp_path / "seed"
    seed.mkdir()
    (seed / "kit.tar.gz").write_bytes(base64.b64decode(written["content"]))
    machine = tmp_path / "machine"
    machine.mkdir()
    here = command.replace(str(Path(written["path"]).parent), str(seed)).replace("--wait", f"--root {machine} --wait")
    subprocess.run(["sh", "-c", here], capture_output=True, text=True, check=True)
    assert "SITE=plant-08\n" in (machine / "etc/edge-agent/kit.env").read_text()
    assert not seed.exists(), "copies of secrets are left"


def test_what_a_person_types_where_a_cd_failed(joining: KitSpec, sealer: Sealer, tmp_path: Path) -> None:
    """The medium is mounted no more then. A copy stands in for the mount: everything else is as the file says it."""
    now_us = time.time_ns() // 1000
    assert joining.enrol is not None
    enrol = dataclasses.replace(joining.enrol, expires_us=now_us + 3_600_000_000)
    spec = dataclasses.replace(joining, made_us=now_us, enrol=enrol)
    write_kit(spec, tmp_path / "medium" / "kit", sealer)
    header = small(as_medium(spec, seal(spec, sealer), sealer.public))["user-data"].decode()
    typed = next(line for line in header.splitlines() if "If it failed: " in line).partition("If it failed: ")[2]
    (tmp_path / "machine").mkdir()
    here = (
        typed.replace("mount -o ro LABEL=cidata", f"cp -r {tmp_path}/medium/.")
        .replace("/run/edge-agent-seed", f"{tmp_path}/mounted")
        .replace("--wait", f"--ignore-size --add-route --root {tmp_path}/machine --wait")
    )
    done = subprocess.run(["sh", "-c", here], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "SITE=plant-08\n" in (tmp_path / "machine/etc/edge-agent/kit.env").read_text()


def test_what_is_too_large_for_a_text_is_refused(joining: KitSpec) -> None:
    check_small((), "cloud-init", "")
    with pytest.raises(ConfigError, match="--format cloud-init: k3s and images have no room in it: use --format iso"):
        check_small(joining.machine.cargo, "cloud-init", "use --format iso, which has")


def read_iso(path: Path) -> dict[str, tuple[int, bytes]]:
    """Name → mode and content, by Rock Ridge as Linux reads it."""
    pycdlib = pytest.importorskip("pycdlib")
    image = pycdlib.PyCdlib()
    image.open(str(path))
    found = {}
    try:
        for folder, _, names in image.walk(rr_path="/"):
            for name in names:
                whole = f"{folder.rstrip('/')}/{name}"
                data = io.BytesIO()
                image.get_file_from_iso_fp(data, rr_path=whole)
                mode = image.get_record(rr_path=whole).rock_ridge.get_file_mode()
                found[whole.removeprefix("/")] = (mode & 0o777, data.getvalue())
    finally:
        image.close()
    return found


def test_a_cd_has_all_of_it(joining: KitSpec, full_kit: Path, sealer: Sealer, tmp_path: Path) -> None:
    pytest.importorskip("pycdlib")
    write_kit(joining, tmp_path / "medium", sealer, as_iso)
    found = read_iso(tmp_path / "medium" / ISO)
    assert (tmp_path / "medium" / ISO).read_bytes()[32768 + 40 :][:32].strip() == b"cidata"
    kit = {path.relative_to(full_kit).as_posix(): path for path in full_kit.rglob("*") if path.is_file()}
    assert set(found) == {"user-data", "meta-data", *(f"kit/{name}" for name in kit)}
    for name, path in kit.items():
        mode, data = found[f"kit/{name}"]
        assert data == path.read_bytes(), name
        assert mode == path.stat().st_mode & 0o777, name
    ((_, _, command),) = yaml.safe_load(found["user-data"][1])["runcmd"]
    assert "mount -o ro LABEL=cidata" in command
    assert f"kit/install.sh --wait 900 --key {sealer.public}" in command


def test_many_cds(joining: KitSpec, sealer: Sealer, tmp_path: Path) -> None:
    pytest.importorskip("pycdlib")
    specs = [dataclasses.replace(joining, site=f"plant-{n:02}") for n in range(3)]
    write_kits(specs, tmp_path / "media", sealer, as_iso)
    for spec in specs:
        assert f"SITE={spec.site}\n".encode() in read_iso(tmp_path / "media" / spec.site / ISO)["kit/kit.env"][1]


def test_k3s_ansible_gets_the_settings_and_the_airgap_folder(
    joining: KitSpec, full_kit: Path, sealer: Sealer, tmp_path: Path
) -> None:
    write_kit(joining, tmp_path / "plays", sealer, as_ansible)
    cluster = yaml.safe_load((tmp_path / "plays" / "inventory.yml").read_text())["k3s_cluster"]
    assert list(cluster["children"]["server"]["hosts"]) == ["plant-08"]
    variables = cluster["vars"]
    assert variables["k3s_version"] == "v1.35.2+k3s1"
    assert variables["server_config_yaml"] == (full_kit / "node" / "config.yaml").read_text()
    assert variables["registries_config_yaml"] == (full_kit / "node" / "registries.yaml").read_text()
    folder = tmp_path / "plays" / variables["airgap_dir"].removeprefix("{{ inventory_dir }}/")
    assert sorted(path.name for path in folder.iterdir()) == ["edge-agent-kit.tar.zst", "k3s", "k3s-install.sh"]
    named: list[Any] = [yaml.safe_load((tmp_path / "plays" / name).read_text()) for name in ("before.yml", "after.yml")]
    laid = [
        task["ansible.builtin.copy"] for (play,) in named for task in play["tasks"] if "ansible.builtin.copy" in task
    ]
    for each in laid:
        assert (tmp_path / "plays" / each["src"].removeprefix("{{ inventory_dir }}/")).exists()
    assert {"/var/lib/rancher/k3s/server/psa.yaml", "/var/lib/rancher/k3s/server/audit.yaml"} < {
        each["dest"] for each in laid
    }
    assert any(f"install.sh --wait 900 --key {sealer.public}" in str(task) for task in named[1][0]["tasks"])


def test_kairos_gets_its_settings_before_k3s_starts(light: KitSpec, sealer: Sealer) -> None:
    kit, made = shape(as_kairos, light, sealer)
    config = yaml.safe_load(made["cloud-config.yaml"])
    assert config["k3s"] == {"enabled": True}
    (early,), (late,) = config["stages"]["initramfs"], config["stages"]["boot"]
    files = {each["path"]: each["content"].encode() for each in early["files"]}
    assert files["/etc/rancher/k3s/config.yaml.d/50-edge-agent.yaml"] == kit["node/config.yaml"]
    assert files["/var/lib/rancher/k3s/server/psa.yaml"] == kit["node/psa.yaml"]
    assert early["sysctl"]["vm.overcommit_memory"] == "1"
    assert inside(late["files"][0]["content"]) == kit
    assert f"install.sh --wait 900 --key {sealer.public}" in late["commands"][0]


@pytest.mark.parametrize("form", [as_cloud_init, as_kairos, as_ansible])
def test_the_same_kit_gives_the_same_bytes(form: Form, light: KitSpec, sealer: Sealer) -> None:
    assert shape(form, light, sealer) == shape(form, light, sealer)


def test_secrets_are_in_files_that_only_the_owner_reads(light: KitSpec, sealer: Sealer, tmp_path: Path) -> None:
    for form in (as_cloud_init, as_kairos):
        write_kit(light, tmp_path / form.__name__, sealer, form)
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / form.__name__).iterdir()}
        assert modes.pop("meta-data", 0o644) == 0o644
        assert set(modes.values()) == {0o600}
