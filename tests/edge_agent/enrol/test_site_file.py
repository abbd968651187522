"""What a site file may say of enrolment, and what `doctor` says of the certificate that came of it."""

import datetime
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_hub import DAY, SmallHub, utc_now

from edge_agent.config import Site, load_site
from edge_agent.doctor import Finding, examine
from edge_agent.enrol.client import EstClient
from edge_agent.enrol.flow import join
from edge_agent.enrol.identity import IdentityFolder
from edge_agent.enrol.standing import certificate_standing
from edge_models.errors import ConfigError

SITE = "plant-01"
HUB = {"broker": "mqtts://hub.example.com", "enrol": "https://hub.example.com:8443", "root": "root.json"}


def site_with(folder: Path, **hub: Any) -> Site:
    """A site file; what is None is left out."""
    said = {key: value for key, value in (HUB | hub).items() if value is not None}
    (folder / "site.yaml").write_text(yaml.safe_dump({"site": SITE, "hub": said}))
    return load_site(folder / "site.yaml")


def test_a_site_that_enrols_is_who_its_identity_says(tmp_path: Path) -> None:
    broker = site_with(tmp_path, join_token_file="secrets/join.token").broker()
    folder = tmp_path / "data" / "identity"
    assert (broker.ca_file, broker.cert_file, broker.key_file) == tuple(
        folder / name for name in ("ca.pem", "certificate.pem", "key.pem")
    )
    assert broker.enrolled
    assert (broker.client_id, broker.username) == (SITE, None)


def test_a_site_with_files_of_its_own_has_its_certificates_times_looked_at(tmp_path: Path) -> None:
    broker = site_with(tmp_path, enrol=None, ca_file="ca.pem", cert_file="c.pem", key_file="k.pem").broker()
    assert not broker.enrolled
    assert broker.cert_file == tmp_path / "c.pem"


@pytest.mark.parametrize(
    ("hub", "says"),
    [
        ({"username": "x"}, "username does not go with enrol"),
        ({"password_file": "x"}, "password_file does not go with enrol"),
        ({"ca_file": "x"}, "ca_file does not go with enrol"),
        ({"cert_file": "x"}, "cert_file does not go with enrol"),
        ({"key_file": "x"}, "key_file does not go with enrol"),
        ({"https": "https://hub"}, "https does not go with enrol"),
        ({"broker": "mqtt://127.0.0.1"}, r"the broker has to be mqtts://HOST:8883"),
        ({"enrol": None, "join_token_file": "x"}, "join_token_file needs enrol"),
        ({"enrol": "http://hub"}, r"write https://HOST:8443, nothing after it"),
        ({"enrol": "https://hub/est"}, r"write https://HOST:8443, nothing after it"),
        ({"enrol": "https://me:secret@hub"}, r"write https://HOST:8443, nothing after it"),
        ({"enrol": "https://hub:port"}, "[Pp]ort"),
        ({"enrol": "https://hub..example.com:8443"}, "is no name of a host"),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path: Path, hub: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        site_with(tmp_path, **hub)


def about_certificate(site: Site) -> Finding:
    (found,) = [each for each in examine(site) if each.about == "certificate"]
    return found


@pytest.fixture
def joined(small_hub: SmallHub, tmp_path: Path) -> Site:
    """A site whose certificate is good for 90 days."""
    site = site_with(tmp_path, enrol=small_hub.url)
    site.data.mkdir()
    join(EstClient(small_hub.url), IdentityFolder(site.identity, SITE), SITE, small_hub.token(SITE), None)
    return site


def ends(days: float) -> str:
    return (utc_now() + datetime.timedelta(days=days)).strftime("%Y-%m-%d")


def test_doctor_says_when_a_certificate_ends_and_that_it_is_renewed(joined: Site) -> None:
    found = about_certificate(joined)
    assert found.level == "ok"
    assert found.what.startswith(f"it ends {ends(90)}, and is renewed from ")
    assert ends(30) <= found.what[-10:] <= ends(39)


def test_doctor_says_that_a_site_has_not_joined_and_what_it_needs(tmp_path: Path) -> None:
    site = site_with(tmp_path)
    found = about_certificate(site)
    assert (found.level, found.what) == ("fail", "none, and no join token in the site file")
    assert "edge-agent node join SITE.yaml --token FILE" in found.remedy
    (tmp_path / "token").write_text("EK1")
    found = about_certificate(site_with(tmp_path, join_token_file="token"))
    assert (found.level, found.what) == ("fail", "none yet: this site has not joined its hub")
    assert found.remedy == "a site that runs tries by itself; edge-agent node join SITE.yaml says why it can't"


@pytest.mark.parametrize(
    ("life", "level", "says", "remedy"),
    [
        (-1, "fail", "it ended {}: the hub's broker refuses it", "edge-agent node renew SITE.yaml"),
        (90, "ok", "it ends {}", ""),
    ],
)
def test_doctor_says_what_to_do_with_one_that_ran_out(
    small_hub: SmallHub, tmp_path: Path, life: int, level: str, says: str, remedy: str
) -> None:
    small_hub.life = life * DAY
    site = site_with(tmp_path, enrol=small_hub.url)
    join(EstClient(small_hub.url), IdentityFolder(site.identity, SITE), SITE, small_hub.token(SITE), None)
    found = about_certificate(site)
    assert (found.level, found.remedy) == (level, remedy)
    assert found.what.startswith(says.format(ends(life)))


def test_doctor_warns_where_a_renewal_is_late_and_where_the_clock_is_wrong(
    joined: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is injected."""
    now = time.time_ns()
    monkeypatch.setattr("edge_agent.doctor.time.time_ns", lambda: now + 55 * 86_400 * 10**9)
    found = about_certificate(joined)
    assert found.level == "warn"
    assert "should have been renewed" in found.what
    assert found.remedy.endswith("edge-agent node renew SITE.yaml")
    monkeypatch.setattr("edge_agent.doctor.time.time_ns", lambda: 0)
    found = about_certificate(joined)
    assert (found.level, found.remedy) == ("warn", "set the clock")


def test_doctor_warns_of_the_end_of_a_certificate_that_nobody_renews(
    small_hub: SmallHub, joined: Site, tmp_path: Path
) -> None:
    hub = {"ca_file": "ca.pem", "cert_file": "data/identity/certificate.pem", "key_file": "data/identity/key.pem"}
    own = site_with(tmp_path, enrol=None, **hub)
    assert about_certificate(own) == Finding("ok", "certificate", f"it ends {ends(90)}")
    key = small_hub.issued[0].request.key
    from edge_sync.enrol.certificate import to_pem

    (joined.identity / "certificate.pem").write_bytes(to_pem([small_hub.clients.site(SITE, key, 20 * DAY)]))
    found = about_certificate(own)
    assert (found.level, found.remedy) == ("warn", "put a new one there: it counts at once")
    (joined.identity / "certificate.pem").unlink()
    assert about_certificate(own).level == "fail"


def test_doctor_says_nothing_of_certificates_where_there_are_none(tmp_path: Path) -> None:
    site = site_with(tmp_path, broker="mqtt://127.0.0.1", enrol=None)
    assert certificate_standing(site, 0) is None
    assert not [each for each in examine(site) if each.about == "certificate"]


def test_standing_tells_a_token_that_was_used_from_a_new_one(small_hub: SmallHub, joined: Site, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(small_hub.token(SITE) + "\n")
    site, now_us = site_with(tmp_path, enrol=small_hub.url, join_token_file="token"), time.time_ns() // 1000
    found = certificate_standing(site, now_us)
    assert found is not None
    assert (found.state, found.token) == ("valid", "used")
    assert found.serial == f"{small_hub.issued[0].certificate.serial_number:x}"
    (tmp_path / "token").write_text(small_hub.token(SITE, "t" * 43))
    again = certificate_standing(site, now_us)
    assert again is not None
    assert again.token == "new"
    assert found.renew_us is not None
    due = certificate_standing(site, found.renew_us)
    assert due is not None
    assert due.state == "due"
