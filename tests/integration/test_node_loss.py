"""A site's node dies; a site is set back to a backup. Real hub, mosquitto with TLS, and sites as processes, which the
page docs/operations.md tells what to do. Held: edge_agent/MEMORY.md, A lost memory, and Backup and restore.
"""

import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import needed
import pytest
import yaml

from edge_hub.broker.process import free_port
from edge_models.shipped import shipped_path

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
SITE, PATIENCE_S = "plant-07", 60.0

COMMISSION = """
policy: commission
version: 1
rules:
  - name: commission
    when: '!("commissioned" in facts)'
    do: {tool: fact.set, with: {key: commissioned, value: =prediction.label}}
  - name: wait
    when: prediction.score >= 0.0
"""
WORK = """
policy: work
version: 1
rules:
  - name: greet
    when: '!("greeted" in facts)'
    do: {tool: fact.set, with: {key: greeted, value: 1}}
  - name: work
    when: '"commissioned" in facts'
    do: {tool: alert, with: {message: =prediction.label}}
  - name: idle
    when: prediction.score >= 0.0
"""
"""Never sets what the first one set: an agent that knows it has it from before."""

Row = tuple[Any, ...]


def lines(heading: str) -> list[str]:
    """The indented commands below a heading of the page."""
    [section] = [part for part in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE) if part.startswith(heading)]
    return [line.strip() for line in section.splitlines() if re.match(r" {4,}edge-agent ", line)]


def read(database: Path, query: str) -> list[Row]:
    """Rows; none while the database is being made."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            return db.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []


class Node:
    """A site's process, run from its kit; with all that it starts it is a group of its own."""

    def __init__(self, kit: Path) -> None:
        self.kit, self.log = kit, kit.with_suffix(".log")
        self.memory = kit / "data" / "memory.db"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> "Node":
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "edge_cli.main", "run", str(self.kit / "site.yaml")]
            self._child = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        return self

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)
            assert self._child.wait(30) == 0, self.log.read_text()
            self._child = None

    def kill(self) -> None:
        """kill -9, and its children with it, as a power cut does."""
        if self._child is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait(30)
            self._child = None

    def rules(self) -> list[str]:
        """By which rule each decision was made, the newest last."""
        return [row[0] for row in read(self.memory, "SELECT label FROM journal WHERE kind='decision' ORDER BY id")]

    def events(self) -> list[str]:
        return [row[0] for row in read(self.memory, "SELECT label FROM journal WHERE kind='event' ORDER BY id")]

    def mine(self) -> list[str]:
        """By which rule each decision of the process that runs was made."""
        newest = "SELECT epoch FROM epochs ORDER BY ord DESC LIMIT 1"
        query = f"SELECT label FROM journal WHERE kind='decision' AND epoch=({newest}) ORDER BY id"
        return [row[0] for row in read(self.memory, query)]

    def fact(self, key: str) -> Any:
        """What the site knows of it, and since which record."""
        query = f"SELECT value, origin FROM facts WHERE scope='site' AND key='{key}'"
        return next(iter(read(self.memory, query)), None)

    def epoch(self) -> str:
        """The newest."""
        [(epoch,)] = read(self.memory, "SELECT epoch FROM epochs ORDER BY ord DESC LIMIT 1")
        return str(epoch)

    def said(self, event: str) -> bool:
        """Whether its log has such a line."""
        return any(f'"{event}"' in line for line in self.log.read_text().splitlines())


@pytest.fixture
def hub(tmp_path: Path, new_hub: Any) -> Any:
    """One that lets sites in by certificate, with its operator."""
    needed.mosquitto()
    mqtts, enrol = free_port(), free_port()
    options = ("--mqtts", f"127.0.0.1:{mqtts}", "--enrol", f"127.0.0.1:{enrol}", "--name", "localhost")
    made = new_hub(tmp_path / "HUB", *options).start()
    assert made.operator.folder.exists()
    made.operator.folder.rename(tmp_path / "TRUST")
    made.operator.folder.symlink_to(tmp_path / "TRUST")
    return made


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    """Runs a line in the folder of the test."""
    (tmp_path / "BACKUPS").mkdir()

    def run_line(line: str, code: int = 0) -> str:
        program, *words = shlex.split(line)
        assert program == "edge-agent"
        done = subprocess.run(
            [sys.executable, "-m", "edge_cli.main", *words],
            cwd=tmp_path, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=90,
        )  # fmt: skip
        assert done.returncode == code, f"{line}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    return run_line


def write_release(folder: Path, number: int, policy: str) -> None:
    (folder / f"policy-{number}.yaml").write_text(policy)
    agent = {
        "name": "watch",
        "bundle": str(shipped_path("trace", "1")),
        "policy": f"policy-{number}.yaml",
        "source": {"kind": "replay", "file": str(shipped_path("trace", "2")), "rate_per_s": 20, "repeat": True},
        "grants": ["alert", "fact.set"],
        "valid_for_s": 600,
    }
    (folder / f"release-{number}.yaml").write_text(yaml.safe_dump({"release": number, "agents": [agent]}))


PROVISION = (
    "edge-agent node provision plant-07 --hub {hub} --token-file HUB/operator.token --trust TRUST "
    "--release release-1.yaml --out KIT --api-port 0"
)


@pytest.fixture
def node(hub: Any, run: Callable[..., str], tmp_path: Path, until: Any) -> Iterator[Node]:
    """A site that has joined, was commissioned by release 1, and works by release 2."""
    write_release(tmp_path, 1, COMMISSION)
    write_release(tmp_path, 2, WORK)
    run(PROVISION.format(hub=hub.facts["http"]))
    made = Node(tmp_path / "KIT").start()
    until(lambda: "wait" in made.rules(), "decisions by release 1", PATIENCE_S)
    yield made
    made.kill()


def to_release_2(hub: Any, run: Callable[..., str], node: Node, until: Any) -> None:
    run("edge-agent release create release-2.yaml --trust TRUST --out RELEASE")
    run("edge-agent release push RELEASE --all --hub-dir HUB")
    until(lambda: "work" in node.rules(), "decisions by release 2", PATIENCE_S)


def at_hub(hub: Any) -> dict[tuple[str, str, int], bytes]:
    """Every record: its key and its hash."""
    rows = read(hub.folder / "hub.db", "SELECT epoch, lane, seq, hash FROM records")
    return {(epoch, lane, seq): row_hash for epoch, lane, seq, row_hash in rows}


def deliver(hub: Any, node: Node, until: Any) -> None:
    """Wait until the hub holds all that the site holds now."""
    ours = read(node.memory, "SELECT epoch, lane, seq, hash FROM journal")
    assert ours

    def holds() -> bool:
        held = at_hub(hub)
        return all(held.get(row[:3]) == row[3] for row in ours)

    until(holds, "all that the site holds to be at the hub", PATIENCE_S)


def losses(run: Callable[..., str]) -> dict[str, Any]:
    return dict(json.loads(run(f"edge-agent fleet losses {SITE} --hub-dir HUB --json")))


def nothing_forked_or_doubled(hub: Any, run: Callable[..., str], before: dict[tuple[str, str, int], bytes]) -> None:
    """What the hub held it holds, and took nothing else under its numbers."""
    after = at_hub(hub)
    assert before.items() <= after.items()
    assert {each["what"] for each in losses(run)["incidents"]} <= {"journal_went_back"}
    assert hub.api("GET", f"/api/v1/sites/{SITE}")["quarantined"] == 0
    assert read(hub.folder / "hub.db", "SELECT 1 FROM streams WHERE forked") == []


def replacement(hub: Any) -> tuple[str, str, list[str]]:
    """The page's lines: the new kit, by hand, and what one looks at."""
    provision, join, *look = lines("A node died")
    provision = provision.replace("http://127.0.0.1:8600", hub.facts["http"]).replace("RELEASE.yaml", "release-2.yaml")
    return f"{provision} --api-port 0", join, look


@pytest.mark.timeout(300)
def test_a_node_died_and_another_takes_its_place_as_the_page_says(
    hub: Any, node: Node, run: Callable[..., str], until: Any, tmp_path: Path
) -> None:
    to_release_2(hub, run, node, until)
    deliver(hub, node, until)
    value, _ = node.fact("commissioned")
    assert hub.stop() == 0
    lost, count = node.epoch(), len(node.rules())
    until(lambda: len(node.rules()) > count + 20, "decisions that the hub never hears of")
    node.kill()
    shutil.rmtree(node.kit)
    before = at_hub(hub)

    hub.start()
    provision, join, (tail, lose, verify) = replacement(hub)
    run(provision)
    assert "has joined" in run(join)
    other = Node(tmp_path / "NEW").start()
    try:
        until(lambda: "rehydrated" in other.events() and len(other.mine()) > 5, "decisions on the new node", PATIENCE_S)
        events = other.events()
        assert events.index("rehydrated") < len(events) - events[::-1].index("started") - 1
        assert "rehydrated" in run(tail)
        assert other.fact("commissioned")[0] == value
        assert set(other.mine()) == {"work"}, "they knew from the first decision on"
        until(lambda: hub.api("GET", f"/api/v1/sites/{SITE}")["release"] == 2, "release 2 to be reported", PATIENCE_S)
        until(
            lambda: json.loads(run("edge-agent update status NEW/site.yaml --json"))["generation"] == 1, "the hub's own"
        )
        until(lambda: len(at_hub(hub)) > len(before) + 20, "its records at the hub", PATIENCE_S)
        assert "unknown tail" in run(lose)
        until(lambda: any(each["epoch"] == lost for each in losses(run)["losses"]), "the tail to be named", PATIENCE_S)
        assert {(each["epoch"], each["kind"]) for each in losses(run)["losses"]} == {(lost, "unknown_tail")}
        other.stop()
        until(lambda: "every chain holds" in run(verify), "both to agree")
        nothing_forked_or_doubled(hub, run, before)
    finally:
        other.kill()


@pytest.mark.timeout(300)
def test_a_node_died_while_the_hub_is_away_and_its_facts_come_with_the_first_start_that_it_answers(
    hub: Any, node: Node, run: Callable[..., str], until: Any, tmp_path: Path
) -> None:
    to_release_2(hub, run, node, until)
    deliver(hub, node, until)
    value, _ = node.fact("commissioned")
    node.kill()
    shutil.rmtree(node.kit)
    before = at_hub(hub)
    provision, join, _ = replacement(hub)
    run(provision)
    run(join)
    assert hub.stop() == 0
    other = Node(tmp_path / "NEW").start()
    try:
        until(lambda: "idle" in other.rules(), "decisions without the facts", PATIENCE_S)
        assert other.said("started_without_memory")
        assert "rehydrated" not in other.events()
        assert (other.fact("commissioned"), other.fact("greeted")[0]) == (None, "1")
        hub.start()
        deliver(hub, other, until)
        assert other.rules()[-1] == "idle", "they come with a start"
        mine = other.fact("greeted")
        other.stop()
        other.start()
        until(lambda: other.rules()[-1] == "work", "decisions with the facts", PATIENCE_S)
        assert other.fact("commissioned")[0] == value
        assert other.fact("greeted") == mine, "what was set meanwhile is newer"
        assert other.events().count("rehydrated") == 1
        other.stop()
        other.start()
        count = len(other.rules())
        until(lambda: len(other.rules()) > count + 5, "decisions after one more start", PATIENCE_S)
        assert other.events().count("rehydrated") == 1, "once is enough"
        other.stop()
        deliver(hub, other, until)
        run("edge-agent memory verify -m NEW/site.yaml --hub-dir HUB")
        nothing_forked_or_doubled(hub, run, before)
        epochs = {epoch for (epoch,) in read(other.memory, "SELECT epoch FROM epochs")}
        assert {each["epoch"] for each in losses(run)["losses"]} & epochs == set(), "nothing of the new disk is lost"
    finally:
        other.kill()


@pytest.mark.timeout(300)
def test_a_node_died_and_its_backup_brings_what_the_hub_never_had(
    hub: Any, node: Node, run: Callable[..., str], until: Any, tmp_path: Path
) -> None:
    """As the page says: join, restore, run. The new machine signs with a key of its own."""
    to_release_2(hub, run, node, until)
    deliver(hub, node, until)
    assert hub.stop() == 0
    node.stop()
    count = len(node.rules())
    node.start()  # an epoch of which the hub hears nothing, begun with a checkpoint of the old machine's key
    until(lambda: len(node.rules()) > count + 20, "decisions that the hub never hears of")
    backup, _ = lines("Back up a site")
    run(backup)
    lost = node.epoch()
    node.kill()
    written = set(read(node.memory, f"SELECT epoch, lane, seq, hash FROM journal WHERE epoch='{lost}'"))
    shutil.rmtree(node.kit)
    before = at_hub(hub)
    hub.start()
    provision, join, (_, _, verify) = replacement(hub)
    run(provision)
    run(join)
    run("edge-agent node restore BACKUPS/plant-07.tar.zst NEW/site.yaml")
    other = Node(tmp_path / "NEW").start()
    try:
        until(lambda: "work" in other.mine(), "decisions on the new node", PATIENCE_S)
        deliver(hub, other, until)
        brought = {key: row_hash for key, row_hash in at_hub(hub).items() if key[0] == lost}
        assert len(brought) > len([key for key in before if key[0] == lost]) + 20
        assert {(*key, row_hash) for key, row_hash in brought.items()} <= written
        other.stop()
        deliver(hub, other, until)
        nothing_forked_or_doubled(hub, run, before)
        assert "every chain holds" in run(verify)
    finally:
        other.kill()


def backed_up_and_destroyed(hub: Any, run: Callable[..., str], node: Node, until: Any) -> tuple[str, Row]:
    """A backup is taken while the site runs release 1; it goes on by release 2, delivers, and its disk is gone.

    The epoch that ran, and the fact that was set after the backup.
    """
    until(lambda: len(at_hub(hub)) > 20, "some of it at the hub", PATIENCE_S)
    backup, look = lines("Back up a site")
    ran = node.epoch()
    assert "records" in run(f"{backup} --with-identity")
    assert "ITS PRIVATE KEYS" in run(look)
    to_release_2(hub, run, node, until)
    deliver(hub, node, until)
    greeted: Row = node.fact("greeted")
    node.kill()
    shutil.rmtree(node.kit / "data")
    return ran, greeted


@pytest.mark.timeout(300)
def test_a_restored_site_forks_nothing_and_what_it_knew_later_comes_back(
    hub: Any, node: Node, run: Callable[..., str], until: Any
) -> None:
    ran, greeted = backed_up_and_destroyed(hub, run, node, until)
    before = at_hub(hub)
    [restore] = lines("Restore a site")
    assert "start it" in run(restore)
    assert node.fact("greeted") is None
    node.start()
    until(lambda: "work" in node.mine(), "decisions by release 2", PATIENCE_S)
    assert "another process runs this site" in run(restore, code=2)
    assert node.fact("greeted") == greeted, "set after the backup, and the hub had it"
    assert "greet" not in node.rules()
    events = node.events()
    assert events.index("restored") < events.index("rehydrated")
    deliver(hub, node, until)
    node.stop()
    deliver(hub, node, until)
    nothing_forked_or_doubled(hub, run, before)
    assert "every chain holds" in run("edge-agent memory verify -m KIT/site.yaml --hub-dir HUB")
    run(f"edge-agent fleet verify {SITE} --hub-dir HUB")
    assert {(each["epoch"], each["kind"]) for each in losses(run)["losses"]} <= {(ran, "unknown_tail")}
    after = max(seq for epoch, lane, seq in before if (epoch, lane) == (ran, "telemetry"))
    here = read(node.memory, f"SELECT max(seq) FROM journal WHERE epoch='{ran}' AND lane='telemetry'")[0][0]
    assert here < after, "the hub has more of that epoch than the backup"


@pytest.mark.timeout(300)
def test_a_restored_site_starts_without_its_hub_and_is_whole_when_that_is_back(
    hub: Any, node: Node, run: Callable[..., str], until: Any
) -> None:
    ran, _ = backed_up_and_destroyed(hub, run, node, until)
    before = at_hub(hub)
    assert hub.stop() == 0
    [restore] = lines("Restore a site")
    run(restore)
    node.start()
    count = len(node.rules())
    until(lambda: len(node.rules()) > count + 20, "decisions by what was restored", PATIENCE_S)
    assert node.said("started_behind_its_hub")
    assert {row[0] for row in read(node.memory, "SELECT DISTINCT epoch FROM journal")} >= {ran, node.epoch()}
    hub.start()
    until(lambda: "work" in node.rules(), "release 2 from the hub", PATIENCE_S)
    deliver(hub, node, until)
    node.stop()
    deliver(hub, node, until)
    nothing_forked_or_doubled(hub, run, before)
    assert "every chain holds" in run("edge-agent memory verify -m KIT/site.yaml --hub-dir HUB")
    run(f"edge-agent fleet verify {SITE} --hub-dir HUB")
    assert {(each["epoch"], each["kind"]) for each in losses(run)["losses"]} <= {(ran, "unknown_tail")}


@pytest.mark.timeout(300)
def test_a_planned_move_loses_nothing_and_nothing_is_said_to_be_lost(
    hub: Any, node: Node, run: Callable[..., str], until: Any, tmp_path: Path
) -> None:
    """Stopped, backed up, restored elsewhere: the epoch was over, and the hub has all of it."""
    until(lambda: len(at_hub(hub)) > 20, "some of it at the hub", PATIENCE_S)
    node.stop()
    backup, _ = lines("Back up a site")
    run(f"{backup} --with-identity")
    shutil.copytree(node.kit, tmp_path / "NEW", ignore=lambda *_: ["data"])
    run("edge-agent node restore BACKUPS/plant-07.tar.zst NEW/site.yaml")
    other = Node(tmp_path / "NEW").start()
    try:
        until(lambda: other.rules().count("wait") > len(node.rules()) + 20, "decisions on the new node", PATIENCE_S)
        deliver(hub, other, until)
        other.stop()
        deliver(hub, other, until)
        assert losses(run) == {"losses": [], "incidents": []}
        assert "every chain holds" in run("edge-agent memory verify -m NEW/site.yaml --hub-dir HUB")
    finally:
        other.kill()
