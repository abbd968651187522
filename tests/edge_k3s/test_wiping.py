import os
from pathlib import Path

import pytest

from edge_k3s.spec import KitSpec
from edge_k3s.wiping import SITE_KEYS, wipe_secrets
from edge_models.errors import ConfigError


def test_no_secret_stays(joining: KitSpec, full_kit: Path) -> None:
    assert wipe_secrets(full_kit) == [
        "secrets/api.token", "secrets/join.token", "secrets/local.password", "manifests/05-secrets.yaml",
    ]  # fmt: skip
    left = b"".join(path.read_bytes() for path in full_kit.rglob("*") if path.is_file())
    assert not [secret for secret in joining.secrets.values() if secret.encode() in left]
    assert (full_kit / "site.yaml").exists()
    assert wipe_secrets(full_kit) == []


def test_the_keys_of_a_site_that_was_run_from_the_kit_go_too(full_kit: Path) -> None:
    """And nothing else of its data: not its certificate, not its memory, and nothing that a link leads to."""
    wipe_secrets(full_kit)
    data, elsewhere = full_kit / "data", full_kit.parent / "elsewhere"
    kept = ["identity/certificate.pem", "memory.db", "trust/key.pem"]
    for path in (*SITE_KEYS, "restore.partial/journal.key", *kept):
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).write_text(path)
    assert wipe_secrets(full_kit) == [*(f"data/{name}" for name in SITE_KEYS), "data/restore.partial/journal.key"]
    assert sorted(path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()) == kept
    data.rename(elsewhere)
    data.symlink_to(elsewhere)
    (elsewhere / "identity" / "key.pem").write_text("another's")
    assert wipe_secrets(full_kit) == []
    assert (elsewhere / "identity" / "key.pem").read_text() == "another's"


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
