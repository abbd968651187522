"""docs/operations.md: a hub is backed up while it runs and restored under live sites. Real processes.

Held: sync/SPEC.md, sections Journal sync (a hub restored from a backup) and Desired and reported (generations).
"""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_agent.memory.journal import Journal
from edge_agent.memory.retention import tend
from edge_models.shipped import shipped_path

POLICY = """
policy: everything-acts
version: 1
rules:
  - name: act
    when: prediction.score >= 0.0
    do: {tool: alert, with: {message: =prediction.label}}
"""
COLUMNS = "epoch, lane, seq, at, kind, agent, subject, label, score, ref, body, hash"

Row = tuple[Any, ...]


class Site:
    """A provisioned site, run as a process from its kit."""

    def __init__(self, kit: Path) -> None:
        self.kit = kit
        self.memory = kit / "data" / "memory.db"
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> "Site":
        with self.kit.with_suffix(".log").open("ab") as log:
            command = [sys.executable, "-m", "edge_cli.main", "run", str(self.kit / "site.yaml")]
            self.child = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        return self

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.child is not None:
            self.child.send_signal(how)
            self.child.wait(30)
            self.child = None

    def rows(self) -> list[Row]:
        return read(self.memory, f"SELECT {COLUMNS} FROM journal ORDER BY epoch, lane, seq")

    def decided(self) -> int:
        """Decisions on disk."""
        if not self.memory.exists():
            return 0
        try:
            return len(read(self.memory, "SELECT 1 FROM journal WHERE kind='decision'"))
        except sqlite3.OperationalError:  # it is being made
            return 0


def read(database: Path, query: str) -> list[Row]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        return db.execute(query).fetchall()


def at_hub(hub: Any) -> list[Row]:
    return read(hub.folder / "hub.db", f"SELECT {COLUMNS} FROM records ORDER BY epoch, lane, seq")


def command(*words: object, code: int = 0) -> str:
    line = [sys.executable, "-m", "edge_cli.main", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def hub(tmp_path: Path, new_hub: Any) -> Any:
    """A hub with a broker of its own."""
    return new_hub(tmp_path / "hub").start()


def release(folder: Path, number: int) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "policy.yaml").write_text(POLICY)
    agent = {
        "name": "watch",
        "bundle": str(shipped_path("trace", "1")),
        "policy": "policy.yaml",
        "source": {"kind": "replay", "file": str(shipped_path("trace", "2")), "rate_per_s": 50, "repeat": True},
        "grants": ["alert"],
        "valid_for_s": 600,
    }
    file = folder / f"release-{number}.yaml"
    file.write_text(yaml.safe_dump({"release": number, "agents": [agent]}))
    return file


def push(hub: Any, files: Path, number: int) -> None:
    out = files / f"release-{number}"
    command("release", "create", release(files, number), "--trust", hub.operator.folder, "--out", out)
    command("release", "push", out, "--all", "--hub-dir", hub.folder)


@pytest.fixture
def site(hub: Any, tmp_path: Path) -> Iterator[Site]:
    token = hub.folder / "operator.token"
    command(
        "node", "provision", "plant-01", "--hub", hub.facts["http"], "--token-file", token,
        "--release", release(tmp_path / "files", 1), "--out", tmp_path / "plant-01", "--api-port", "0",
        "--trust", hub.operator.folder,
    )  # fmt: skip
    made = Site(tmp_path / "plant-01").start()
    yield made
    made.end(signal.SIGKILL)


def verified(hub: Any, site: Site) -> None:
    """Chains and checkpoints hold at both ends."""
    command("memory", "verify", "-m", site.kit / "site.yaml")
    command("fleet", "verify", "plant-01", "--hub-dir", hub.folder)


def shown(hub: Any) -> dict[str, Any]:
    return dict(hub.api("GET", "/api/v1/sites/plant-01"))


def fill_back_up_and_go_on(hub: Any, files: Path, until: Callable[..., Any], backup: Path) -> tuple[int, int]:
    """Returns how many records the backup holds at least, and at most."""
    push(hub, files, 2)
    until(lambda: shown(hub)["release"] == 2, "release 2")
    until(lambda: len(at_hub(hub)) > 100, "records at the hub")
    held = len(at_hub(hub))
    assert "files" in command("hub", "backup", hub.folder, "--out", backup)
    most = len(at_hub(hub))
    push(hub, files, 3)
    until(lambda: (shown(hub)["release"], shown(hub)["generation"]) == (3, 2), "release 3")
    until(lambda: len(at_hub(hub)) > most + 200, "many more records at the hub")
    return held, most


def test_every_record_comes_back_and_the_site_takes_the_restored_hub_s_word_again(
    hub: Any, site: Site, until: Callable[..., Any], tmp_path: Path
) -> None:
    held, most = fill_back_up_and_go_on(hub, tmp_path / "files", until, tmp_path / "monday.tar")
    broker = hub.facts["broker"]
    assert "stop it first" in command("hub", "restore", tmp_path / "monday.tar", hub.folder, "--replace", code=2)
    hub.kill()
    said = json.loads(
        command("hub", "restore", tmp_path / "monday.tar", hub.folder, "--replace", "--json").partition("}")[0] + "}"
    )
    assert held <= len(at_hub(hub)) <= most
    assert Path(said["set_aside"], "hub.db").exists()

    hub.start()
    assert hub.facts["broker"] == broker, "sites know this address"
    until(lambda: shown(hub)["desired"] == {"release": 2, "generation": 3}, "a generation above the site's")
    until(lambda: (shown(hub)["release"], shown(hub)["generation"]) == (2, 3), "the site to take it")
    until(lambda: len(at_hub(hub)) > most + 300, "the hub to catch up", 90)
    site.end()
    until(lambda: at_hub(hub) == site.rows(), "the same rows at site and hub", 60)
    assert shown(hub)["lost"] == 0
    verified(hub, site)
    what = [row[0] for row in read(hub.folder / "hub.db", "SELECT what FROM audit ORDER BY id")]
    assert what.count("hub restored") == what.count("generation raised") == 1


def test_what_the_site_no_longer_holds_becomes_a_gap(
    hub: Any, site: Site, until: Callable[..., Any], tmp_path: Path
) -> None:
    held, _ = fill_back_up_and_go_on(hub, tmp_path / "files", until, tmp_path / "monday")
    site.end()
    until(lambda: shown(hub)["backlog"] == 0 and at_hub(hub) == site.rows(), "all of it at the hub")
    hub.kill()
    everything = site.rows()
    journal = Journal(site.memory, 64, lambda: 1)
    while journal.maintain(lambda db: tend(db, above=0.0)):  # the disk is full, and the hub has all of it
        pass
    journal.close()
    command("hub", "restore", tmp_path / "monday", hub.folder, "--replace")
    hub.start()
    site.start()
    before = site.decided()
    until(lambda: site.decided() > before + 20, "new decisions")
    site.end()

    def whole() -> bool:
        ends = dict[tuple[str, str], int]()
        for epoch, lane, seq, *_ in (*everything, *site.rows()):
            ends[epoch, lane] = max(seq, ends.get((epoch, lane), 0))
        highs = read(hub.folder / "hub.db", "SELECT epoch, lane, high FROM streams")
        return all((*stream, end) in highs for stream, end in ends.items())

    until(whole, "every stream to its end at the hub", 60)
    rows = {row[:3]: row for row in at_hub(hub)}
    gone = {
        (epoch, lane, seq)
        for epoch, lane, first, last in read(hub.folder / "hub.db", "SELECT epoch, lane, first, last FROM gaps")
        for seq in range(first, last + 1)
    }
    assert held <= len(rows)
    assert gone.isdisjoint(rows)
    assert {row[:3] for row in everything} - set(rows) <= gone
    assert all(rows[row[:3]] == row for row in everything if row[:3] in rows)
    assert shown(hub)["lost"] == len(gone) > 0
    verified(hub, site)
