import hashlib
import io
import json
import struct
import tarfile
from pathlib import Path

import pytest

from edge_k3s.cargo import image_cargo, k3s_cargo, script_cargo
from edge_k3s.spec import Cargo
from edge_k3s.tree import copy_cargo
from edge_models.errors import ConfigError


def elf(machine: int, order: str = "<") -> bytes:
    """The head of a program for Linux."""
    ident = b"\x7fELF" + bytes([2, 1 if order == "<" else 2, 1]) + bytes(9)
    return ident + struct.pack(f"{order}HH", 2, machine) + b"the rest of k3s"


@pytest.mark.parametrize(("data", "arch"), [(elf(62), "amd64"), (elf(183), "arm64")])
def test_k3s_says_for_which_processor_it_is(tmp_path: Path, data: bytes, arch: str) -> None:
    path = tmp_path / "k3s-downloaded"
    path.write_bytes(data)
    cargo, found = k3s_cargo(path, None)
    assert (found, cargo) == (arch, Cargo("k3s", path, hashlib.sha256(data).hexdigest(), len(data), 0o755))


def test_a_hash_in_capitals_is_a_hash(tmp_path: Path) -> None:
    (tmp_path / "k3s").write_bytes(elf(62))
    k3s_cargo(tmp_path / "k3s", hashlib.sha256(elf(62)).hexdigest().upper())


@pytest.mark.parametrize(
    ("data", "sha256", "says"),
    [
        (None, None, "No such file"),
        (elf(62), "0" * 64, "has the sha256 .*, not 000000"),
        (elf(62), "short", "wanted 64 hex digits"),
        (elf(8), None, "is for another processor"),
        (elf(62, ">"), None, ""),
        (b"<html>404</html>", None, "was a web page saved in its place"),
        (b"", None, "is no program for Linux"),
    ],
)
def test_what_is_not_the_k3s_that_was_meant(tmp_path: Path, data: bytes | None, sha256: str | None, says: str) -> None:
    if data is not None:
        (tmp_path / "k3s").write_bytes(data)
    if not says:  # big-endian is read as such
        assert k3s_cargo(tmp_path / "k3s", sha256)[1] == "amd64"
        return
    with pytest.raises(ConfigError, match=says):
        k3s_cargo(tmp_path / "k3s", sha256)


def test_a_script_is_a_script(tmp_path: Path) -> None:
    (tmp_path / "install.sh").write_text("#!/bin/sh\n")
    assert script_cargo(tmp_path / "install.sh").name == "k3s-install.sh"
    (tmp_path / "install.sh").write_text("<html>")
    with pytest.raises(ConfigError, match="is no script"):
        script_cargo(tmp_path / "install.sh")


def test_images_are_tarballs_of_different_names(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar.zst", "c.tar.gz", "d.tgz", "e e.tar"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.tar").write_bytes(b"y")
    names = [each.name for each in image_cargo([tmp_path / n for n in ("a.tar", "b.tar.zst", "c.tar.gz")])]
    assert names == ["a.tar", "b.tar.zst", "c.tar.gz"]
    for wrong, says in (("d.tgz", "name it so"), ("e e.tar", "rename it"), ("more/a.tar", "two have the name a.tar")):
        with pytest.raises(ConfigError, match=says):
            image_cargo([tmp_path / "a.tar", tmp_path / wrong])


def test_a_file_that_changes_while_it_is_copied_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"x")
    (cargo,) = image_cargo([tmp_path / "a.tar"])
    (tmp_path / "a.tar").write_bytes(b"y")
    with pytest.raises(ConfigError, match="changed while the kit was made"):
        copy_cargo(cargo, tmp_path / "copy.tar")


def saved(path: Path, *names: str) -> Path:
    """A tarball as ``docker save`` makes it, as far as names go."""
    data = json.dumps([{"Config": "c.json", "RepoTags": [name], "Layers": []} for name in names]).encode()
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return path


def test_a_tarball_tells_the_images_in_it_where_it_can(tmp_path: Path) -> None:
    (tmp_path / "odd.tar").write_bytes(b"no tar")
    (tmp_path / "packed.tar.zst").write_bytes(b"packed")
    paths = [saved(tmp_path / "two.tar", "a:1", "b:2"), tmp_path / "odd.tar", tmp_path / "packed.tar.zst"]
    assert [each.images for each in image_cargo(paths)] == [{"a:1", "b:2"}, None, None]
