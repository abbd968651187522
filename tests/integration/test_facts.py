"""Facts through a real broker, and a site that lost its memory. Held: sync/SPEC.md, sections Facts and A site that
lost its memory."""

import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_agent.memory.explain import explain
from edge_agent.memory.schema import reading
from edge_agent.memory.verify import verify
from edge_models.shipped import shipped_path
from edge_sync.rehydration import CONNECT_S, REHYDRATE_S

POLICY = """
policy: listens
version: 1
rules:
  - name: remember
    when: '!("seen" in facts)'
    do: {tool: fact.set, with: {key: seen, value: =prediction.label}}
  - name: go
    when: '"mode" in facts && facts.mode == "go"'
    do: {tool: alert, with: {message: =prediction.label}}
  - name: wait
    when: prediction.score >= 0.0
"""


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
            self.child.wait(30)
            self.child = None

    def ask(self, sql: str, *values: Any) -> list[Any]:
        """Rows of its memory; none while that is being made."""
        try:
            with closing(sqlite3.connect(f"file:{self.memory}?mode=ro", uri=True)) as db:
                return db.execute(sql, values).fetchall()
        except sqlite3.OperationalError:
            return []

    def rules(self) -> list[str]:
        """By which rule each decision was made, the newest last."""
        return [row[0] for row in self.ask("SELECT label FROM journal WHERE kind='decision' ORDER BY id")]

    def labels(self) -> list[str]:
        return [row[0] for row in self.ask("SELECT label FROM journal WHERE kind='event' ORDER BY id")]


def command(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "edge_cli.main", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def site(hub: Any, tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "policy.yaml").write_text(POLICY)
    agent = {
        "name": "watch",
        "bundle": str(shipped_path("trace", "1")),
        "policy": "policy.yaml",
        "source": {"kind": "replay", "file": str(shipped_path("trace", "2")), "rate_per_s": 20, "repeat": True},
        "grants": ["alert", "fact.set"],
        "valid_for_s": 600,
    }
    file = tmp_path / "release-1.yaml"
    file.write_text(yaml.safe_dump({"release": 1, "agents": [agent]}))
    command(
        "node", "provision", "plant-01", "--hub", hub.facts["http"], "--token-file", str(hub.folder / "operator.token"),
        "--release", str(file), "--out", str(tmp_path / "plant-01"), "--api-port", "0",
        "--trust", str(hub.operator.folder),
    )  # fmt: skip
    made = Site(tmp_path / "plant-01")
    yield made
    made.end(signal.SIGKILL)


def delivered(hub: Any, site: Site) -> bool:
    """Whether the hub holds the decision lane as the site does."""
    with closing(sqlite3.connect(f"file:{hub.folder / 'hub.db'}?mode=ro", uri=True)) as db:
        query = "SELECT epoch, seq, hash FROM {} WHERE lane='decision' ORDER BY epoch, seq"
        return bool(db.execute(query.format("records")).fetchall() == site.ask(query.format("journal")))


def test_a_fact_of_the_fleet_reaches_a_policy_and_stays_through_restart_and_offline(
    hub: Any, site: Site, until: Callable[..., Any]
) -> None:
    fleet_fact = ("fleet", "fact")
    where = ("--hub-dir", str(hub.folder))
    site.start()
    until(lambda: "wait" in site.rules(), "decisions without the fact")
    command(*fleet_fact, "set", "mode", "go", *where)
    until(lambda: site.rules()[-1] == "go", "a decision with the fact")
    site.end()
    hub.kill()
    site.start()
    until(lambda: len(site.labels()) >= 3, "the second start")
    before = len(site.rules())
    until(lambda: len(site.rules()) > before + 5, "decisions offline")
    assert set(site.rules()[before:]) == {"go"}
    hub.start()
    command(*fleet_fact, "delete", "mode", *where)
    until(lambda: site.rules()[-1] == "wait", "the fact to be gone")
    listed = json.loads(command(*fleet_fact, "ls", "--json", *where))
    assert listed["facts"] == []
    until(lambda: hub.api("GET", "/api/v1/facts")["sites_up_to_date"] == 1, "the site to say what it has", 60)
    known = json.loads(command("fleet", "facts", "plant-01", "--json", *where))["facts"]
    assert [(each["key"], each["expires_at_us"]) for each in known] == [("seen", None)]


def test_a_site_that_lost_its_disk_gets_facts_and_decisions_back(
    hub: Any, site: Site, until: Callable[..., Any]
) -> None:
    hub.api("PUT", "/api/v1/facts/mode", {"value": "go"})
    site.start()
    until(lambda: site.rules().count("go") > 20, "decisions")
    site.end()
    until(lambda: delivered(hub, site), "all of it at the hub")
    [[old]] = site.ask(
        "SELECT epoch || ':' || lane || ':' || seq FROM journal WHERE kind='decision' AND label='remember'"
    )
    newest, order = site.ask("SELECT epoch, max(ord) FROM epochs")[0]
    held = set(site.ask("SELECT epoch, seq, hash FROM journal WHERE lane='decision'"))
    [[seen]] = site.ask("SELECT value FROM facts WHERE scope='site'")
    shutil.rmtree(site.kit / "data")

    site.start()
    until(lambda: site.rules().count("go") > 40, "decisions in the new memory")
    labels = site.labels()
    assert labels.index("rehydrated") < len(labels) - labels[::-1].index("started") - 1
    back = set(site.ask("SELECT epoch, seq, hash FROM journal WHERE lane='decision' AND epoch=?", newest))
    assert len(back) > 20
    assert back <= held
    assert site.ask("SELECT value FROM facts WHERE scope='site'") == [(seen,)]
    assert site.rules().count("remember") == 1, "the fact was known, so it was not set again"
    assert site.ask("SELECT max(ord) FROM epochs")[0][0] == order + 1
    site.end()
    with reading(site.memory) as db:
        assert verify(db).findings == ()
        chain = explain(db, old)
    assert [record.kind for record in chain.chain] == ["decision", "fact", "action"] or [
        record.kind for record in chain.chain
    ] == ["decision", "action", "fact"]
    assert len(chain.missing) == 1, "its prediction is at the hub"
    until(lambda: len(hub.api("GET", "/api/v1/sites/plant-01")["streams"]) >= 4, "the new epoch at the hub")
    shown = hub.api("GET", "/api/v1/sites/plant-01")
    assert (shown["lost"], shown["quarantined"]) == (0, 0)


def first_decision_s(site: Site, until: Callable[..., Any]) -> float:
    began = time.monotonic()
    site.start()
    until(lambda: len(site.rules()) > 0, "a decision")
    return time.monotonic() - began


def test_a_new_site_starts_at_once_and_one_without_its_hub_in_time(
    hub: Any, site: Site, until: Callable[..., Any]
) -> None:
    def asked() -> dict[str, Any]:
        lines = [json.loads(line) for line in site.log.read_text().splitlines() if line.startswith("{")]
        said = [each for each in lines if each.get("took_s") is not None]
        return dict(said[-1])

    with_hub = first_decision_s(site, until)
    assert asked()["took_s"] < 2.0, "a tenth of it on a machine at rest"
    assert "rehydrated" not in site.labels()
    site.end()
    hub.kill()  # its broker goes on: the hub does not answer
    shutil.rmtree(site.kit / "data")
    assert first_decision_s(site, until) < with_hub + REHYDRATE_S + 5
    assert REHYDRATE_S <= asked()["took_s"] < REHYDRATE_S + 1
    site.end()
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nobody = gone.getsockname()[1]
    config = yaml.safe_load((site.kit / "site.yaml").read_text())
    config["hub"]["broker"] = f"mqtt://127.0.0.1:{nobody}"
    (site.kit / "site.yaml").write_text(yaml.safe_dump(config))
    shutil.rmtree(site.kit / "data")
    first_decision_s(site, until)
    assert CONNECT_S <= asked()["took_s"] < CONNECT_S + 1
