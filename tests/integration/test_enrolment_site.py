"""A site and its certificate, from the first join to recovery: real hub, real mosquitto, real `edge-agent` processes.

Clocks are shifted for whole processes (tests/support/shifted_clock.py) where a test's name says so.
"""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import needed
import pytest
import yaml
from shifted_clock import ShiftedClock

from edge_hub.broker.process import free_port
from edge_models.shipped import shipped_path
from edge_sync.enrol.certificate import load_pem, read_identity

SITE = "plant-01"
POLICY = "policy: p\nversion: 1\nrules:\n  - {name: a, when: 'true'}\n"
DAY_S = 86_400
PATIENCE_S = 60.0


class Site:
    """A site's folder, its process, and commands on its file."""

    def __init__(self, folder: Path, hub: Any, invited: dict[str, Any], enrol: str | None = None) -> None:
        """`enrol`: where it asks, if not where the hub says."""
        (folder / "secrets").mkdir(parents=True)
        self.folder, self.hub, self.name = folder, hub, str(invited["site"])
        self.file, self.data = folder / "site.yaml", folder / "data"
        self.invite(invited)
        (folder / "root.json").write_bytes(hub.operator.root)
        (folder / "policy.yaml").write_text(POLICY)
        agent = {"name": "watch", "bundle": str(shipped_path("trace", "1")), "policy": "policy.yaml"}
        link = {"broker": invited["broker_url"], "enrol": enrol or invited["enrol_url"], "reconnect_max_s": 1}
        config = {
            "site": self.name,
            "hub": link | {"join_token_file": "secrets/join.token", "root": "root.json"},
            "agents": [agent | {"source": {"kind": "http", "port": 0}}],
            "release": 1,
            "api": {"port": 0},
        }
        self.file.write_text(yaml.safe_dump(config))
        self._child: subprocess.Popen[bytes] | None = None

    def invite(self, invited: dict[str, Any]) -> None:
        """Lay a token there, as a new kit does."""
        (self.folder / "secrets" / "join.token").write_text(invited["join_token"] + "\n")

    def start(self) -> "Site":
        """Run it; with all that it starts it is a group of its own."""
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "edge_cli.main", "run", str(self.file)]
            self._child = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        return self

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self._child is not None:
            with suppress(ProcessLookupError):
                self._child.send_signal(signal.SIGTERM)
            assert self._child.wait(30) == 0, self.log()
            self._child = None

    def kill(self) -> None:
        """kill -9, and its children with it, as a power cut does."""
        if self._child is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait(30)
            self._child = None

    def node(self, *words: str, code: int = 0) -> str:
        """`edge-agent node …` on its file."""
        command, *options = words
        done = subprocess.run(
            [sys.executable, "-m", "edge_cli.main", "node", command, str(self.file), *options],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def doctor(self, code: int) -> str:
        """What it finds."""
        command = [sys.executable, "-m", "edge_cli.main", "doctor", str(self.file), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def certificate(self) -> Path:
        return self.data / "identity" / "certificate.pem"

    def serial(self) -> str:
        """Of the certificate it uses; for a moment, while one takes another's place, there is neither."""
        while True:
            with suppress(FileNotFoundError):
                return read_identity(load_pem(self.certificate.read_bytes())[0]).serial
            time.sleep(0.001)

    def events(self, label: str) -> int:
        """How many such events are in its journal."""
        with closing(sqlite3.connect(f"file:{self.data / 'memory.db'}?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT count(*) FROM journal WHERE label=?", (label,)).fetchone()[0])

    def page(self, path: str = "/") -> str:
        """What its local API shows a technician."""
        port = int((self.data / "api.port").read_text())
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def records(self) -> int:
        """How many the hub holds."""
        return int(self.hub.api("GET", f"/api/v1/sites/{self.name}")["records"])


class Enrolling:
    """A hub that enrols, at ports of its own."""

    def __init__(self, folder: Path, new_hub: Callable[..., Any]) -> None:
        self.port, mqtts = free_port(), free_port()
        self._options = ("--mqtts", f"127.0.0.1:{mqtts}", "--enrol", f"127.0.0.1:{self.port}", "--name", "localhost")
        self.process = new_hub(folder / "hub", *self._options)

    def invite(self, site: str = SITE, replace: bool = False) -> dict[str, Any]:
        """Register a site."""
        asked = {"site": site, "labels": {}, "join": True} | ({"replace": True} if replace else {})
        return dict(self.process.api("POST", "/api/v1/sites", asked))

    def audit(self, what: str) -> list[dict[str, Any]]:
        """The details of all that was done of this kind."""
        with closing(sqlite3.connect(f"file:{self.process.folder / 'hub.db'}?mode=ro", uri=True)) as db:
            return [json.loads(row[0]) for row in db.execute("SELECT detail FROM audit WHERE what=?", (what,))]

    def journal_key(self, site: str = SITE) -> str:
        """The key that the hub binds to the site."""
        with closing(sqlite3.connect(f"file:{self.process.folder / 'hub.db'}?mode=ro", uri=True)) as db:
            return str(db.execute("SELECT journal_key FROM sites WHERE site=?", (site,)).fetchone()[0])


class Relay:
    """A road to the hub's enrolment. It counts connections; from the `held`-th on they go nowhere, or come not back."""

    def __init__(self, target: int) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._target, self._open = target, list[socket.socket]()
        self.held: int | None = None
        self.answer_lost = False
        """Of the held one, what it asks arrives, and the answer does not."""
        self.count = 0
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        self._listening.close()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _run(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            self.count += 1
            held = self.held is not None and self.count >= self.held
            self._open.append(near)
            if held and not self.answer_lost:
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            self._open.append(far)
            asked = threading.Event()
            threading.Thread(target=self._there, args=(near, far, asked), daemon=True).start()
            threading.Thread(target=self._back, args=(far, near, asked, held), daemon=True).start()

    @staticmethod
    def _there(near: socket.socket, far: socket.socket, asked: threading.Event) -> None:
        """The client's second flight ends the handshake; after it comes what it asks."""
        flights = 0
        with suppress(OSError):
            while data := near.recv(65_536):
                flights += 1
                if flights == 2:
                    asked.set()
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)

    @staticmethod
    def _back(far: socket.socket, near: socket.socket, asked: threading.Event, held: bool) -> None:
        with suppress(OSError):
            while data := far.recv(65_536):
                if not (held and asked.is_set()):
                    near.sendall(data)
            if not held:
                near.shutdown(socket.SHUT_WR)


@pytest.fixture
def enrolling(tmp_path: Path, new_hub: Callable[..., Any]) -> Enrolling:
    """A hub that is not started yet."""
    needed.mosquitto()
    return Enrolling(tmp_path, new_hub)


@pytest.fixture
def made() -> Iterator[list[Site]]:
    """Sites, killed at the end."""
    sites: list[Site] = []
    yield sites
    for each in sites:
        each.kill()


@pytest.fixture
def site(tmp_path: Path, enrolling: Enrolling, made: list[Site]) -> Site:
    """A site of a hub that runs; it has a token and is not started."""
    enrolling.process.start()
    made.append(Site(tmp_path / SITE, enrolling.process, enrolling.invite()))
    return made[0]


def test_a_site_joins_by_itself_and_delivers_as_who_its_certificate_says(
    enrolling: Enrolling, site: Site, until: Any
) -> None:
    site.start()
    until(site.records, "its records", PATIENCE_S)
    assert site.events("joined") == 1
    (joined,) = enrolling.audit("site joined")
    assert (joined["site"], joined["serial"]) == (SITE, site.serial())
    ends_s = read_identity(load_pem(site.certificate.read_bytes())[0]).ends_us // 1_000_000
    assert f"edge_certificate_ends_timestamp_seconds {ends_s}" in site.page("/metrics")
    identity = site.data / "identity"
    assert sorted(each.name for each in identity.iterdir()) == ["about.json", "ca.pem", "certificate.pem", "key.pem"]
    assert {each.stat().st_mode & 0o777 for each in identity.iterdir()} == {0o600}
    from edge_agent.memory.checkpoint import SigningKey

    assert enrolling.journal_key() == SigningKey(site.data / "journal.key").public
    site.stop()
    before, serial = site.records(), site.serial()
    site.start()
    until(lambda: site.records() > before, "its records after a restart", PATIENCE_S)
    assert site.serial() == serial


def test_agents_run_while_the_hub_is_away_and_the_site_joins_when_it_comes(
    enrolling: Enrolling, site: Site, until: Any
) -> None:
    enrolling.process.stop()
    site.start()
    until((site.data / "api.port").exists, "the site", PATIENCE_S)
    until(lambda: site.events("started"), "its agents", PATIENCE_S)
    assert not site.certificate.exists()
    assert "no answer from" in site.log()
    until(lambda: "certificate: no answer from https://localhost" in site.page(), "its page to say why", PATIENCE_S)
    enrolling.process.start()
    until(site.records, "its records", PATIENCE_S)
    assert site.events("joined") == 1
    site.stop()


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("held", "lost", "issued"), [(2, False, 0), (3, False, 0), (3, True, 1)],
    ids=["the first question goes nowhere", "the token goes nowhere", "the answer is lost"],
)  # fmt: skip
def test_killed_in_the_middle_of_its_join_a_site_goes_on_and_one_certificate_was_issued(
    tmp_path: Path, enrolling: Enrolling, made: list[Site], until: Any, held: int, lost: bool, issued: int
) -> None:
    """Of a first start's connections to the hub, the first is a knock, the next asks for the root, the third joins."""
    enrolling.process.start()
    relay = Relay(enrolling.port)
    try:
        relay.held, relay.answer_lost = held, lost
        site = Site(tmp_path / SITE, enrolling.process, enrolling.invite(), f"https://localhost:{relay.port}")
        made.append(site)
        site.start()
        until(lambda: relay.count >= held, "the site to ask", PATIENCE_S)
        until(lambda: len(enrolling.audit("site joined")) >= issued, "the hub to have issued", PATIENCE_S)
        site.kill()
        assert len(enrolling.audit("site joined")) == issued
        assert not site.certificate.exists()
        next_key = site.data / "identity.next" / "key.pem"
        key = next_key.read_bytes() if next_key.exists() else None
        assert (key is not None) == (held == 3), "a key is made when it is certain that the hub is the right one"
        relay.held = None
        site.start()
        until(site.records, "its records", PATIENCE_S)
        assert len(enrolling.audit("site joined")) == 1
        if key is not None:
            assert (site.data / "identity" / "key.pem").read_bytes() == key
        site.stop()
    finally:
        relay.close()


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("held", "lost", "issued"), [(1, False, 0), (2, False, 0), (2, True, 1)],
    ids=["the first question goes nowhere", "the request goes nowhere", "the answer is lost"],
)  # fmt: skip
def test_killed_in_the_middle_of_its_renewal_a_site_has_its_old_certificate_and_goes_on(
    tmp_path: Path, enrolling: Enrolling, made: list[Site], until: Any, held: int, lost: bool, issued: int
) -> None:
    enrolling.process.start()
    relay = Relay(enrolling.port)
    try:
        site = Site(tmp_path / SITE, enrolling.process, enrolling.invite(), f"https://localhost:{relay.port}")
        made.append(site)
        site.node("join")
        old = site.serial()
        relay.held, relay.answer_lost = relay.count + held, lost
        command = [sys.executable, "-m", "edge_cli.main", "node", "renew", str(site.file), "--now"]
        renewing = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        until(lambda: relay.count >= (relay.held or 0), "the site to ask", PATIENCE_S)
        until(lambda: len(enrolling.audit("certificate renewed")) >= issued, "the hub to have issued", PATIENCE_S)
        renewing.kill()
        renewing.wait()
        assert site.serial() == old
        site.start()
        until(site.records, "its records with the old certificate", PATIENCE_S)
        relay.held = None
        site.node("renew", "--now")
        (renewed,) = enrolling.audit("certificate renewed")
        assert (renewed["before"], renewed["serial"]) == (old, site.serial())
        site.stop()
        before = site.records()
        site.start()
        until(lambda: site.records() > before, "its records with the new certificate", PATIENCE_S)
        site.stop()
    finally:
        relay.close()


def test_a_certificate_by_hand_joins_renews_and_says_how_it_stands(
    enrolling: Enrolling, site: Site, until: Any
) -> None:
    said = json.loads(site.node("status", "--json", code=1))
    assert (said["state"], said["token"], said["enrol"]) == ("none", "new", f"https://localhost:{enrolling.port}")
    assert f"{SITE} has joined: its certificate ends " in site.node("join")
    assert f"{SITE} has joined with this token already: its certificate ends " in site.node("join")
    assert len(enrolling.audit("site joined")) == 1
    first = site.serial()
    said = json.loads(site.node("status", "--json"))
    assert (said["state"], said["token"], said["serial"]) == ("valid", "used", first)
    assert "not due yet by the hub's clock" in site.node("renew")
    said = json.loads(site.node("renew", "--json"))
    assert (said["site"], said["new"], said["ends_us"] > said["renew_us"]) == (SITE, False, True)
    assert site.serial() == first
    assert f"{SITE}: renewed; its certificate ends " in site.node("renew", "--now")
    assert site.serial() != first
    assert "good" in site.node("status")
    site.start()
    until(site.records, "its records", PATIENCE_S)
    site.stop()


def test_what_is_refused_is_one_clear_line_and_an_exit_code(
    tmp_path: Path, enrolling: Enrolling, site: Site, made: list[Site], new_hub: Callable[..., Any]
) -> None:
    site.node("join")
    token = (site.folder / "secrets" / "join.token").read_text()
    thief = Site(tmp_path / "thief", site.hub, {**enrolling.invite("plant-02"), "site": SITE, "join_token": token})
    said = thief.node("join", code=3)
    assert "error: " in said
    assert "spent" in said or "used" in said
    assert len(said.splitlines()) == 1
    assert not thief.certificate.exists()
    thief.invite(enrolling.invite("plant-03"))
    assert "the join token is for site 'plant-03', and this is 'plant-01'" in thief.node("join", code=2)
    group = site.hub.api("POST", "/api/v1/join-tokens", {"group": "north", "count": 5, "labels": {}, "days": 7})
    thief.invite(group)
    assert "not this group's to join" in thief.node("join", code=3)
    other = Enrolling(tmp_path / "other", new_hub)
    (tmp_path / "other").mkdir()
    other.process.start()
    thief.invite({"join_token": other.invite()["join_token"]})
    assert "it is another hub" in thief.node("join", code=3)
    invited = other.invite("plant-09")
    true, config = site.file.read_text(), yaml.safe_load(site.file.read_text())
    config["hub"] |= {"broker": invited["broker_url"], "enrol": invited["enrol_url"]}
    site.file.write_text(yaml.safe_dump(config))
    found = {each["about"]: each for each in json.loads(site.doctor(code=1))["findings"]}
    for about in ("hub", "enrolment"):
        assert found[about]["level"] == "fail"
        assert "is not this site's hub: its certificate does not count" in found[about]["what"]
    site.file.write_text(true)
    assert not (thief.data / "identity").exists()
    assert "site plant-01 has no certificate to renew: join first" in thief.node("renew", code=2)
    site.hub.stop()
    assert "no answer from" in site.node("renew", code=4)


def test_a_site_of_a_group_names_itself(tmp_path: Path, enrolling: Enrolling, made: list[Site], until: Any) -> None:
    enrolling.process.start()
    invited = enrolling.invite("plant-99")
    group = enrolling.process.api(
        "POST", "/api/v1/join-tokens", {"group": "north", "count": 2, "labels": {"kind": "shop"}, "days": 7}
    )
    for name in ("shop-1", "shop-2"):
        made.append(Site(tmp_path / name, enrolling.process, {**invited, **group, "site": name}))
        made[-1].start()
    for each in made:
        until(each.certificate.exists, f"the certificate of {each.name}", PATIENCE_S)
        until(each.records, f"the records of {each.name}", PATIENCE_S)
    third = Site(tmp_path / "shop-3", enrolling.process, {**invited, **group, "site": "shop-3"})
    third.node("join", code=3)


def test_a_revoked_site_is_told_so_and_comes_back_with_a_new_token_without_a_restart(
    enrolling: Enrolling, site: Site, until: Any
) -> None:
    site.start()
    until(site.records, "its records", PATIENCE_S)
    old, key = site.serial(), (site.data / "identity" / "key.pem").read_bytes()
    site.hub.api("POST", f"/api/v1/sites/{SITE}/revoke", {"reason": "stolen"})
    until(lambda: not site.hub.api("GET", f"/api/v1/sites/{SITE}")["online"], "it to be shut out", PATIENCE_S)
    said = site.node("renew", "--now", code=3)
    assert "revoked" in said
    assert site.serial() == old
    assert "the hub's broker refuses it (sslv3 alert certificate revoked)" in site.doctor(code=1)
    assert "has joined with this token already, and the hub's broker refuses it" in site.node("join", code=1)
    assert "good by its dates, and the hub's broker refuses it" in site.node("status", code=1)
    assert "the hub's broker refuses it" in site.node("renew", code=1)
    before = site.records()
    site.invite(enrolling.invite(replace=True))
    until(lambda: site.serial() != old, "a new certificate", PATIENCE_S)
    assert (site.data / "identity" / "key.pem").read_bytes() != key, "a stolen key is not used again"
    until(lambda: site.records() > before, "its records", PATIENCE_S)
    until(lambda: site.events("joined") == 2, "the record of it", PATIENCE_S)
    site.stop()


def test_a_site_on_a_new_disk_joins_before_it_asks_for_its_memory(enrolling: Enrolling, site: Site, until: Any) -> None:
    site.start()
    until(site.records, "its records", PATIENCE_S)
    site.stop()
    old = site.serial()
    shutil.rmtree(site.data)
    site.invite(enrolling.invite(replace=True))
    site.start()
    until(lambda: (site.data / "memory.db").exists() and site.events("rehydrated"), "its memory", PATIENCE_S)
    assert site.serial() != old
    site.stop()


@pytest.mark.timeout(240)
def test_clock_of_the_site_process_shifted_to_1970_it_joins_delivers_and_does_not_renew_what_is_not_due(
    tmp_path: Path, site: Site, until: Any
) -> None:
    clock = ShiftedClock(tmp_path)
    with clock.shifted(-int(time.time()) + 3_600):
        site.start()
        until(site.records, "its records", PATIENCE_S)
        serial = site.serial()
        said = json.loads(site.node("status", "--json"))
        assert said["state"] == "not_begun"
        assert "not due yet by the hub's clock" in site.node("renew")
        assert site.serial() == serial
    site.stop()


@pytest.mark.timeout(300)
def test_clock_of_the_hub_shifted_back_120_days_its_site_whose_certificate_so_ran_out_recovers_by_itself(
    tmp_path: Path, enrolling: Enrolling, made: list[Site], until: Any
) -> None:
    clock = ShiftedClock(tmp_path)
    with clock.shifted(-120 * DAY_S):
        enrolling.process.start()
        site = Site(tmp_path / SITE, enrolling.process, enrolling.invite())
        made.append(site)
        site.start()
        until(site.records, "its records", PATIENCE_S)
        site.stop()
        enrolling.process.stop()
    old = site.serial()
    enrolling.process.start()
    before = site.records()
    assert json.loads(site.node("status", "--json", code=1))["state"] == "ended"
    site.start()
    until(lambda: site.serial() != old, "a new certificate", 120.0)
    until(lambda: site.records() > before, "its records", PATIENCE_S)
    (recovered,) = enrolling.audit("certificate recovered")
    assert recovered["before"] == old
    until(lambda: site.events("certificate_renewed") == 1, "the record of it", PATIENCE_S)
    site.stop()
