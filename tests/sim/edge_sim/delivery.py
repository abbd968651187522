"""The hub's half of updates in virtual time: production's releases, trust, deltas and chunk sender, without threads."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection as Database
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from edge_hub.database.schema import artifacts
from edge_hub.database.store import Store
from edge_hub.delivery.blobs import Blobs
from edge_hub.delivery.deltas import Deltas
from edge_hub.delivery.releases import Releases, envelope, wanted_sites
from edge_hub.delivery.sender import _clip
from edge_hub.delivery.trust import Trust, packed_set
from edge_models.delta import make_delta
from edge_models.errors import RejectedError
from edge_sim.disk import Disk, Image, scratch
from edge_sim.pool import UNSIGNED, Pool, State, pool
from edge_sim.world import START_US
from edge_sync.chunks import ChunkSender, chunk_message
from edge_sync.documents import Reported, Want, load
from edge_sync.release import CHUNK_SIZE_BYTES
from edge_sync.signing import public_key
from edge_sync.topics import FLEET_TRUST, down, fleet_chunk, site_chunk

if TYPE_CHECKING:
    from edge_sim.hub import SimHub

BYTE_RATE = 512 * 1024
"""Bytes of chunks a second: four chunks, so that much can happen while an artifact is on its way."""

RENEW_LOOK_S = 6 * 3_600.0
"""Between two looks at how old the timestamp is."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A chunk left the hub; `site` None: to all that lack it."""

    at_s: float
    digest: str
    index: int
    site: str | None


class Delivery:
    """What a hub's process does of updates: as long as that process lives."""

    def __init__(self, host: "SimHub", store: Store) -> None:
        self._host, self._store = host, store
        self._pool = pool()
        self._blobs = Blobs(self._pool.blobs)
        now_us = host.clock.us
        self.trust = Trust(store, self._pool.online, public_key(self._pool.director), self._say_trust, now_us)
        self.releases = Releases(
            store, self._pool.director, self._say_desired, now_us, Deltas(store, self._blobs).ensure
        )
        self._chunks = ChunkSender(byte_rate=BYTE_RATE)
        self._pump_at: float | None = None

    # What an operator does

    def take(self, state: State) -> bool:
        """Hold what the operator signed; whether it is held."""
        held = False

        def put() -> None:
            nonlocal held
            with suppress(OperationalError):
                self.trust.take(state.files, "operator")
                held = True

        self._host.guard(put)
        return held and self._host.running

    def push(self, number: int, names: Sequence[str] | None = None) -> None:
        """Make this release what these sites (None: all) should run, where the hub lets its operator do so."""

        def put() -> None:
            try:
                self.releases.push(number, names, "operator")
            except OperationalError:
                self._host.world.say("hub", "push failed", f"release {number}: its disk is full")
            except RejectedError as error:
                self._host.world.say("hub", "push refused", str(error)[:100])

        self._host.guard(put)

    def renew(self) -> None:
        """Sign the timestamp again where that is due."""

        def sign() -> None:
            with suppress(OperationalError):
                self.trust.renew()

        self._host.guard(sign)

    def stick(self, site: str) -> tuple[bytes, bytes] | None:
        """Trust metadata and the site's desired document, as a stick carries them; None where there are none."""
        made: tuple[bytes, bytes] | None = None

        def make() -> None:
            nonlocal made
            with suppress(OperationalError, RejectedError):
                desired = self.releases.envelope(site)
                if desired is not None:
                    made = (self.trust.media(90, "operator"), desired)

        self._host.guard(make)
        return made

    # What sites say

    def reported(self, db: Database, site: str, said: Reported) -> bool:
        """Whether what the site reports makes its desired document new."""
        if self.trust.answer(db, site, said):
            self._say_trust()
        return self.releases.answer(db, site, said)

    def desired(self, site: str | None) -> None:
        """Say the site's desired document again; None: everyone's, and what all are told."""
        if site is not None:
            self._say_desired(site)
            return
        with self._store.reading() as db:
            names = wanted_sites(db)
        for name in names:
            self._say_desired(name)
        self._say_trust()

    def want(self, site: str, payload: bytes) -> None:
        """A site lacks chunks."""
        with suppress(RejectedError):
            want = load(Want, payload)
            if (count := self._count(want.digest)) is not None:
                missing = _clip(want.missing, count)
                self._chunks.want(site, want.model_copy(update={"missing": missing}), self._host.world.now)
                self._wake()

    def gone(self, site: str) -> None:
        """The site's link is down."""
        self._chunks.gone(site)

    # What it says

    def _say_desired(self, site: str) -> None:
        self._host.later(down(site, "desired"), lambda db: envelope(db, site), retain=True)

    def _say_trust(self) -> None:
        late_s = max(0.0, self._host.trust_late_until - self._host.world.now)
        self._host.later(FLEET_TRUST, packed_set, retain=True, late_s=late_s)

    def _count(self, digest: str) -> int | None:
        with self._store.reading() as db:
            size = db.scalar(select(artifacts.c.size).where(artifacts.c.digest == digest))
        return None if size is None else -(-size // CHUNK_SIZE_BYTES)

    def _wake(self) -> None:
        world, life = self._host.world, self._host.life
        wake_at = self._chunks.wake_at(world.now)
        if wake_at is None or (self._pump_at is not None and self._pump_at <= wake_at):
            return
        self._pump_at = wake_at

        def pump() -> None:
            if not self._host.lives(life) or self._pump_at != wake_at:
                return
            self._pump_at = None
            while (send := self._chunks.next(world.now)) is not None:
                size = self._blobs.path(send.digest).stat().st_size
                data = self._blobs.chunk(send.digest, send.index)
                message = chunk_message(send.digest, send.index, -(-size // CHUNK_SIZE_BYTES), size, data)
                topic = fleet_chunk(send.digest) if send.site is None else site_chunk(send.site, send.digest)
                self._host.sent.append(Sent(world.now, send.digest, send.index, send.site))
                world.counts["chunk sent"] += 1
                self._host.say(topic, message)
            self._wake()

        world.at(wake_at, lambda: self._host.guard(pump))


@cache
def stocked() -> Image:
    """A hub's disk as it is when a run begins: every release is there, nothing is signed or pushed yet."""
    shared: Pool = pool()
    disk = Disk(scratch() / "hub", "hub.db")
    store = Store(disk.path)
    releases = Releases(store, shared.director, lambda _: None, lambda: START_US)
    try:
        for release in shared.releases.values():
            for digest, artifact in release.artifacts.items():
                if not releases.has_artifact(digest):
                    releases.add_artifact(digest, artifact, "operator")
            releases.create(release, "operator")
        trust = Trust(store, shared.online, public_key(shared.director), lambda: None, lambda: START_US)
        trust.take(shared.states[0].files, "operator")
        _make_deltas(store, shared)
    finally:
        store.close()
    image = disk.image()
    disk.remove()
    return image


def _make_deltas(store: Store, shared: Pool) -> None:
    """All that any push may name.

    Of neighbours only, to save time: of others the hub remembers that the whole is no dearer.
    """
    bundles = [shared.releases[number].agents[0].bundle for number in shared.releases if number != UNSIGNED]
    places = {digest.removeprefix("sha256:"): place for place, digest in enumerate(bundles)}

    def make(base: Path, target: Path) -> bytes:
        near = abs(places[base.name] - places[target.name]) == 1
        return (make_delta(base.read_bytes(), target.read_bytes()) or b"") if near else b""

    Deltas(store, Blobs(shared.blobs), make).ensure(permutations(bundles, 2))
