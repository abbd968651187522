import dataclasses
import subprocess
from pathlib import Path

import pytest

from edge_k3s.kitenv import facts_of, read_env, write_env
from edge_k3s.spec import KitSpec
from edge_models.errors import RejectedError


def test_a_program_reads_what_was_written(joining: KitSpec, spec: KitSpec) -> None:
    for each in (joining, spec):
        facts = facts_of(each, "0.1.0")
        assert read_env(write_env(facts)) == facts


def test_a_shell_reads_the_same(joining: KitSpec, tmp_path: Path) -> None:
    text = write_env(facts_of(joining, "0.1.0"))
    (tmp_path / "kit.env").write_text(text)
    said = subprocess.run(
        ["sh", "-c", "set -a; . ./kit.env; env -i SITE=$SITE IMAGE=$IMAGE AIRGAP=$AIRGAP TOKEN_EXPIRES=$TOKEN_EXPIRES"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert set(said) <= set(text.splitlines())
    assert "SITE=plant-08" in said
    assert "AIRGAP=yes" in said


def test_images_need_room_packed_and_unpacked(joining: KitSpec) -> None:
    large = tuple(dataclasses.replace(each, size_bytes=100 * 2**20) for each in joining.machine.cargo[:2])
    with_images = dataclasses.replace(joining, machine=dataclasses.replace(joining.machine, cargo=large))
    bare = dataclasses.replace(joining, machine=dataclasses.replace(joining.machine, cargo=()))
    assert facts_of(with_images, "0.1.0").disk_mb - facts_of(bare, "0.1.0").disk_mb == 800


def test_a_value_that_a_shell_would_run_cannot_be_written(spec: KitSpec) -> None:
    with pytest.raises(ValueError, match="cannot stand"):
        write_env(facts_of(dataclasses.replace(spec, image="kit:1;reboot"), "0.1.0"))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("KIT_FORMAT=1", "KIT_FORMAT=2", "format '2', where this edge-agent reads 1"),
        ("SITE=plant-07\n", "", "no SITE"),
        ("RELEASE=3", "RELEASE=three", "kit.env: "),
        ("SITE=plant-07", "SITE=$(reboot)", "is no NAME=VALUE"),
        ("NEED_CORES=2", "NEED_CORES=", "kit.env: "),
    ],
)
def test_what_is_no_kit_env_is_refused(spec: KitSpec, old: str, new: str, says: str) -> None:
    text = write_env(facts_of(spec, "0.1.0"))
    assert old in text
    with pytest.raises(RejectedError) as caught:
        read_env(text.replace(old, new))
    assert says in str(caught.value)


def test_lines_of_a_newer_kit_are_passed_over(spec: KitSpec) -> None:
    facts = facts_of(spec, "0.1.0")
    assert read_env(write_env(facts) + "COLOUR=blue\n") == facts
