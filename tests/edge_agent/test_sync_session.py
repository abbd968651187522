"""sync/SPEC.md, section Journal sync: what a site's session says, without a link."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.memory.draft import Draft
from edge_agent.memory.journal import Journal
from edge_agent.memory.outbox import set_forked
from edge_agent.memory.schema import reading
from edge_agent.sync_session import FULL_EVERY, HEARTBEAT_EPOCHS, HEARTBEAT_S, PRESENCE_EVERY, SiteSync
from edge_sync.documents import Ack, Resume, dump

STARTS = 30


def now_us() -> int:
    return time.time_ns() // 1000


class Session:
    """A site's session, and all that it said."""

    def __init__(self, path: Path) -> None:
        self.path, self.said = path, list[tuple[str, Any]]()
        self.journal = Journal(path, 16, now_us, flushes=False)
        self._reading = reading(path)
        self.sync = SiteSync(self.journal, self._reading.__enter__(), self._publish, now_us, lambda: "s1", {})
        self.sync.introduce(0.0)

    def close(self) -> None:
        self._reading.__exit__(None, None, None)
        self.journal.close()

    def write(self, rows: int = 1) -> None:
        self.journal.write([Draft("decision", "event", "a", 1, "{}") for _ in range(rows)])

    def heard(self, *what: str) -> list[Any]:
        """The documents of these names that were said, taken out."""
        found = [document for name, document in self.said if name in what]
        self.said = [(name, document) for name, document in self.said if name not in what]
        return found

    def _publish(self, what: str, payload: bytes, retain: bool = False) -> bool:
        self.said.append((what, payload if what == "journal" else json.loads(payload)))
        return True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def session(path: Path) -> Iterator[Session]:
    """Of a site that was started often."""
    for _ in range(STARTS):
        journal = Journal(path, 16, now_us)
        journal.write([Draft("decision", "event", "a", 1, "{}")])
        journal.close()
    session = Session(path)
    yield session
    session.close()


def test_a_heartbeat_names_few_epochs_and_now_and_then_many(session: Session) -> None:
    session.sync.up(0.0)
    for beat in range(FULL_EVERY + 1):
        session.sync.turn(beat * HEARTBEAT_S)
    beats = session.heard("heartbeat")
    full = [0, FULL_EVERY]
    assert [len(beat["epochs"]) for beat in beats] == [
        STARTS + 1 if number in full else HEARTBEAT_EPOCHS for number in range(FULL_EVERY + 1)
    ]
    assert beats[0]["after"] == 0
    assert beats[1]["after"] == STARTS + 1 - HEARTBEAT_EPOCHS, "all above it are named"
    presences = session.heard("presence")
    assert len(presences) == 1 + FULL_EVERY // PRESENCE_EVERY
    assert {(each["online"], each["session"]) for each in presences} == {(True, (STARTS + 1) << 20)}


def test_the_epoch_that_runs_is_named_before_it_has_a_record(session: Session) -> None:
    session.sync.up(0.0)
    session.sync.turn(0.0)
    [hello], [beat] = session.heard("hello"), session.heard("heartbeat")
    assert hello["epochs"][-1] == {"epoch": session.journal.epoch, "order": STARTS + 1, "last": {}, "evicted": {}}
    assert beat["epochs"][0]["epoch"] == session.journal.epoch


def test_a_fork_is_remembered_and_not_sent_again_by_the_next_process(path: Path) -> None:
    first = Session(path)
    first.write(3)
    first.sync.up(0.0)
    epoch = first.journal.epoch
    first.sync.turn(0.0)
    first.sync.heard("resume", dump(Resume(sync="s1", cursors={epoch: {"decision": 0}})), 0.0)
    first.sync.turn(20.0)
    assert len(first.heard("journal")) == 1
    first.sync.heard("ack", dump(Ack(epoch=epoch, lane="decision", seq=0, fork=True)), 21.0)
    first.journal.flush()
    assert first.journal.epoch != epoch, "a new epoch began"
    assert first.sync.backlog() == 0 or first.journal.last("alarm") == 1
    first.close()
    second = Session(path)
    second.sync.up(0.0)
    second.sync.heard("resume", dump(Resume(sync="s1", cursors={epoch: {"decision": 0}})), 0.0)
    second.sync.turn(60.0)
    with reading(path) as db:
        assert db.execute("SELECT forked FROM cursors WHERE epoch=?", (epoch,)).fetchone() == (1,)
    assert second.heard("journal") == [], "of the forked stream nothing is sent"
    second.close()


def test_forked_is_a_flag_of_its_stream_alone(path: Path) -> None:
    journal = Journal(path, 16, now_us)
    journal.write((), also=lambda db: set_forked(db, (journal.epoch, "alarm")))
    journal.close()
    with reading(path) as db:
        assert db.execute("SELECT lane, forked FROM cursors").fetchall() == [("alarm", 1)]


def test_what_is_no_document_is_passed_over(session: Session) -> None:
    session.sync.up(0.0)
    session.sync.heard("ack", b"\xff", 1.0)
    session.sync.heard("resume", b"{}", 1.0)
    session.sync.turn(1.0)
    assert session.sync.online
