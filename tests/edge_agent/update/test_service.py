"""The update thread: real journal, real blobs, real signatures, real models; only the link is a list."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge_agent.brain import Deployment
from edge_agent.config import Site, SiteConfig
from edge_agent.memory.draft import Draft
from edge_agent.memory.journal import Journal, JournalUnavailableError
from edge_agent.memory.schema import reading
from edge_agent.update.blobs import BlobStore
from edge_agent.update.service import Outbox, UpdateService
from edge_agent.update.slots import Slot, read_slot, standing
from edge_models.digests import Digest
from edge_models.errors import ConfigError
from edge_models.shipped import shipped_path
from edge_sync.chunks import chunk_message
from edge_sync.documents import DESIRED_TYPE, Desired, Reported, dump
from edge_sync.release import CHUNK_SIZE_BYTES, AgentSpec, Release, SourceSpec, resolve
from edge_sync.signing import make_key, sign

POLICY = "policy: p\nversion: 1\nrules:\n  - {name: a, when: 'true'}\n"


def now_us() -> int:
    return time.time_ns() // 1000


@dataclass
class Fixture:
    """A site's update service, and all it said and did."""

    folder: Path
    budget_mb: int = 16
    reported: list[Reported] = field(default_factory=list)
    wanted: list[dict[str, Any]] = field(default_factory=list)
    subscribed: set[str] = field(default_factory=set)
    switched: list[int] = field(default_factory=list)
    refuse: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.key = self.folder / "director.key"
        hub = {"broker": "mqtt://127.0.0.1:1", "director_key": make_key(self.key)}
        config = SiteConfig.model_validate({"site": "plant-01", "hub": hub})
        self.site = Site(config, self.folder, self.folder)
        self.journal = Journal(self.folder / "memory.db", self.budget_mb, now_us)
        self.blobs = BlobStore(self.folder / "blobs")
        self.start()

    def start(self) -> None:
        running = Slot(Release(release=1, agents=[], artifacts={}), 0)
        with reading(self.journal.path) as db:
            stands = standing(db, running)
        outbox = Outbox(self.reported.append, lambda want: self.wanted.append(json.loads(want)), self._subscribe)
        self.service = UpdateService(
            self.site, self.journal, self.blobs, running, stands, self._vet, self._switch, outbox, now_us
        )
        self.service.start()

    def _subscribe(self, digest: str, wanted: bool) -> None:
        (self.subscribed.add if wanted else self.subscribed.discard)(digest)

    def _vet(self, _: Deployment) -> None:
        if self.refuse:
            raise ConfigError(self.refuse.pop())

    def _switch(self, deployment: Deployment) -> None:
        self.switched.append(deployment.release.release)

    def release(self, number: int, bundle: str = "2") -> tuple[Release, dict[Digest, bytes]]:
        (self.folder / "policy.yaml").write_text(POLICY)
        spec = AgentSpec(
            name="watch",
            bundle=str(shipped_path("appliance", bundle)),
            policy="policy.yaml",
            source=SourceSpec(kind="replay"),
        )
        return resolve(number, [spec], self.folder)

    def desired(self, generation: int, release: Release) -> None:
        document = Desired(site="plant-01", generation=generation, issued_us=0, release=release.model_dump(mode="json"))
        self.service.desired(sign(dump(document), DESIRED_TYPE, self.key))

    def state(self) -> tuple[str, int]:
        said = self.service.reported()
        return said.state, said.release

    def alarms(self) -> list[dict[str, Any]]:
        self.journal.flush()
        with reading(self.journal.path) as db:
            return [json.loads(row[0]) for row in db.execute("SELECT body FROM journal WHERE lane='alarm' ORDER BY id")]


def chunks(digest: str, data: bytes) -> list[bytes]:
    count = -(-len(data) // CHUNK_SIZE_BYTES)
    pieces = (data[i * CHUNK_SIZE_BYTES : (i + 1) * CHUNK_SIZE_BYTES] for i in range(count))
    return [chunk_message(digest, i, count, len(data), piece) for i, piece in enumerate(pieces)]


def wait_for(true: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.01)


@pytest.fixture
def fx(tmp_path: Path) -> Iterator[Fixture]:
    made = Fixture(tmp_path)
    yield made
    made.service.close()
    made.journal.close()


def test_a_release_is_fetched_checked_remembered_and_switched_to(fx: Fixture) -> None:
    release, blobs = fx.release(2)
    fx.desired(1, release)
    wait_for(lambda: len(fx.wanted) == 2)
    assert fx.subscribed == set(blobs)
    for digest, data in blobs.items():
        for message in chunks(digest, data):
            fx.service.chunk(message)
    wait_for(lambda: fx.state() == ("active", 2))
    assert fx.switched == [2]
    assert fx.subscribed == set()
    assert [said.state for said in fx.reported] == ["downloading", "staged", "active"]
    with reading(fx.journal.path) as db:
        slot = read_slot(db, "active")
    assert slot is not None
    assert (slot.release.release, slot.generation) == (2, 1)


def test_what_arrived_before_a_restart_is_not_asked_for_again(fx: Fixture) -> None:
    release, blobs = fx.release(2)
    bundle = Digest(next(digest for digest, artifact in release.artifacts.items() if len(artifact.chunks) == 2))
    fx.desired(1, release)
    wait_for(lambda: len(fx.wanted) == 2)
    fx.service.chunk(chunks(bundle, blobs[bundle])[1])
    wait_for(lambda: fx.blobs.held_chunks(bundle, release.artifacts[bundle]) == [1])
    fx.service.close()
    fx.wanted.clear()
    fx.start()
    fx.desired(1, release)
    wait_for(lambda: len(fx.wanted) == 2)
    assert next(want["missing"] for want in fx.wanted if want["digest"] == bundle) == [[0, 0]]


def test_chunks_that_make_other_bytes_are_fetched_again(fx: Fixture) -> None:
    release, blobs = fx.release(2)
    bundle = Digest(next(digest for digest, artifact in release.artifacts.items() if len(artifact.chunks) == 2))
    for digest, data in blobs.items():
        if digest != bundle:
            fx.blobs.put(digest, data)
    fx.desired(1, release)
    wait_for(lambda: len(fx.wanted) == 1)
    first, second = chunks(bundle, blobs[bundle])
    fx.service.chunk(first)
    wait_for(lambda: fx.blobs.held_chunks(bundle, release.artifacts[bundle]) == [0])
    [part] = (fx.folder / "blobs").glob("*.part")
    part.write_bytes(b"the disk gave other bytes back")
    fx.service.chunk(second)
    wait_for(lambda: len(fx.wanted) >= 2)
    for message in (first, second):
        fx.service.chunk(message)
    wait_for(lambda: fx.state() == ("active", 2))


def test_a_full_journal_delays_an_activation_and_does_not_lose_it(fx: Fixture) -> None:
    release, blobs = fx.release(2)
    for digest, data in blobs.items():
        fx.blobs.put(digest, data)

    with fx.journal._commit_lock:  # simulated: SQLite may not make the file larger
        most = fx.journal._connection.execute("PRAGMA max_page_count").fetchone()[0]
        fx.journal._connection.execute("PRAGMA max_page_count=1")
    with pytest.raises(JournalUnavailableError):
        fx.journal.write([Draft("telemetry", "observation", "a", now_us(), "{}")])
    fx.desired(1, release)
    wait_for(lambda: fx.state() == ("staged", 1))
    with fx.journal._commit_lock:
        fx.journal._connection.execute(f"PRAGMA max_page_count={most}")
    wait_for(lambda: fx.state() == ("active", 2))
    assert fx.switched == [2]


def test_a_release_that_cannot_run_here_fails_and_a_newer_one_is_taken(fx: Fixture) -> None:
    fx.refuse.append("agent 'watch': no endpoint is named 'x'")
    release, blobs = fx.release(2)
    for digest, data in blobs.items():
        fx.blobs.put(digest, data)
    fx.desired(1, release)
    wait_for(lambda: fx.state() == ("failed", 1))
    fx.desired(1, release)
    fx.desired(2, release.model_copy(update={"release": 3}))
    wait_for(lambda: fx.state() == ("active", 3))
    assert fx.switched == [3]


def test_a_refused_generation_is_remembered_over_a_restart(fx: Fixture) -> None:
    fx.refuse.append("no")
    release, blobs = fx.release(2)
    for digest, data in blobs.items():
        fx.blobs.put(digest, data)
    fx.desired(5, release)
    wait_for(lambda: fx.state() == ("failed", 1))
    fx.service.close()
    fx.journal.flush()
    fx.start()
    assert (fx.service.reported().state, fx.service.reported().reason) == ("failed", "no")
    fx.desired(4, release)
    wait_for(lambda: any("generation 4 is older than 5" in alarm["reason"] for alarm in fx.alarms()))


def test_a_flood_of_chunks_does_not_push_out_a_desired_document(fx: Fixture) -> None:
    release, blobs = fx.release(2)
    for digest, data in blobs.items():
        fx.blobs.put(digest, data)
    for _ in range(5000):
        fx.service.chunk(b"no chunk")
    fx.desired(1, release)
    for _ in range(5000):
        fx.service.chunk(b"no chunk")
    wait_for(lambda: fx.state() == ("active", 2))


def test_a_flood_of_forgeries_is_a_handful_of_records(fx: Fixture) -> None:
    for n in range(3000):
        fx.service.desired(b"{}")
        fx.service.chunk(b"no chunk %d" % n)
    wait_for(lambda: len(fx.alarms()) >= 2)
    fx.service.close()
    assert {alarm["reason"] for alarm in fx.alarms()} == {
        "signed document: not a DSSE envelope (KeyError)",
        "chunk: is no chunk message",
    }
    assert len(fx.alarms()) == 2
