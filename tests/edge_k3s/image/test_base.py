"""What an image takes of a Debian root, and what it leaves there."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_k3s.image.base import BROKER, PYTHON, ground, select, target_of
from edge_k3s.image.dpkg import read_root
from edge_k3s.image.tree import File, Link
from edge_models.errors import ConfigError

LIBC = "usr/lib/x86_64-linux-gnu/libc.so.6"


def test_packages_that_are_needed_come_with_what_they_require_and_no_more(root: Path) -> None:
    tree, packages = select(read_root(root), PYTHON)
    assert [package.name for package in packages] == [
        "base-files", "ca-certificates", "libc6", "libgcc-s1", "libpython3.11-stdlib", "libstdc++6", "netbase",
        "python3.11-minimal", "tzdata",
    ]  # fmt: skip
    assert [path for path in tree if "bin/" in path] == ["usr/bin/python3.11"]
    # Named by the package below /lib, and lying below /usr/lib.
    assert tree[LIBC] == File(b"glibc")
    assert "usr/share/doc/libc6/copyright" in tree
    assert not [path for path in tree if "/man/" in path or "README" in path or "readline" in path]
    listed = tree["var/lib/dpkg/status.d/libc6"]
    assert isinstance(listed, File)
    assert listed.data.startswith(b"Package: libc6\nVersion: 2.36-9\n")


def test_certificates_are_one_file(root: Path) -> None:
    tree, _ = select(read_root(root), PYTHON)
    assert tree["etc/ssl/certs/ca-certificates.crt"] == File(b"A\nB\n")
    assert not [path for path in tree if path.startswith("usr/share/ca-certificates")]


def test_modes_are_not_the_builders(root: Path) -> None:
    tree, _ = select(read_root(root), BROKER)
    # It was setuid there, and the library was closed to others.
    assert tree["usr/sbin/mosquitto"] == File(b"a broker", executable=True)
    assert tree[LIBC] == File(b"glibc", executable=False)


def test_the_ground_has_the_user_and_the_links_of_a_merged_usr(root: Path) -> None:
    tree = ground(read_root(root))
    assert tree["lib"] == Link("usr/lib")
    passwd = tree["etc/passwd"]
    assert isinstance(passwd, File)
    assert b"edge:x:10001:10001:" in passwd.data


def test_what_the_image_is_for_follows_from_the_base(root: Path) -> None:
    target = target_of(read_root(root), "linux/amd64")
    assert (target.python, target.glibc, target.machine) == ((3, 11), (2, 36), "x86_64")
    assert target.platforms[0] == "manylinux_2_36_x86_64"
    assert target.platforms[-1] == "linux_x86_64"
    assert "manylinux2014_x86_64" in target.platforms


def test_a_base_that_will_not_do_is_refused_with_the_reason(
    root: Path, tmp_path: Path, new_root: Callable[..., Path]
) -> None:
    with pytest.raises(ConfigError, match="it is for amd64, and --platform says arm64"):
        target_of(read_root(root), "linux/arm64")
    lacking = read_root(new_root(tmp_path / "lacking.tar", leave_out="netbase"))
    with pytest.raises(ConfigError, match="no package netbase, which the image requires"):
        select(lacking, PYTHON)
    lacking = read_root(new_root(tmp_path / "lacking.tar", leave_out="libgcc-s1"))
    with pytest.raises(ConfigError, match="no package libgcc-s1, which libc6 requires"):
        select(lacking, PYTHON)
    (tmp_path / "text").write_text("no tar")
    with pytest.raises(ConfigError, match="no tar that can be read"):
        read_root(tmp_path / "text")
    with pytest.raises(ConfigError, match="no tar that can be read"):
        read_root(tmp_path / "nowhere")
    empty = tmp_path / "empty.tar"
    empty.write_bytes(bytes(10240))
    with pytest.raises(ConfigError, match="names no Debian packages"):
        read_root(empty)
