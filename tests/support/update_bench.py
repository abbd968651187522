"""A site's update thread for tests: real journal, blobs, signatures and models; only the link is a list."""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from operator_desk import Desk

from edge_agent.brain import Deployment
from edge_agent.config import Site, SiteConfig
from edge_agent.memory.journal import Journal
from edge_agent.memory.schema import reading
from edge_agent.update.blobs import BlobStore
from edge_agent.update.health import HealthMeter
from edge_agent.update.proving import Proving
from edge_agent.update.service import UpdateService
from edge_agent.update.site_updates import Clock, Outbox, SiteUpdates
from edge_agent.update.slots import Slot, confirm, read_slot, standing
from edge_agent.update.switching import Switcher
from edge_agent.update.trial import TrialSettings
from edge_agent.update.wishes import Wishes
from edge_models.digests import Digest
from edge_models.errors import ConfigError
from edge_models.shipped import shipped_path
from edge_sync.chunks import chunk_message
from edge_sync.documents import DESIRED_TYPE, Delta, Desired, Reported, dump
from edge_sync.release import CHUNK_SIZE_BYTES, AgentSpec, Release, SourceSpec, resolve
from edge_sync.signing import sign
from edge_sync.trust.client import Trusted
from edge_sync.updater import Updater

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
        self.desk = Desk(self.folder / "desk")
        self.key = self.desk.director
        (self.folder / "root.json").write_bytes(self.desk.root)
        hub = {"broker": "mqtt://127.0.0.1:1", "root": "root.json"}
        config = SiteConfig.model_validate({"site": "plant-01", "hub": hub})
        self.site = Site(config, self.folder, self.folder)
        self.journal = Journal(self.folder / "memory.db", self.budget_mb, now_us)
        self.blobs = BlobStore(self.folder / "blobs")
        self.start()

    def start(self, passed_over: bool = False) -> None:
        """`passed_over`: the active release can't be loaded, and what the site file names runs."""
        with reading(self.journal.path) as db:
            running = (None if passed_over else read_slot(db, "active")) or Slot(Release.of(1, [], {}), 0)
            stands = standing(db, running)
        trusted = Trusted(self.folder / "trust", self.site.trust_root(), now_us)
        settings = TrialSettings(window_s=10.0)
        meter = HealthMeter(self.journal, list, settings.window_s, time.monotonic())
        proving = Proving(self.journal, meter, settings, running, now_us, time.monotonic())
        outbox = Outbox(self.reported.append, lambda want: self.wanted.append(json.loads(want)), self._subscribe)
        labels: dict[str, str] = {}
        switcher = Switcher(labels, self.journal, self.blobs, running, proving, self._vet, self._switch, now_us)
        updates = SiteUpdates(
            labels,
            Updater("plant-01", labels, stands),
            trusted,
            switcher,
            self.blobs,
            self.journal,
            Wishes(self.folder),
            outbox,
            Clock(now_us, time.monotonic, lambda _: 0.0),
        )
        self.service = UpdateService(updates)
        self.service.start()

    def _subscribe(self, digest: str, wanted: bool) -> None:
        (self.subscribed.add if wanted else self.subscribed.discard)(digest)

    def _vet(self, _: Deployment) -> None:
        if self.refuse:
            raise ConfigError(self.refuse.pop())

    def _switch(self, deployment: Deployment) -> None:
        self.switched.append(deployment.release.release)

    def release(self, number: int, bundle: str = "2", signed: bool = True) -> tuple[Release, dict[Digest, bytes]]:
        (self.folder / "policy.yaml").write_text(POLICY)
        spec = AgentSpec(
            name="watch",
            bundle=str(shipped_path("appliance", bundle)),
            policy="policy.yaml",
            source=SourceSpec(kind="replay"),
        )
        release, blobs = resolve(number, [spec], self.folder)
        if signed:
            self.service.trust(self.desk.sign(release, blobs))
        return release, blobs

    def desired(self, generation: int, release: Release, deltas: Sequence[Delta] = ()) -> None:
        document = Desired(
            site="plant-01",
            generation=generation,
            issued_us=0,
            release=release.model_dump(mode="json"),
            deltas=list(deltas),
        )
        self.service.desired(sign(dump(document), DESIRED_TYPE, self.key))

    def deliver(self, blobs: Mapping[Digest, bytes]) -> None:
        """Whatever it asks for comes, once it asks."""
        self.wait_for(lambda: {want["digest"] for want in self.wanted} >= set(blobs) - self.blobs.digests())
        for digest, data in blobs.items():
            for message in chunks(digest, data):
                self.service.chunk(message)

    def confirm(self) -> None:
        """The release on trial has proven itself."""
        self.journal.write((), also=confirm)
        self.restart()

    def restart(self, passed_over: bool = False) -> None:
        """The process ends, and starts again."""
        self.service.close()
        self.start(passed_over)

    def wait_for(self, true: Callable[[], object], seconds: float = 20.0) -> None:
        """Until it is so."""
        wait_for(true, seconds)

    def now_us(self) -> int:
        """The clock."""
        return now_us()

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
