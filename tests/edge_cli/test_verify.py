"""`memory verify` and `fleet verify` over a real memory and a real hub that answers over HTTP."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update
from typer.testing import CliRunner, Result

from edge_agent.memory.checkpoint import Checkpointer
from edge_agent.memory.draft import Draft
from edge_agent.memory.journal import Journal
from edge_agent.memory.outbox import read_batch, set_cursor, streams
from edge_agent.memory.schema import reading
from edge_cli import fleet, memory
from edge_hub.api.app import make_app
from edge_hub.broker import BrokerFolder
from edge_hub.database.schema import records
from edge_hub.database.schema import streams as held
from edge_hub.folder import HubFolder
from edge_hub.http_server import HttpServer, bind, url_of
from edge_hub.hub import Hub
from edge_hub.ingest.journal import Arrived, store_batches
from edge_models.errors import ConfigError, KitError
from edge_sync.batch import decode
from edge_sync.rows import Row, chain, row_bytes

SITE = "plant-01"
ROWS = 60


class World:
    """A stopped site with a delivered journal, and its hub, running."""

    def __init__(self, folder: Path, hub: Hub, url: str) -> None:
        self.hub, self.url = hub, url
        self.token = hub.folder.path / "operator.token"
        self.data = folder / "site"
        self.site_file = folder / "site.yaml"
        self.site_file.write_text(f"site: {SITE}\ndata: {self.data}\n")
        hub.sites.register(SITE, {}, replace=False, who="test")
        self.path = self.data / "memory.db"
        journal = Journal(self.path, 64, lambda: 1_800_000_000_000_000)
        checkpoints = Checkpointer(journal, SITE, self.data / "journal.key", lambda: 1_800_000_000_000_000)
        for number in range(3):
            journal.write([Draft("telemetry", "event", "press", number, "{}", score=0.5) for _ in range(ROWS // 3)])
            checkpoints.note(0.0)
        self.epoch = journal.epoch
        with reading(self.path) as db:
            for state in streams(db):
                batch = read_batch(db, state.stream, 0)
                assert batch is not None
                with hub.store.writing() as there:
                    store_batches(there, [Arrived(SITE, decode(batch.message), batch.message)], 5)
                journal.write((), also=lambda db, state=state: set_cursor(db, state.stream, state.last))  # type: ignore[misc]
        journal.close()

    def here(self, statement: str, *values: Any) -> None:
        """Change the site's file behind its back."""
        with closing(sqlite3.connect(self.path)) as db:
            db.execute(statement, values)
            db.commit()

    def forge_here(self, seq: int) -> None:
        """Change a row of telemetry, and every hash after it."""
        self.here("UPDATE journal SET label='fine', score=0.75 WHERE lane='telemetry' AND seq=?", seq)
        with closing(sqlite3.connect(self.path)) as db:
            rows = db.execute(
                "SELECT seq, at, kind, agent, subject, label, score, ref, body FROM journal"
                " WHERE lane='telemetry' AND seq>=? ORDER BY seq", (seq,)
            ).fetchall()  # fmt: skip
            (at_hash,) = db.execute("SELECT hash FROM journal WHERE lane='telemetry' AND seq=?", (seq - 1,)).fetchone()
            for fields in rows:
                at_hash = chain(at_hash, row_bytes(Row(*fields)))
                db.execute("UPDATE journal SET hash=? WHERE lane='telemetry' AND seq=?", (at_hash, fields[0]))
            db.execute("DELETE FROM journal WHERE label='checkpoint'")
            db.commit()

    def memory(self, *options: str, hub: bool = True) -> Result:
        """Run `memory verify`."""
        asked = ["--hub", self.url, "--token-file", str(self.token)] if hub else []
        return CliRunner().invoke(memory.app, ["verify", "-m", str(self.site_file), *asked, *options])

    def fleet(self, *options: str, site: str = SITE) -> Result:
        """Run `fleet verify`."""
        asked = ["--hub", self.url, "--token-file", str(self.token)]
        return CliRunner().invoke(fleet.app, ["verify", site, *asked, *options])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    folder = HubFolder(tmp_path / "hub")
    hub = Hub(folder, BrokerFolder(folder.broker), "mqtt://127.0.0.1:1883")
    listening = bind("127.0.0.1:0")
    server = HttpServer(make_app(hub), listening)
    server.start()
    yield World(tmp_path, hub, url_of(listening))
    server.close()
    hub.close()


Findings = list[tuple[str, str, int, str]]


@pytest.fixture
def findings() -> Callable[[Result], Findings]:
    """What a run with --json found: by whom, lane, number and words."""

    def read(result: Result) -> Findings:
        said = json.loads(result.stdout)["findings"]
        assert result.exit_code == (1 if said else 0)
        return [(each.get("held_by", "hub"), each["lane"], each["seq"], each["what"]) for each in said]

    return read


def test_a_site_and_its_hub_that_hold_the_same(world: World) -> None:
    said = world.memory()
    assert (said.exit_code, said.stdout) == (0, "every chain holds\n")
    assert "63 rows in 2 streams checked, 0 declared as evicted, 3 checkpoints" in said.stderr
    assert "hub: 63 records in 2 streams checked, 0 in gaps, 3 checkpoints; 2 streams compared" in said.stderr
    said = world.fleet()
    assert (said.exit_code, said.stdout) == (0, "every chain holds\n")


def test_the_json_of_both(world: World) -> None:
    said = json.loads(world.memory("--json").stdout)
    assert (said["findings"], said["compared"], said["rows"], said["checkpoints"]) == ([], 2, 63, 3)
    assert said["hub"]["streams"] == json.loads(world.fleet("--json").stdout)["streams"]
    assert {each["lane"]: each["high"] for each in said["hub"]["streams"]} == {"decision": 3, "telemetry": ROWS}
    assert "hub" not in json.loads(world.memory("--json", hub=False).stdout)


def test_a_forgery_at_the_site_is_told_to_the_row_and_the_column(world: World, findings: Any) -> None:
    """Even one whose checkpoints were removed: the hub has the rows."""
    world.forge_here(33)
    assert ("both", "telemetry", 33, "the row is another one at the hub: label, score") in findings(
        world.memory("--json")
    )
    assert "here and at the hub: the row is another one at the hub: label, score" in world.memory().stdout


def test_a_row_changed_at_the_hub_is_told_by_the_hub(world: World, findings: Any) -> None:
    with world.hub.store.writing() as db:
        db.execute(update(records).where(records.c.lane == "telemetry", records.c.seq == 7).values(agent="other"))
    expected = [("hub", "telemetry", 7, "the row is not what was written, or follows another")]
    assert findings(world.fleet("--json")) == expected
    assert findings(world.memory("--json")) == expected
    assert world.fleet().stdout == f"{world.epoch}:telemetry:7  {expected[0][3]}\n"


def test_a_hub_that_lost_what_it_acknowledged(world: World, findings: Any) -> None:
    with world.hub.store.writing() as db:
        row = db.execute(records.select().where(records.c.lane == "telemetry", records.c.seq == 50)).one()
        db.execute(delete(records).where(records.c.lane == "telemetry", records.c.seq > 50))
        db.execute(update(held).where(held.c.lane == "telemetry").values(high=50, hash=row.hash))
    assert findings(world.fleet("--json")) == []
    what = "the hub acknowledged rows up to 60 and holds them up to 50"
    assert findings(world.memory("--json")) == [("both", "telemetry", 51, what)]


def test_a_site_that_lost_its_tail(world: World, findings: Any) -> None:
    world.here("DELETE FROM journal WHERE lane='telemetry' AND seq>50")
    world.here("DELETE FROM journal WHERE label='checkpoint' AND seq>2")
    world.here("UPDATE cursors SET acked=50 WHERE lane='telemetry'")
    found = findings(world.memory("--json"))
    assert ("both", "telemetry", 51, "the hub holds rows up to 60, here they end at 50") in found


def test_rows_dropped_after_their_ack_are_no_difference(world: World, findings: Any) -> None:
    world.here(
        "UPDATE cursors SET trimmed=60, trimmed_hash="
        "(SELECT hash FROM journal WHERE lane='telemetry' AND seq=60) WHERE lane='telemetry'"
    )
    world.here("DELETE FROM journal WHERE lane='telemetry'")
    assert findings(world.memory("--json")) == []


def test_a_site_the_hub_does_not_know_is_refused(world: World) -> None:
    refused = world.fleet(site="plant-09")
    assert isinstance(refused.exception, KitError)
    assert "no site 'plant-09' is registered at this hub" in str(refused.exception)


def test_a_memory_alone_does_not_say_whose_it_is(world: World) -> None:
    asked = ["verify", "-m", str(world.path)]
    assert CliRunner().invoke(memory.app, asked).exit_code == 0
    refused = CliRunner().invoke(memory.app, [*asked, "--hub", world.url, "--token-file", str(world.token)])
    assert isinstance(refused.exception, ConfigError)
    assert "give the site file" in str(refused.exception)


def test_a_damaged_key_file_does_not_keep_the_rest_from_being_checked(world: World) -> None:
    (world.data / "journal.key").write_text("no key")
    said = world.memory(hub=False)
    assert (said.exit_code, said.stdout) == (0, "every chain holds\n")
    assert "is no ed25519 private key" in " ".join(said.stderr.split())
