"""The authorities below the root are renewed. Held: sync/SPEC.md, Enrolment."""

import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from edge_hub.enrol.authority import Authority, make_authority, moment
from edge_hub.enrol.enrolment import open_authority
from edge_hub.enrol.equipment import Equipment
from edge_hub.enrol.ledger import Ledger
from edge_hub.enrol.plan import EnrolPlan
from edge_hub.enrol.renewing import ends_soon, renew_authority
from edge_hub.files import write_private
from edge_models.errors import ConfigError
from edge_sync.enrol.certificate import issued_by, load_pem, read_identity, to_pem
from edge_sync.enrol.request import new_key, public_half

MADE_US = 2_210_000_000_000_000
DAY_US = 86_400_000_000
LATE_US = MADE_US + 1_800 * DAY_US
"""25 days before the end of what is below the root."""


@pytest.fixture
def old(tmp_path: Path) -> Authority:
    return make_authority(tmp_path / "ca", MADE_US)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def verified(tmp_path: Path, authority: Authority, leaf: x509.Certificate, above: x509.Certificate, at_us: int) -> str:
    """What OpenSSL says of a site's certificate, with what it sends along, against what a broker believes."""
    (tmp_path / "leaf.pem").write_bytes(to_pem([leaf]))
    (tmp_path / "sent.pem").write_bytes(to_pem([above]))
    (tmp_path / "believed.pem").write_bytes(authority.clients_pem)
    (tmp_path / "list.pem").write_bytes(authority.revoked_pem({"ab": MADE_US}, at_us))
    words = ["openssl", "verify", "-attime", str(at_us // 1_000_000), "-crl_check", "-purpose", "sslclient"]
    words += ["-CAfile", "believed.pem", "-CRLfile", "list.pem", "-untrusted", "sent.pem", "leaf.pem"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_what_was_signed_before_counts_under_the_new_certificates(old: Authority, tmp_path: Path) -> None:
    key = public_half(new_key())
    before = old.issue_site("plant-01", key, LATE_US)
    assert read_identity(before).ends_us == old.ends_us, "nothing outlives who signed it"
    listed = old.revoked_pem({"ab": MADE_US}, LATE_US)
    new = renew_authority(old.path, LATE_US)
    assert new.pin == old.pin
    assert new.clients.certificate != old.clients.certificate
    assert issued_by(before, new.clients.certificate)
    assert x509.load_pem_x509_crl(listed).is_signature_valid(new.clients.key.public_key())
    for sent in (old, new):
        assert "leaf.pem: OK" in verified(tmp_path, new, before, sent.clients.certificate, LATE_US + DAY_US)
    after = new.issue_site("plant-01", key, LATE_US)
    assert read_identity(after).ends_us == LATE_US + 90 * DAY_US
    ended_us = LATE_US + 60 * DAY_US  # the old authority ended meanwhile
    for sent in (old, new):
        assert "leaf.pem: OK" in verified(tmp_path, new, after, sent.clients.certificate, ended_us)
    assert "OK" not in verified(tmp_path, old, after, old.clients.certificate, ended_us)


def test_they_last_five_years_more_and_never_longer_than_the_root(old: Authority) -> None:
    new = renew_authority(old.path, LATE_US)
    for each in (new.clients.certificate, new.servers.certificate):
        assert each.not_valid_after_utc == moment(LATE_US) + timedelta(days=1_825)
        assert issued_by(each, new.root)
    again = renew_authority(old.path, LATE_US + 1_000 * DAY_US)
    root_ends = again.root.not_valid_after_utc
    assert again.clients.certificate.not_valid_after_utc == again.servers.certificate.not_valid_after_utc == root_ends
    files = contents(old.path)
    renew_authority(old.path, LATE_US + 1_100 * DAY_US)
    assert contents(old.path) == files, "nothing is won by it"


def test_it_wants_the_roots_key_wherever_that_is(old: Authority, tmp_path: Path) -> None:
    away = tmp_path / "safe" / "root.key"
    away.parent.mkdir()
    (old.path / "root.key").rename(away)
    other = make_authority(tmp_path / "other", MADE_US)
    files = contents(old.path)
    for key, why in (
        (None, "say where it is kept with --root-key FILE"),
        (other.path / "root.key", "is not the key of"),
    ):
        with pytest.raises(ConfigError, match=why):
            renew_authority(old.path, LATE_US, key)
    assert contents(old.path) == files
    assert renew_authority(old.path, LATE_US, away).ends_us > old.ends_us
    assert not (old.path / "root.key").exists()


@pytest.mark.parametrize("at_us", [5_000_000, MADE_US - 2 * DAY_US, MADE_US + 3_651 * DAY_US])
def test_a_clock_that_is_not_set_renews_nothing(old: Authority, at_us: int) -> None:
    files = contents(old.path)
    with pytest.raises(ConfigError, match="and the root is good from"):
        renew_authority(old.path, at_us)
    assert contents(old.path) == files


def test_cut_short_between_the_two_both_count_and_it_goes_on(old: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    done = list[Path]()

    def once(path: Path, data: bytes) -> None:
        if done:
            raise OSError(28, "No space left on device")
        done.append(path)
        write_private(path, data)

    with monkeypatch.context() as patched:
        patched.setattr("edge_hub.enrol.renewing.write_private", once)
        with pytest.raises(ConfigError, match="No space left"):
            renew_authority(old.path, LATE_US)
    half = Authority(old.path)
    assert half.clients.certificate != old.clients.certificate
    assert half.servers.certificate == old.servers.certificate
    assert renew_authority(old.path, LATE_US).servers.certificate != old.servers.certificate


def test_the_hubs_servers_show_and_believe_the_new_ones_from_the_next_start_on(old: Authority, tmp_path: Path) -> None:
    def equipment() -> Equipment:
        return Equipment(Authority(old.path), Ledger(old.path), tmp_path / "tls", tmp_path / "enrol", ("localhost",))

    equipment().refresh(LATE_US)
    before = contents(tmp_path / "tls")
    running = equipment()
    new = renew_authority(old.path, LATE_US)
    assert not running.refresh(LATE_US), "a hub that runs has the old ones, and both count"
    again = equipment()
    assert again.foreign() == []
    assert again.refresh(LATE_US)
    after = contents(tmp_path / "tls")
    assert after["clients.pem"] == new.clients_pem != before["clients.pem"]
    assert (after["server.key"], after["revoked.pem"]) == (before["server.key"], before["revoked.pem"])
    for folder in ("tls", "enrol"):
        leaf, *above = load_pem((tmp_path / folder / "server.pem").read_bytes())
        assert above == [new.servers.certificate]
        assert leaf.not_valid_after_utc == moment(LATE_US) + timedelta(days=90)
    assert not equipment().refresh(LATE_US)


def test_a_hub_says_a_year_before_that_they_end(old: Authority, tmp_path: Path) -> None:
    plan = EnrolPlan("127.0.0.1", 0, ("localhost",), old.path, "mqtts://localhost:8883")

    def said(now_us: int) -> list[Any]:
        lines: list[Any] = []
        open_authority(plan, tmp_path / "hub.db", now_us, lines.append)
        return lines

    assert said(MADE_US + 1_459 * DAY_US) == []
    (line,) = said(MADE_US + 1_461 * DAY_US)
    assert f"edge-agent hub ca renew {old.path}" in line
    renew_authority(old.path, LATE_US)
    assert said(LATE_US) == []
    near_us = MADE_US + 3_640 * DAY_US
    assert "every site needs a new kit" in str(ends_soon(renew_authority(old.path, near_us), near_us))


def test_a_renewal_by_a_clock_that_was_ahead_is_mended_by_another(old: Authority) -> None:
    ahead = renew_authority(old.path, LATE_US + 1_000 * DAY_US)
    assert ahead.clients.certificate.not_valid_before_utc > moment(LATE_US)
    mended = renew_authority(old.path, LATE_US)
    assert mended.clients.certificate.not_valid_before_utc <= moment(LATE_US) < moment(mended.ends_us)
