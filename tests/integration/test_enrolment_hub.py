"""Enrolment at a hub as a process: real TLS, a real mosquitto, the machine pulled from under it.

Held: sync/SPEC.md, section Enrolment.
"""

import json
import random
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import needed
import pytest
from certificates import Authorities
from est_client import Node
from plain_client import Client

from edge_hub.broker import BrokerFolder
from edge_hub.broker.probe import CONNACK_ACCEPTED, connect_packet
from edge_hub.broker.process import free_port
from edge_hub.enrol.ledger import Ledger
from edge_sync.enrol.certificate import fingerprint, pinned_root
from edge_sync.enrol.token import parse_token

EPOCH = "00112233aabbccdd"


@pytest.fixture(autouse=True)
def _mosquitto() -> None:
    needed.mosquitto()


class Fleet:
    """A hub that enrols, and the machines that come to it."""

    def __init__(self, folder: Path, new_hub: Callable[..., Any], until: Any, *options: str) -> None:
        self.folder, self.until = folder, until
        self.mqtts, self.enrol = free_port(), free_port()
        self.options = (
            "--mqtts", f"127.0.0.1:{self.mqtts}", "--enrol", f"127.0.0.1:{self.enrol}", "--name", "localhost", *options
        )  # fmt: skip
        self.hub = new_hub(folder / "hub", *self.options)
        self.clients: list[Client] = []

    def start(self) -> "Fleet":
        self.hub.start()
        return self

    def invite(self, site: str, **more: Any) -> dict[str, Any]:
        """Register a site that joins by itself."""
        return dict(self.hub.api("POST", "/api/v1/sites", {"site": site, "join": True, **more}))

    def node(self, terms: dict[str, Any], folder: str = "node", site: str | None = None) -> Node:
        return Node(self.folder / folder, terms["enrol_url"], terms["ca"], site or terms["site"])

    def joined(self, site: str) -> Node:
        terms = self.invite(site)
        node = self.node(terms)
        assert node.join(terms["join_token"]).status == 200
        return node

    def connect(self, node: Node) -> Client:
        """At the broker, by its certificate; it says that it is there, and its will that it is gone."""
        topic = f"edge/v1/{node.site}/up/presence"
        client = Client(self.mqtts, node.site, tls=node.context())
        self.clients.append(client)
        assert client.codes == [0]
        client.publish(topic, json.dumps({"v": 1, "online": True, "epoch": EPOCH, "session": 1}).encode(), retain=True)
        return client

    def admits(self, node: Node, session: Any = None) -> bool:
        """Whether the broker lets it in."""
        return self.session(node, session)[0]

    def session(self, node: Node, session: Any = None, context: Any = None) -> tuple[bool, Any, bool]:
        """Whether the broker lets it in, the TLS session, and whether that was an older one's."""
        try:
            with (
                socket.create_connection(("localhost", self.mqtts), timeout=30) as plain,
                (context or node.context()).wrap_socket(
                    plain, server_hostname="localhost", session=session
                ) as connection,
            ):
                connection.sendall(connect_packet(node.site, ""))
                answer = connection.recv(4)
                return answer == CONNACK_ACCEPTED, connection.session, bool(connection.session_reused)
        except (ssl.SSLError, ConnectionError):
            return False, None, False

    def shown(self) -> dict[str, Any]:
        return dict(self.hub.api("GET", "/api/v1/sites/plant-01"))

    def read(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self.folder / 'hub' / 'hub.db'}?mode=ro", uri=True, timeout=30)) as db:
            return db.execute(sql).fetchall()

    def edge_agent(self, *words: object, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "edge_cli.main", *map(str, words)], capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def close(self) -> None:
        for client in self.clients:
            client.close()


@pytest.fixture
def new_fleet(tmp_path: Path, new_hub: Callable[..., Any], until: Any) -> Iterator[Callable[..., Fleet]]:
    """Makes hubs that enrol, and are not started yet."""
    made: list[Fleet] = []

    def make(*options: str) -> Fleet:
        made.append(Fleet(tmp_path, new_hub, until, *options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_site_joins_and_is_let_in_by_the_broker_as_itself(new_fleet: Any, until: Any) -> None:
    fleet = new_fleet().start()
    terms = fleet.invite("plant-01", labels={"kind": "factory"})
    assert "password" not in terms
    assert "username" not in terms
    assert (terms["broker_url"], terms["enrol_url"]) == (
        f"mqtts://localhost:{fleet.mqtts}",
        f"https://localhost:{fleet.enrol}",
    )
    node = fleet.node(terms)
    root = pinned_root(node.cacerts(), parse_token(terms["join_token"]).pin)
    assert fingerprint(root) == parse_token(terms["join_token"]).pin
    assert node.join(terms["join_token"], journal_key="ab" * 32).status == 200
    fleet.connect(node)
    until(lambda: fleet.shown()["online"], "the site to be online")
    assert fleet.read("SELECT journal_key FROM sites") == [("ab" * 32,)]
    assert "its certificate is good for 8" in fleet.edge_agent(
        "fleet", "show", "plant-01", "--hub-dir", fleet.hub.folder
    )
    thief = fleet.node(terms, "thief")
    assert thief.join(terms["join_token"]).status == 401
    renewed = node.renew()
    node.keep(renewed)
    assert fleet.admits(node)


def test_a_revoked_site_is_thrown_out_while_it_is_in_and_does_not_come_back(new_fleet: Any, until: Any) -> None:
    fleet = new_fleet().start()
    node, other = fleet.joined("plant-01"), fleet.joined("plant-02")
    client, bystander = fleet.connect(node), fleet.connect(other)
    until(lambda: fleet.shown()["online"], "the site to be online")
    context = node.context()
    _, session, _ = fleet.session(node, context=context)  # takes the client id, and the client comes back
    admitted, _, resumed = fleet.session(node, session, context)
    assert (admitted, resumed) == (True, True)
    until(lambda: len(client.codes) > 1, "the client to be back")
    began = time.monotonic()
    said = fleet.edge_agent("fleet", "revoke", "plant-01", "--yes", "--reason", "stolen", "--hub-dir", fleet.hub.folder)
    assert "plant-01 is revoked: 1 certificates count no more" in said
    until(lambda: client.ended, "the session to end")
    assert time.monotonic() - began < 60
    assert not fleet.admits(node)
    assert not fleet.session(node, session, context)[0], "with the TLS session it had before"
    assert not bystander.ended
    assert fleet.admits(other)
    codes = len(client.codes)
    fleet.edge_agent("fleet", "revoke", "plant-01", "--yes", "--hub-dir", fleet.hub.folder)
    shown = fleet.shown()
    assert (shown["online"], shown["revoked_us"] is not None, shown["certificate_ends_us"]) == (False, True, None)
    assert node.renew().status == 403
    assert "plant-01" not in BrokerFolder(fleet.hub.folder / "broker").users()
    assert len(client.codes) == codes, "it tried, and was not let in"
    revoked = [json.loads(row[0]) for row in fleet.read("SELECT detail FROM audit WHERE what='site revoked'")]
    assert [(each["reason"], len(each["certificates"])) for each in revoked] == [("stolen", 1)]


def test_what_a_revoked_site_says_in_its_last_moment_reaches_nobody(new_fleet: Any, until: Any) -> None:
    fleet = new_fleet().start()
    node = fleet.joined("plant-01")
    client = fleet.connect(node)
    until(lambda: fleet.shown()["online"], "the site to be online")
    fleet.hub.api("POST", "/api/v1/sites/plant-01/revoke", {})
    until(lambda: client.ended, "the session to end")
    until(lambda: not fleet.shown()["online"], "the site to be offline")
    fleet.hub.stop()
    fleet.hub.start()
    assert not fleet.shown()["online"]
    assert not fleet.admits(node), "after a restart too"


def test_a_revoked_site_that_is_registered_anew_joins_again_and_the_old_machine_does_not(new_fleet: Any) -> None:
    fleet = new_fleet().start()
    old = fleet.joined("plant-01")
    fleet.hub.api("POST", "/api/v1/sites/plant-01/revoke", {"reason": "stolen"})
    terms = fleet.invite("plant-01", replace=True)
    new = fleet.node(terms, "new")
    assert new.join(terms["join_token"]).status == 200
    assert fleet.admits(new)
    assert not fleet.admits(old)
    assert old.renew().status == 403


def test_a_machine_in_use_is_out_the_moment_its_site_is_registered_anew(new_fleet: Any, until: Any) -> None:
    fleet = new_fleet().start()
    old = fleet.joined("plant-01")
    context = old.context()
    _, session, _ = fleet.session(old, context=context)
    client = fleet.connect(old)
    terms = fleet.invite("plant-01", replace=True)
    until(lambda: client.ended, "the session to end")
    assert not fleet.admits(old)
    new = fleet.node(terms, "new")
    assert new.join(terms["join_token"]).status == 200
    assert fleet.admits(new)
    assert not fleet.session(old, session, context)[0], "with the TLS session it had before"


def test_a_site_with_a_password_is_revoked_as_well(new_hub: Any, connect_site: Any, tmp_path: Path, until: Any) -> None:
    hub = new_hub(tmp_path / "hub").start()
    site = connect_site(hub, "plant-01")
    with pytest.raises(Exception, match="enrols no sites"):
        hub.api("POST", "/api/v1/sites", {"site": "plant-02", "join": True})
    assert hub.api("POST", "/api/v1/sites/plant-01/revoke", {})["ended"]
    until(lambda: not site.link.publish_and_wait(site.topic("hello"), b"{}", timeout_s=1), "its session to end")
    users = BrokerFolder(hub.folder / "broker").users()
    assert not {"plant-01", "_local_plant-01"} & set(users)


def test_a_thousand_sites_are_invited_at_once_or_none(new_fleet: Any) -> None:
    fleet = new_fleet().start()
    names = [f"shop-{number}" for number in range(1_000)]
    bulk = {"sites": [{"site": name, "labels": {"kind": "shop"}} for name in names], "join_days": 30}
    fleet.invite("shop-999")
    with pytest.raises(Exception, match="'shop-999' is registered already"):
        fleet.hub.api("POST", "/api/v1/sites/bulk", bulk)
    assert fleet.read("SELECT count(*) FROM sites") == [(1,)]
    with pytest.raises(Exception, match="named twice"):
        fleet.hub.api("POST", "/api/v1/sites/bulk", {"sites": [{"site": "a"}, {"site": "a"}]})
    made = fleet.hub.api("POST", "/api/v1/sites/bulk", bulk | {"replace": True})["sites"]
    assert [each["site"] for each in made] == names
    assert len({each["join_token"] for each in made}) == 1_000
    node = fleet.node(made[-1])
    assert node.join(made[-1]["join_token"]).status == 200
    assert fleet.admits(node)


def test_a_groups_sites_choose_their_names_and_are_let_in(new_fleet: Any, tmp_path: Path) -> None:
    fleet = new_fleet().start()
    at = ("--hub-dir", fleet.hub.folder)
    file = tmp_path / "north.token"
    said = fleet.edge_agent("fleet", "token", "make", "north", "--count", 1, "--label", "kind=shop", "--out", file, *at)
    assert "1 sites of group north may join at https://localhost:" in said
    assert file.stat().st_mode & 0o777 == 0o600
    token = file.read_text().strip()
    assert token not in said
    terms = {"enrol_url": f"https://localhost:{fleet.enrol}", "ca": (fleet.hub.folder / "ca/root.pem").read_text()}
    node = fleet.node(terms, site="shop-1")
    assert node.join(token).status == 200
    assert fleet.admits(node)
    assert fleet.node(terms, site="shop-2").join(token).status == 401
    assert "_group-north  spent     1   1" in fleet.edge_agent("fleet", "tokens", *at)
    fleet.edge_agent("fleet", "token", "rm", "_group-north", *at)
    fleet.edge_agent("fleet", "token", "rm", "_group-north", *at, code=1)
    assert fleet.admits(node)


def test_a_hub_killed_at_random_moments_gives_each_site_one_certificate(new_fleet: Any) -> None:
    fleet = new_fleet().start()
    chance = random.Random(7)
    sites = [f"plant-{number}" for number in range(12)]
    bulk = fleet.hub.api("POST", "/api/v1/sites/bulk", {"sites": [{"site": site} for site in sites]})["sites"]
    nodes = [(fleet.node(terms), terms["join_token"]) for terms in bulk]
    done = threading.Event()

    def kill() -> None:
        for _ in range(4):
            if done.wait(chance.uniform(0.02, 0.4)):
                return
            fleet.hub.kill()
            fleet.hub.start()

    killer = threading.Thread(target=kill)
    killer.start()
    answers = {}
    try:
        for node, token in nodes:
            while node.site not in answers:
                with suppress(OSError, ConnectionError, Exception):
                    said = node.join(token)
                    assert said.status in (200, 429, 503), said.text
                    if said.status == 200:
                        answers[node.site] = said.identity
                time.sleep(0.02)
    finally:
        done.set()
        killer.join()
    listed = {each.serial: each.site for each in Ledger(fleet.hub.folder / "ca").issued()}
    for node, token in nodes:
        issued = fleet.read(f"SELECT serial FROM certificates WHERE site='{node.site}' AND token IS NOT NULL")
        assert issued == [(answers[node.site].serial,)]
        assert listed[answers[node.site].serial] == node.site
        assert node.join(token).identity == answers[node.site]
    assert fleet.admits(nodes[0][0])


def test_a_restore_takes_back_no_revocation_and_every_token_is_void(new_fleet: Any, tmp_path: Path) -> None:
    fleet = new_fleet().start()
    node, fine = fleet.joined("plant-01"), fleet.joined("plant-02")
    open_token = fleet.invite("plant-03")["join_token"]
    fleet.edge_agent("hub", "backup", fleet.hub.folder, "--out", tmp_path / "backup")
    manifest = (tmp_path / "backup" / "manifest.json").read_text()
    assert "ca/" not in manifest
    assert fine.renew().status == 200
    fleet.hub.api("POST", "/api/v1/sites/plant-01/revoke", {"reason": "stolen"})
    fleet.hub.stop()
    fleet.edge_agent("hub", "restore", tmp_path / "backup", fleet.hub.folder, "--replace")
    fleet.hub.start()
    assert not fleet.admits(node)
    assert node.renew().status == 403
    assert fleet.admits(fine)
    assert fine.renew().status == 200
    waiting = fleet.node({"site": "plant-03", "enrol_url": fine.url, "ca": fine.root})
    said = waiting.join(open_token)
    assert (said.status, "was taken back" in said.text) == (401, True)
    assert len(fleet.read("SELECT serial FROM certificates WHERE site='plant-02'")) == 3


def test_without_its_authority_a_hub_does_not_make_another_by_itself(new_fleet: Any) -> None:
    fleet = new_fleet().start()
    fleet.joined("plant-01")
    fleet.hub.stop()
    (fleet.hub.folder / "ca").rename(fleet.folder / "kept")
    said = fleet.edge_agent("hub", "serve", fleet.hub.folder, "--http", "127.0.0.1:0", *fleet.options, code=2)
    assert "sites have certificates from it: put it back" in said
    fleet.options += ("--ca", str(fleet.folder / "kept"))
    fleet.hub._options = fleet.options
    fleet.hub.start()


def test_the_authority_may_lie_elsewhere_and_its_root_key_nowhere(new_fleet: Any, tmp_path: Path) -> None:
    said = json.loads(
        fleet_json := new_fleet().edge_agent("hub", "ca", "init", tmp_path / "vault", "--json").split("made an")[0]
    )
    assert said["root_sha256"] in fleet_json
    (tmp_path / "vault" / "root.key").unlink()
    fleet = new_fleet("--ca", str(tmp_path / "vault")).start()
    assert fleet.admits(fleet.joined("plant-01"))
    assert not (fleet.hub.folder / "ca").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--enrol", "127.0.0.1:0", "--name", "localhost"), "also give --mqtts"),
        (("--enrol", "127.0.0.1:0", "--mqtts", "127.0.0.1:18884"), "Give --name"),
        (("--enrol", "nowhere", "--mqtts", "127.0.0.1:18884", "--name", "h"), "write HOST:PORT"),
        (("--enrol", "127.0.0.1:0", "--mqtts", "127.0.0.1:18884", "--name", "a b"), "--name 'a b'"),
        (("--name", "localhost"), "--name is for enrolment"),
        (("--mqtts", "127.0.0.1:0"), "name a port"),
    ],
)
def test_options_that_are_wrong_make_nothing(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    command = [sys.executable, "-m", "edge_cli.main", "hub", "serve", str(tmp_path / "hub"), "--http", "127.0.0.1:0"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "hub").exists()


def test_a_port_that_is_taken_is_said_and_makes_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        enrol = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [
            sys.executable,
            "-m",
            "edge_cli.main",
            "hub",
            "serve",
            str(tmp_path / "hub"),
            "--http",
            "127.0.0.1:0",
        ]
        options = ["--enrol", enrol, "--mqtts", "127.0.0.1:18884", "--name", "localhost"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert (done.returncode, f"--enrol {enrol}" in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "hub").exists()


def test_the_operators_own_server_certificate_stays(new_fleet: Any, tmp_path: Path) -> None:
    fleet = new_fleet()
    tls = BrokerFolder(fleet.hub.folder / "broker").tls
    theirs = Authorities(tmp_path / "operators")
    theirs.equip(tls)
    for name in ("clients.pem", "revoked.pem"):
        (tls / name).unlink()
    before = (tls / "server.pem").read_bytes()
    fleet.start()
    assert (tls / "server.pem").read_bytes() == before
    assert f"{tls / 'server.pem'} is not of this hub's authority" in fleet.hub.log()
    node = fleet.joined("plant-01")
    assert not fleet.admits(node), "it does not believe that server"
    node.root, node.strict = theirs.root.chain.decode(), False
    assert fleet.admits(node)
