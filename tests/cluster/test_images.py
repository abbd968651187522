"""Which image each pod runs, from files as `edge-agent image build` writes them, and from names."""

import re
import sys
from pathlib import Path

import pytest

from edge_cluster.images import Image, Images, choose, load, read_reference, read_tar
from edge_cluster.outcome import Unfit
from edge_k3s.image.oci import make_image, make_layer


def tar(folder: Path, role: str) -> Path:
    layer = make_layer("base", {}, 1)
    run = {"Labels": {"edge-agent-kit/role": role}}
    made = make_image(f"kit-{role}", "1", [layer], architecture="amd64", created="2026-01-01T00:00:00Z", run=run)
    path = folder / f"{role}.tar"
    path.write_bytes(made.archive)
    return path


def test_a_file_says_its_name_and_its_role(tmp_path: Path) -> None:
    hub, site = (read_tar(tar(tmp_path, role)) for role in ("hub", "site"))
    assert re.fullmatch(r"kit-hub:1-[0-9a-f]{12}", hub.reference)
    assert (hub.role, site.role) == ("hub", "site")
    assert choose([site, hub]) == Images(hub.reference, site.reference)


def test_the_image_of_a_hub_does_for_both() -> None:
    assert choose([Image("kit:1", "hub")]) == choose([Image("kit:1")]) == Images("kit:1", "kit:1")


def test_names_say_what_they_are_for() -> None:
    assert read_reference("kit:1") == Image("kit:1")
    assert read_reference("hub=registry.example.com:5000/kit:1") == Image("registry.example.com:5000/kit:1", "hub")


@pytest.mark.parametrize(
    ("text", "says"),
    [("broker=kit:1", "write NAME:TAG"), ("kit", "kit"), ("kit:latest", "latest")],
)
def test_a_name_that_is_none(text: str, says: str) -> None:
    with pytest.raises(Unfit, match=re.escape(says)):
        read_reference(text)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ([], "no image of a hub"),
        ([Image("kit:1", "site")], "no image of a hub"),
        ([Image("kit:1", "hub"), Image("kit:2", "hub")], "two images of role hub"),
    ],
)
def test_too_few_or_too_many(images: list[Image], says: str) -> None:
    with pytest.raises(Unfit, match=says):
        choose(images)


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "notes.tar").write_text("no tar")
    with pytest.raises(Unfit, match="is no image"):
        read_tar(tmp_path / "notes.tar")
    with pytest.raises(Unfit, match="No such file"):
        read_tar(tmp_path / "none.tar")


def test_a_file_is_brought_to_the_nodes_by_the_users_own_command(tmp_path: Path) -> None:
    source, target = tmp_path / "an image.tar", tmp_path / "node.tar"
    source.write_bytes(b"bytes")
    copy = f"import shutil, sys; shutil.copy(sys.argv[1], '{target}')"
    load(f'{sys.executable} -c "{copy}" {{tar}}', source)
    assert target.read_bytes() == b"bytes"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("true", "write a command with {tar} in it"),
        ("false {tar}", "ended with 1: it said nothing"),
        ("no-such-program-here {tar}", "no-such-program-here"),
    ],
)
def test_a_command_that_brings_nothing(tmp_path: Path, command: str, says: str) -> None:
    with pytest.raises(Unfit, match=re.escape(says)):
        load(command, tmp_path / "image.tar")
