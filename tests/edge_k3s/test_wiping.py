import os
from pathlib import Path

import pytest

from edge_k3s.spec import KitSpec
from edge_k3s.wiping import wipe_secrets
from edge_models.errors import ConfigError


def test_no_secret_stays(joining: KitSpec, full_kit: Path) -> None:
    assert wipe_secrets(full_kit) == [
        "secrets/api.token", "secrets/join.token", "secrets/local.password", "manifests/05-secrets.yaml",
    ]  # fmt: skip
    left = b"".join(path.read_bytes() for path in full_kit.rglob("*") if path.is_file())
    assert not [secret for secret in joining.secrets.values() if secret.encode() in left]
    assert (full_kit / "site.yaml").exists()
    assert wipe_secrets(full_kit) == []


def test_the_bytes_are_written_over(full_kit: Path) -> None:
    """A second name of the file shows what a disk still has of it."""
    os.link(full_kit / "secrets" / "api.token", full_kit / "still-there")
    before = (full_kit / "still-there").read_bytes()
    wipe_secrets(full_kit)
    after = (full_kit / "still-there").read_bytes()
    assert len(after) == len(before)
    assert after != before


def test_what_is_no_kit_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "diary").write_text("mine")
    with pytest.raises(ConfigError, match="is no kit"):
        wipe_secrets(tmp_path)
    assert (tmp_path / "secrets" / "diary").read_text() == "mine"
