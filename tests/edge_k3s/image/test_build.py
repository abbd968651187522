"""Whole small images: their bytes, their layers, their errors."""

import io
import json
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from edge_k3s.image.build import build
from edge_k3s.image.oci import compress, in_full
from edge_k3s.image.spec import ImageSpec, ImageSummary
from edge_models.digests import digest_of
from edge_models.errors import ConfigError, RejectedError

SITE_PACKAGES = "opt/edge-agent/lib/python3.11/site-packages"


@pytest.fixture
def spec(root: Path, house: Path, tmp_path: Path) -> Callable[..., ImageSpec]:
    """A small site, or what is changed in it."""

    def make(**changes: Any) -> ImageSpec:
        usual = {"role": "site", "platform": "linux/amd64", "base": root, "wheels": house, "level": 1}
        return ImageSpec(**{**usual, "out": tmp_path / "image.tar", **changes})

    return make


class Opened:
    """An image read back as a loader would."""

    def __init__(self, summary: ImageSummary) -> None:
        with tarfile.open(summary.path) as archive:
            members = [member for member in archive if member.isreg()]
            self.files = {member.name: stream.read() for member in members if (stream := archive.extractfile(member))}
        self.index = json.loads(self.files["index.json"])["manifests"][0]
        self.manifest = json.loads(self.blob(self.index["digest"]))
        self.config = json.loads(self.blob(self.manifest["config"]["digest"]))

    def blob(self, digest: str) -> bytes:
        """A blob, which is what its name says."""
        data = self.files["blobs/sha256/" + digest.removeprefix("sha256:")]
        assert digest_of(data) == digest
        return data

    def layers(self) -> list[dict[str, bytes]]:
        """Path → content of the files of each layer."""
        found = []
        for described, diff_id in zip(self.manifest["layers"], self.config["rootfs"]["diff_ids"], strict=True):
            data = zstd.decompress(self.blob(described["digest"]))
            assert digest_of(data) == diff_id
            with tarfile.open(fileobj=io.BytesIO(data)) as layer:
                members = [member for member in layer if member.isreg()]
                found.append({each.name: stream.read() for each in members if (stream := layer.extractfile(each))})
        return found


def test_every_descriptor_names_what_is_there(spec: Callable[..., ImageSpec]) -> None:
    summary = build(spec(name="registry.example.com/edge/agent"))
    opened = Opened(summary)
    assert opened.index["digest"] == summary.digest
    assert opened.manifest["config"]["digest"] == summary.image_id
    tag = f"0.1.0-{summary.image_id.removeprefix('sha256:')[:12]}"
    assert summary.reference == f"registry.example.com/edge/agent:{tag}"
    assert json.loads(opened.files["manifest.json"])[0]["RepoTags"] == [summary.reference]
    assert opened.index["annotations"]["io.containerd.image.name"] == summary.reference
    assert len(opened.layers()) == 3
    run = opened.config["config"]
    assert (run["User"], run["Entrypoint"]) == ("10001:10001", ["edge-agent"])
    assert "ORT_DISABLE_TELEMETRY=1" in run["Env"]
    assert opened.config["created"] == "2020-02-02T00:00:00Z"


def test_names_in_full() -> None:
    assert in_full("edge-agent-kit") == "docker.io/library/edge-agent-kit"
    assert in_full("company/agent") == "docker.io/company/agent"
    assert in_full("localhost/agent") == "localhost/agent"
    assert in_full("registry:5000/agent") == "registry:5000/agent"


def test_the_same_content_gives_the_same_bytes_whatever_the_times_and_folders(
    spec: Callable[..., ImageSpec],
    new_root: Callable[..., Path],
    wheel: Callable[..., Path],
    house: Path,
    tmp_path: Path,
) -> None:
    first = build(spec(out=tmp_path / "first.tar"))
    other = tmp_path / "other"
    shutil.copytree(house, other, copy_function=shutil.copyfile)
    # Files that nobody asked for are in the folder, too.
    wheel("unasked", folder=other)
    second = build(spec(wheels=other, base=new_root(tmp_path / "r.tar", mtime=5), out=tmp_path / "second.tar"))
    assert first.path.read_bytes() == second.path.read_bytes()


def test_the_layers_are_base_dependencies_and_kit(spec: Callable[..., ImageSpec]) -> None:
    base, dependencies, kit = Opened(build(spec())).layers()
    assert "usr/bin/python3.11" in base
    assert f"{SITE_PACKAGES}/numbers_in_rows/__init__.py" in dependencies
    assert f"{SITE_PACKAGES}/edge_cli/main.py" in kit
    assert kit["opt/edge-agent/bin/edge-agent"].startswith(b"#!/opt/edge-agent/bin/python3\n")
    assert b"home = /usr/bin\n" in dependencies["opt/edge-agent/pyvenv.cfg"]
    assert not [path for path in (*dependencies, *kit) if path.endswith("/RECORD") or "/pip" in path]


def test_a_changed_kit_moves_the_kit_only_and_a_changed_date_moves_no_layer(
    spec: Callable[..., ImageSpec], wheel: Callable[..., Path], house: Path
) -> None:
    before = build(spec())
    later = build(spec(created_s=1_800_000_000))
    assert [each.digest for each in later.layers] == [each.digest for each in before.layers]
    assert later.digest != before.digest
    wheel("edge-agent-kit", "0.2.0", "numbers-in-rows", files={"edge_agent/__init__.py": "new = 1\n"}, folder=house)
    after = build(spec())
    assert [each.digest for each in after.layers[:-1]] == [each.digest for each in before.layers[:-1]]
    assert after.layers[-1].digest != before.layers[-1].digest
    assert after.reference.startswith("edge-agent-kit:0.2.0-")


def test_a_hub_has_the_layers_of_a_site_and_its_own_between(spec: Callable[..., ImageSpec]) -> None:
    site, hub = build(spec()), build(spec(role="hub"))
    assert [each.name for each in hub.layers] == ["base", "dependencies", "extras", "kit"]
    assert [each.digest for each in hub.layers[:2]] == [each.digest for each in site.layers[:2]]
    extras = Opened(hub).layers()[2]
    assert {f"{SITE_PACKAGES}/web/__init__.py", "usr/sbin/mosquitto"} <= extras.keys()
    assert hub.reference.startswith("edge-agent-kit-hub:0.1.0-")


def test_a_broker_is_mosquitto_alone(spec: Callable[..., ImageSpec]) -> None:
    summary = build(spec(role="broker", wheels=None))
    opened = Opened(summary)
    (layer,) = opened.layers()
    assert summary.reference.startswith("edge-agent-kit-broker:2.0.11-")
    assert opened.config["config"]["Entrypoint"] == ["/usr/sbin/mosquitto"]
    assert not [path for path in layer if "python" in path]


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="compiles for the Python of the base, 3.11")
def test_modules_are_compiled_and_their_compiled_files_bear_no_time(spec: Callable[..., ImageSpec]) -> None:
    base, dependencies, kit = Opened(build(spec())).layers()
    for layer, module in (
        (base, "usr/lib/python3.11/__pycache__/os.cpython-311.pyc"),
        (dependencies, f"{SITE_PACKAGES}/numbers_in_rows/__pycache__/__init__.cpython-311.pyc"),
        (kit, f"{SITE_PACKAGES}/edge_cli/__pycache__/main.cpython-311.pyc"),
    ):
        # PEP 552: by hash, and unchecked.
        assert layer[module][4:8] == (1).to_bytes(4, "little")


def test_the_bill_of_materials_is_valid_and_names_all(spec: Callable[..., ImageSpec]) -> None:
    summary = build(spec(role="hub"))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(summary.bill.decode()) is None
    document = json.loads(summary.bill)
    assert document["metadata"]["component"]["purl"] == "pkg:pypi/edge-agent-kit@0.1.0"
    purls = {each["purl"] for each in document["components"]}
    assert {"pkg:pypi/web@2.1", "pkg:pypi/numbers-in-rows@1.2"} <= purls
    assert "pkg:deb/debian/libstdc%2B%2B6@12.2?arch=amd64&distro=debian" in purls
    assert "pkg:deb/debian/mosquitto@2.0.11-1?arch=amd64&distro=debian" in purls
    assert Opened(summary).layers()[-1]["usr/share/edge-agent/sbom.cdx.json"] == summary.bill


def test_parts_are_measured_when_asked(spec: Callable[..., ImageSpec]) -> None:
    assert build(spec()).parts == ()
    parts = {part.name: part for part in build(spec(), with_parts=True).parts}
    assert parts["numbers-in-rows"].layer == "dependencies"
    assert parts["libc6"].size_bytes == len("glibc" + "LGPL")


@pytest.mark.parametrize("member", ["bin/sh", "usr_sbin/../../x", "../../../../../bin/x"])
def test_a_wheel_that_brings_a_shell_or_leads_out_is_refused(
    spec: Callable[..., ImageSpec], wheel: Callable[..., Path], house: Path, member: str
) -> None:
    wheel("numbers-in-rows", "1.3", files={member: "#!"}, folder=house)
    with pytest.raises(RejectedError):
        build(spec())


def test_a_wheel_that_is_not_what_its_record_says_is_refused_and_nothing_is_written(
    spec: Callable[..., ImageSpec], wheel: Callable[..., Path], house: Path, tmp_path: Path
) -> None:
    path = wheel("numbers-in-rows", "1.3", files={"numbers_in_rows/__init__.py": "good = 1\n"}, folder=house)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    # A flipped bit; then a zip that is sound, whose content is another.
    path.write_bytes(path.read_bytes().replace(b"good = 1", b"evil = 1"))
    with pytest.raises(RejectedError, match=r"numbers_in_rows-1.3.*CRC"):
        build(spec())
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data.replace(b"good", b"evil"))
    with pytest.raises(RejectedError, match=r"numbers_in_rows-1.3"):
        build(spec())
    assert not (tmp_path / "image.tar").exists()


def test_what_is_wrong_with_an_order_is_said(spec: Callable[..., ImageSpec], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--extra 'x'"):
        build(spec(extras=("x",)))
    with pytest.raises(ConfigError, match="needs a folder of wheels"):
        build(spec(wheels=None))
    with pytest.raises(ConfigError, match="there is no folder"):
        build(spec(out=tmp_path / "nowhere" / "image.tar"))
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match="--out"):
        build(spec(out=tmp_path / "taken"))


def test_compression_does_not_depend_on_the_number_of_cores() -> None:
    data = bytes(range(256)) * 40_000
    parameter = zstd.CompressionParameter
    for workers in (1, 3):
        options: dict[int, int] = {
            parameter.compression_level: 3, parameter.nb_workers: workers, parameter.checksum_flag: 1,
        }  # fmt: skip
        assert zstd.compress(data, options=options) == compress(data, 3)
