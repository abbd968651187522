"""A hub and real site processes over a real broker: nothing lost, nothing twice, and only what may run runs."""

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml
from operator_desk import Operator

from edge_agent.memory.queries import open_intents
from edge_agent.memory.schema import reading
from edge_agent.memory.verify import verify
from edge_models.bundle import Golden, read_bundle, write_bundle
from edge_models.shipped import shipped_path
from edge_sync.documents import DESIRED_TYPE, Desired, dump
from edge_sync.mqtt import Broker, Event, Link, Up
from edge_sync.signing import make_key, sign

POLICY = """
policy: everything-acts
version: 1
rules:
  - name: act
    when: prediction.score >= 0.0
    do: {tool: alert, with: {message: =prediction.label}}
"""
COLUMNS = "epoch, lane, seq, at, kind, agent, subject, label, score, ref, body, hash"


class Hub(Protocol):
    folder: Path

    @property
    def facts(self) -> dict[str, Any]: ...
    @property
    def operator(self) -> Operator: ...
    def start(self) -> "Hub": ...
    def kill(self) -> None: ...
    def log(self) -> str: ...
    def api(self, method: str, path: str, json: Any = None, data: Any = None) -> Any: ...


class Site:
    """A provisioned site, run as a process from its kit."""

    def __init__(self, kit: Path) -> None:
        self.kit = kit
        self.memory = kit / "data" / "memory.db"
        self.log = kit.with_suffix(".log")
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> "Site":
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "edge_cli.main", "run", str(self.kit / "site.yaml")]
            self.child = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        return self

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.child is not None:
            self.child.send_signal(how)
            self.child.wait(20)
            self.child = None

    def rows(self) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.memory}?mode=ro", uri=True)) as db:
            return db.execute(f"SELECT {COLUMNS} FROM journal ORDER BY epoch, lane, seq").fetchall()

    def decisions(self) -> int:
        if not self.memory.exists():
            return 0
        try:
            return sum(row[4] == "decision" for row in self.rows())
        except sqlite3.OperationalError:  # it is being made
            return 0


def at_hub(hub: Hub, site: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{hub.folder / 'hub.db'}?mode=ro", uri=True)) as db:
        query = f"SELECT {COLUMNS} FROM records WHERE site=? ORDER BY epoch, lane, seq"
        return db.execute(query, (site,)).fetchall()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Where the operator keeps bundle and policy."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "policy.yaml").write_text(POLICY)
    return folder


def release_file(files: Path, number: int, bundle: Path) -> Path:
    """A release whose one agent replays the trace bundle's golden samples, for ever."""
    agent = {
        "name": "watch",
        "bundle": str(bundle),
        "policy": "policy.yaml",
        "source": {"kind": "replay", "file": str(shipped_path("trace", "2")), "rate_per_s": 50, "repeat": True},
        "grants": ["alert"],
        "valid_for_s": 600,
    }
    file = files / f"release-{number}.yaml"
    file.write_text(yaml.safe_dump({"release": number, "agents": [agent]}))
    return file


@pytest.fixture
def provision(hub: Hub, files: Path, tmp_path: Path) -> Iterator[Callable[[str], Site]]:
    """Provisions sites at `hub` with release 1, as an operator does, and ends them."""
    made: list[Site] = []

    def make(site: str) -> Site:
        command(
            "node", "provision", site, "--hub", hub.facts["http"], "--token-file", str(hub.folder / "operator.token"),
            "--release", str(release_file(files, 1, shipped_path("trace", "1"))), "--out", str(tmp_path / site),
            "--api-port", "0", "--trust", str(hub.operator.folder),
        )  # fmt: skip
        made.append(Site(tmp_path / site))
        return made[-1]

    yield make
    for site in made:
        site.end(signal.SIGKILL)


def command(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "edge_cli.main", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def push(hub: Hub, files: Path, number: int, bundle: Path) -> None:
    out = files / f"release-{number}"
    trust = str(hub.operator.folder)
    command("release", "create", str(release_file(files, number, bundle)), "--trust", trust, "--out", str(out))
    command("release", "push", str(out), "--all", "--hub-dir", str(hub.folder))


def test_kill_9_of_site_and_hub_loses_nothing_and_doubles_nothing(
    hub: Hub, provision: Callable[[str], Site], until: Callable[..., Any]
) -> None:
    site = provision("plant-01")
    for turn in range(5):
        site.start()
        before = site.decisions()
        until(lambda before=before: site.decisions() > before + 30, "decisions")
        if turn % 2:
            hub.kill()
            site.end(signal.SIGKILL)
            hub.start()
        else:
            site.end(signal.SIGKILL)
    site.start()
    before = site.decisions()
    until(lambda: site.decisions() > before, "decisions")
    until(lambda: len(at_hub(hub, "plant-01")) > 0, "records at the hub")
    site.end()
    until(lambda: at_hub(hub, "plant-01") == site.rows(), "the same rows at site and hub")
    with reading(site.memory) as db:
        assert verify(db).findings == ()
        assert open_intents(db) == []
    [listed] = hub.api("GET", "/api/v1/sites")["sites"]
    assert listed["lost"] == listed["quarantined"] == 0


def spoilt(bundle: Path, out: Path) -> Path:
    """A whole, honest-looking bundle whose golden outputs are not what its graph says."""
    good = read_bundle(bundle)
    wrong = {name: array[::-1].copy() for name, array in good.golden.outputs.items()}
    golden = Golden(good.golden.inputs, wrong, good.golden.truth)
    write_bundle(out, contract=good.contract, graph=good.graph, golden=golden, card=dict(good.card))
    return out


def test_a_model_that_fails_its_golden_check_is_refused_and_the_old_release_runs_on(
    hub: Hub, provision: Callable[[str], Site], until: Callable[..., Any], files: Path
) -> None:
    site = provision("plant-01").start()
    until(lambda: site.decisions() > 5, "decisions")

    def said() -> dict[str, Any]:
        return dict(hub.api("GET", "/api/v1/sites/plant-01"))

    push(hub, files, 2, spoilt(shipped_path("trace", "2"), files / "spoilt.bundle"))
    until(lambda: said()["state"] == "failed", "the site to say it failed")
    assert said()["release"] == 1
    assert "golden check failed" in said()["reported"]["reason"]
    before = site.decisions()
    until(lambda: site.decisions() > before + 10, "decisions under the old release")

    site.end()
    site.start()
    push(hub, files, 3, shipped_path("trace", "2"))
    until(lambda: said()["state"] == "active" and said()["release"] == 3, "release 3")
    site.end()
    until(lambda: at_hub(hub, "plant-01") == site.rows(), "the same rows at site and hub")
    refusals = [row for row in at_hub(hub, "plant-01") if row[1] == "alarm" and row[7] == "update_refused"]
    assert len(refusals) == 1
    decided = [json.loads(row[10])["release"] for row in site.rows() if row[4] == "decision"]
    assert set(decided) == {1, 3}


def test_a_bundle_damaged_on_disk_is_fetched_again(
    hub: Hub, provision: Callable[[str], Site], until: Callable[..., Any], files: Path
) -> None:
    site = provision("plant-01").start()
    until(lambda: site.decisions() > 5, "decisions")
    push(hub, files, 2, shipped_path("trace", "2"))
    until(lambda: hub.api("GET", "/api/v1/sites/plant-01")["release"] == 2, "release 2")
    site.end()
    blob = max((site.kit / "data" / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    site.start()
    passed_over = "release_passed_over"
    until(lambda: passed_over in [row[7] for row in site.rows()], "the damage to be noticed")
    before = site.decisions()
    until(lambda: site.decisions() > before + 5, "decisions meanwhile")
    until(lambda: json.loads([r for r in site.rows() if r[4] == "decision"][-1][10])["release"] == 2, "release 2 again")
    assert bytes(data) not in [path.read_bytes() for path in (site.kit / "data" / "blobs").iterdir()]


def test_a_site_stays_with_what_the_hub_asked_for_even_when_its_number_is_lower(
    hub: Hub, provision: Callable[[str], Site], until: Callable[..., Any], files: Path
) -> None:
    site = provision("plant-01").start()
    push(hub, files, 7, shipped_path("trace", "2"))
    until(lambda: hub.api("GET", "/api/v1/sites/plant-01")["release"] == 7, "release 7")
    push(hub, files, 3, shipped_path("trace", "1"))
    until(lambda: hub.api("GET", "/api/v1/sites/plant-01")["release"] == 3, "release 3")
    site_file = yaml.safe_load((site.kit / "site.yaml").read_text())
    (site.kit / "site.yaml").write_text(yaml.safe_dump(site_file | {"release": 5}))
    site.end()
    site.start()
    until(lambda: [row[7] for row in site.rows()].count("started") == 2, "the second start")
    before = site.decisions()
    until(lambda: site.decisions() > before + 5, "decisions")
    assert json.loads([row for row in site.rows() if row[4] == "decision"][-1][10])["release"] == 3


def test_a_hub_restored_from_an_older_copy_catches_up_while_the_links_stay_up(
    hub: Hub, provision: Callable[[str], Site], until: Callable[..., Any], tmp_path: Path
) -> None:
    site = provision("plant-01").start()
    until(lambda: len(at_hub(hub, "plant-01")) > 50, "records at the hub")
    hub.kill()
    copies = tmp_path / "copy"
    copies.mkdir()
    for file in hub.folder.glob("hub.db*"):
        shutil.copy(file, copies / file.name)
    hub.start()
    held = len(at_hub(hub, "plant-01"))
    until(lambda: len(at_hub(hub, "plant-01")) > held + 100, "many more records at the hub")
    hub.kill()
    for file in hub.folder.glob("hub.db*"):
        file.unlink()
    for file in copies.iterdir():
        shutil.copy(file, hub.folder / file.name)
    hub.start()
    until(lambda: len(at_hub(hub, "plant-01")) > held + 300, "the hub to catch up", 60)
    site.end()
    until(lambda: at_hub(hub, "plant-01") == site.rows(), "the same rows at site and hub")


def test_what_is_forged_or_replayed_on_the_broker_is_refused_and_recorded(
    hub: Hub, provision: Callable[[str], Site], until: Callable[..., Any], files: Path, tmp_path: Path
) -> None:
    """Somebody owns the broker: they speak with the hub's own user, while the hub is dead."""
    site = provision("plant-01").start()
    push(hub, files, 2, shipped_path("trace", "2"))
    until(lambda: hub.api("GET", "/api/v1/sites/plant-01")["release"] == 2, "release 2")
    with closing(sqlite3.connect(f"file:{hub.folder / 'hub.db'}?mode=ro", uri=True)) as db:
        genuine = bytes(db.execute("SELECT envelope FROM desired WHERE site='plant-01'").fetchone()[0])
    push(hub, files, 3, shipped_path("trace", "1"))
    until(lambda: hub.api("GET", "/api/v1/sites/plant-01")["release"] == 3, "release 3")
    hub.kill()

    key = tmp_path / "attacker.key"
    make_key(key)
    document = dump(Desired(site="plant-01", generation=99, issued_us=0, release={"release": 9, "agents": []}))
    forged = sign(document, DESIRED_TYPE, key)
    topic = "edge/v1/plant-01/down/desired"
    events: list[Event] = []
    secret = hub.folder / "broker" / "_hub.password"
    link = Link(Broker(hub_broker(site), "_hub", "_hub", secret, reconnect_max_s=1), events.append)
    link.start()
    until(lambda: any(isinstance(event, Up) for event in events), "the attacker to be connected")

    def refusals() -> list[str]:
        return [json.loads(row[10])["reason"] for row in site.rows() if row[7] == "update_refused"]

    for number, message in enumerate((forged, genuine, b"{}", b"\xff" * 100, b"x" * 600_000), 1):
        assert link.publish_and_wait(topic, message, retain=False)
        until(lambda number=number: len(refusals()) == number, f"refusal {number}")
    link.close()
    assert "not signed by the key this site trusts" in refusals()[0]
    assert "generation 1 is older than 2" in refusals()[1]
    before = site.decisions()
    until(lambda: site.decisions() > before + 10, "the site to go on")
    decided = [json.loads(row[10])["release"] for row in site.rows() if row[4] == "decision"]
    assert decided[-1] == 3
    hub.start()
    until(lambda: len([r for r in at_hub(hub, "plant-01") if r[7] == "update_refused"]) == 5, "refusals at the hub")


def hub_broker(site: Site) -> str:
    return str(yaml.safe_load((site.kit / "site.yaml").read_text())["hub"]["broker"])


def test_a_broker_that_refuses_is_said_and_the_site_goes_on(
    hub: Hub, provision: Callable[[str], Site], until: Callable[..., Any]
) -> None:
    site = provision("plant-01")
    (site.kit / "secrets" / "hub.password").write_text("wrong")
    site.start()
    until(lambda: site.decisions() > 20, "decisions")
    until(lambda: "refused" in site.log.read_text(), "the refusal in the log")
    assert "wrong" not in site.log.read_text().replace("wrong password", "")
    assert at_hub(hub, "plant-01") == []


def test_two_sites_take_a_release_and_no_chunk_is_sent_more_often_than_a_site_lacks_it(
    hub: Hub, provision: Callable[[str], Site], until: Callable[..., Any], files: Path
) -> None:
    sites = [provision(name).start() for name in ("plant-01", "plant-02")]
    until(lambda: all(site.decisions() > 3 for site in sites), "decisions")
    until(lambda: all(s["online"] for s in hub.api("GET", "/api/v1/sites")["sites"]), "both online")
    push(hub, files, 2, shipped_path("trace", "2"))
    until(lambda: [s["release"] for s in hub.api("GET", "/api/v1/sites")["sites"]] == [2, 2], "release 2 at both")
    with urllib.request.urlopen(hub.facts["http"] + "/metrics", timeout=10) as answer:
        sent = re.search(r"^edge_hub_chunks_sent_total (\d+)", answer.read().decode(), re.MULTILINE)
    assert sent is not None
    # The policy is the same as before, so each site lacks the bundle alone, and that is one chunk.
    assert 1 <= int(sent[1]) <= 2
