"""A site's half of updates in virtual time: production's classes, and what they were seen to do wrong."""

import contextlib
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_agent.brain import Deployment
from edge_agent.memory.draft import JOURNAL_AGENT, Draft, to_body
from edge_agent.memory.journal import Journal
from edge_agent.records import Json
from edge_agent.update.proving import Proving, count_boot
from edge_agent.update.site_updates import Clock, Outbox, SiteUpdates
from edge_agent.update.slots import Slot, fallback, read_slot, standing
from edge_agent.update.switching import Switcher
from edge_agent.update.trial import TrialSettings
from edge_models.digests import Digest, digest_of
from edge_models.errors import KitError, RejectedError
from edge_sim.pool import SITE_FILE, Quality, pool, quality_in
from edge_sim.site_blobs import SimBlobStore
from edge_sim.site_parts import SimMeter, SimTrusted, SimWishes
from edge_sync.documents import Reported, Want, dump, load
from edge_sync.release import Release
from edge_sync.topics import FLEET_TRUST, down, fleet_chunk, site_chunk
from edge_sync.updater import Updater

if TYPE_CHECKING:
    from edge_sim.site import SimSite

TRIAL = TrialSettings(window_s=120.0)
"""Shorter than production's, so that a run sees many."""

FETCHING_S, BUSY_S, PROVING_S, IDLE_S = 0.25, 2.5, 10.0, 600.0
"""How often it is looked at while chunks are wanted, something is tried again, a release is on trial, or else."""

CRASHES_AFTER_S = 2.0
"""A release that takes its process down does so then."""

NOTHING_CAME = Slot(SITE_FILE, 0)
"""What runs where no release came yet, or none can be loaded."""


@dataclass(slots=True)
class Seen:
    """What was seen of one machine's disk, as long as nothing but its processes wrote on it."""

    generation: int = 0
    """The highest that was settled."""
    running: Slot = NOTHING_CAME
    refused: set[int] = field(default_factory=set)
    """Generations that ran or were tried, and were left."""
    trust: dict[str, int] = field(default_factory=dict)
    kept: set[tuple[str, int]] = field(default_factory=set)
    """Chunks that came, by digest and index, and were not deleted since."""


class SiteSide:
    """What one machine does of updates; it outlives its processes, which `open` and `close_files` begin and end."""

    def __init__(self, machine: "SimSite") -> None:
        self.machine, self.world = machine, machine.world
        self.seen = Seen()
        self.hurt = False
        """A disk fault struck: what ran may be unloadable, and a slot may be older than the artifacts."""
        self.refusals: set[str] = set()
        """Reasons that were recorded durably."""
        self._untold: set[str] = set()
        self._topics: set[str] = set()
        self._ticking = False
        self._journal: Journal | None = None
        self._reader: sqlite3.Connection | None = None
        self._updates: SiteUpdates | None = None
        self._switcher: Switcher | None = None
        self.blobs: SimBlobStore | None = None
        self.wishes = SimWishes(self, machine.disk.folder)
        self._loaded: list[Deployment] = []
        self.runs = NOTHING_CAME
        self.ended: Counter[int] = Counter()
        """Release → how often its process was ended by the world since it ran in place of another."""

    # The process

    def open(self, journal: Journal, reader: sqlite3.Connection) -> None:
        """A process begins: what production's start does before its link."""
        machine, world = self.machine, self.world
        now, now_us = world.now, machine.clock.us
        self._journal, self._reader = journal, reader
        self._topics, self._ticking = set(), False
        self.wishes.clear_unfinished()
        trusted = SimTrusted(self, machine.disk.folder / "trust")
        self.blobs = SimBlobStore(self, machine.disk.folder / "blobs")
        count_boot(journal, TRIAL, now_us)
        running = self._choose()
        proving = Proving(journal, SimMeter(lambda: self.quality, now), TRIAL, running, now_us, now)
        self._switcher = Switcher(
            {}, journal, self.blobs, running, proving, lambda _: None, self._switch, now_us, deploy=self._deploy
        )
        self._updates = SiteUpdates(
            {},
            Updater(machine.site, {}, standing(reader, running)),
            trusted,
            self._switcher,
            self.blobs,
            journal,
            self.wishes,
            Outbox(self._report, self._want, self._subscribe),
            Clock(now_us, lambda: world.now, lambda most_s: world.rng.uniform(0, most_s)),
        )
        self._begin_to_run(running)

    def close(self) -> None:
        """SIGTERM."""
        if self._updates is not None:
            self._updates.close()

    def close_files(self) -> None:
        """The process is gone."""
        if self._journal is not None:
            self.ended[self.runs.release.release] += 1
        self._updates = self._switcher = self.blobs = self._journal = self._reader = None
        self._untold.clear()
        self._loaded.clear()

    def power_cut(self) -> None:
        """So is what it had not synced."""
        if self.blobs is not None:
            self.blobs.power_cut()

    def forget(self) -> None:
        """Something else wrote on the disk."""
        self.seen, self.hurt = Seen(), True

    def flip(self, rng: random.Random) -> str:
        """Flip one bit of an artifact, whole or arriving; says where."""
        self.forget()
        folder = self.machine.disk.folder / "blobs"
        files = sorted(path for path in folder.glob("*") if path.stat().st_size) if folder.exists() else []
        if not files:
            return "no artifact to flip a bit of"
        file = rng.choice(files)
        content = bytearray(file.read_bytes())
        at, bit = rng.randrange(len(content)), rng.randrange(8)
        content[at] ^= 1 << bit
        file.write_bytes(bytes(content))
        return f"flipped: {file.name[:12]} byte {at} bit {bit}"

    def boundary(self, what: str) -> None:
        """Where the process may die."""
        self.machine.boundary(what)

    @property
    def full(self) -> bool:
        """Whether the disk takes nothing."""
        return self.machine.full

    def wrong(self, what: str) -> None:
        """The process did what it must not."""
        if (problem := f"updates: {what}") not in self.machine.monitors:
            self.machine.monitors.append(problem)
            self.world.say(self.machine.name, "WRONG", what)

    # The link

    def wants(self, topic: str) -> bool:
        """Whether it is subscribed to this topic, besides what every site is."""
        return topic == FLEET_TRUST or topic in self._topics

    @property
    def fetches(self) -> bool:
        """Whether it is subscribed to chunks."""
        return bool(self._topics)

    def greet(self) -> None:
        """The link is back."""
        if self._updates is not None:
            self._do(self._updates.greet)

    def heard(self, topic: str, payload: bytes) -> None:
        """Something came for it."""
        updates = self._updates
        if updates is None:
            return
        if topic == FLEET_TRUST:
            self._do(lambda: updates.take_trust(payload))
        elif topic == down(self.machine.site, "desired"):
            self._do(lambda: updates.take_desired(payload))
        elif topic in self._topics:
            self._do(lambda: updates.take_chunk(payload))

    def turn(self) -> None:
        """Time passed."""
        self.machine.guard(self._told)  # it writes what waits, and a process may die at that
        if self._updates is not None:
            self._do(self._updates.look_around)
            self._look()

    def again_s(self) -> float:
        """When it wants to be looked at again."""
        if self._updates is None or self._switcher is None:
            return IDLE_S
        return PROVING_S if self._switcher.proving.on_trial else IDLE_S

    # What the judge asks

    def reported(self) -> Reported | None:
        """What it would say now."""
        return None if self._updates is None else self._updates.reported()

    @property
    def settled(self) -> bool:
        """Whether nothing is on its way, on trial, or wished for."""
        if self._updates is None or self._switcher is None:
            return False
        said = self._updates.reported()
        busy = self._updates.busy or said.on_trial or said.state in ("downloading", "staged")
        return not busy and self.wishes.next() is None and not self._untold

    def right(self, digest: str, index: int) -> bool:
        """Whether the disk holds this chunk as it was signed."""
        return self.blobs is not None and self.blobs.right(digest, index)

    @property
    def on_trial(self) -> bool:
        """Whether what runs is not confirmed yet."""
        return self._switcher is not None and self._switcher.proving.on_trial

    @property
    def quality(self) -> Quality:
        """Of what runs."""
        return pool().quality(self.runs.release.release)

    # What the process does

    def _choose(self) -> Slot:
        """The active slot, else the one before, else what the site file names; as `edge_agent.site` chooses."""
        assert self._journal is not None
        assert self._reader is not None
        assert self.blobs is not None
        slots = [slot for name in ("active", "previous") if (slot := read_slot(self._reader, name)) is not None]
        if slots and slots[0].generation < self.seen.running.generation:
            self.seen.refused.add(self.seen.running.generation)  # it went back at its start
        for slot in slots:
            if slot.generation == 0:
                continue
            try:
                blobs = {Digest(digest): self.blobs.read(digest) for digest in slot.release.artifacts}
                self._deploy(slot.release, {}, blobs)
                return slot
            except (KitError, OSError) as error:
                if not self.hurt:
                    self.wrong(f"release {slot.release.release} was made to run, and can't be loaded: {error}")
                self.world.counts["release passed over"] += 1
                what: dict[str, Json] = {"release": slot.release.release, "reason": str(error)}
                at_us = self.machine.clock.us()
                draft = Draft("alarm", "event", JOURNAL_AGENT, at_us, to_body(what), label="release_passed_over")
                self._journal.write([draft])
        self._deploy(SITE_FILE, {}, {})
        return NOTHING_CAME

    def _deploy(self, release: Release, labels: Mapping[str, str], blobs: Mapping[Digest, bytes]) -> Deployment:
        """Stands for production's, which loads models: here a bundle says of itself whether it can be loaded."""
        part = release.for_site(labels)
        for digest in part.artifacts:
            if digest_of(blobs[Digest(digest)]) != digest:
                self.wrong(f"loads other bytes than {digest[:19]}")
        for agent in part.agents_for(labels):
            if quality_in(blobs[Digest(agent.bundle)]) == "golden check fails":
                raise RejectedError(f"agent {agent.name!r}: golden check failed")
        deployment = Deployment(part, ())
        self._loaded = [*self._loaded[-3:], deployment]
        return deployment

    def _switch(self, deployment: Deployment) -> None:
        assert self._switcher is not None
        slot = self._switcher.running
        if not any(deployment is each for each in self._loaded):
            self.wrong(f"runs release {slot.release.release}, which was not loaded and checked")
        before = {self.seen.running.generation, self.seen.generation}
        if slot.generation < max(before):
            self.seen.refused |= before - {slot.generation}
        else:
            if slot.generation in self.seen.refused:
                self.wrong(f"runs generation {slot.generation} again, which it had refused")
            if slot.release != SITE_FILE:  # that one came with the kit
                self._check_signed(slot.release)
        self._begin_to_run(slot)

    def _check_signed(self, release: Release) -> None:
        """The promise of trust, judged by the versions on disk and by what the operator put into each."""
        folder = self.machine.disk.folder / "trust" / "metadata"
        for path, role in pool().targets(release).items():
            version = json.loads((folder / f"{role}.json").read_bytes())["signed"]["version"]
            if path not in pool().signed[role, version]:
                self.wrong(f"runs release {release.release}, and {path[:19]} is not signed in {role} {version}")

    def _begin_to_run(self, slot: Slot) -> None:
        if slot.release != self.runs.release:
            self.ended[slot.release.release] = 0
        self.runs = self.seen.running = slot
        self.world.say(self.machine.name, "runs", f"release {slot.release.release} generation {slot.generation}")
        self.world.counts["release ran"] += 1
        if self.quality == "crashes":
            life = self.machine.life
            self.world.after(CRASHES_AFTER_S, lambda: self._crash(life, slot))

    def _crash(self, life: int, slot: Slot) -> None:
        if self.machine.lives(life) and self.runs == slot:
            self.world.counts["release crashed its process"] += 1
            self.machine.crash()
            self.world.after(self.world.rng.uniform(0.5, 20.0), self.machine.start)

    def _do(self, work: Callable[[], None]) -> None:
        """What the update thread does with each piece of work."""
        updates = self._updates
        if updates is None:
            return
        life = self.machine.life

        def run() -> None:
            for do in (work, updates.retry, updates.say_wishes):
                if not self.machine.lives(life):
                    return
                try:
                    do()
                except KitError as error:
                    reason = str(error)[:1000]
                    if reason not in self.refusals:  # the same again, and it is recorded
                        self._untold.add(reason)
                    self.world.say(self.machine.name, "refused", str(error)[:100])
                    self.world.counts["update refused"] += 1
                    updates.refusals.add(str(error))
                except OSError as error:
                    if not self.full:
                        raise
                    updates.refusals.add(f"{type(error).__name__}: {error}")

        self.machine.guard(run)
        if self.machine.waits:
            self.machine.commit_soon()
        self._tick_while_busy()

    def _tick_while_busy(self) -> None:
        """As the update thread looks while something is wanted; without a link nothing can come."""
        if self._updates is None or not self._updates.busy or not self.machine.online or self._ticking:
            return
        life, self._ticking = self.machine.life, True

        def tick() -> None:
            if self.machine.lives(life):
                self._ticking = False
                self._do(lambda: None)

        self.world.after(FETCHING_S if self.fetches else BUSY_S, tick)

    # What it says

    def _report(self, document: Reported) -> None:
        assert self._reader is not None
        floor = int(self._reader.execute("SELECT coalesce(max(generation), 0) FROM slots").fetchone()[0])
        if document.state in ("downloading", "staged") and document.generation < floor:
            self.wrong(f"takes up generation {document.generation}, and had settled {floor}")
        for role, version in document.trust.items():
            if version < self.seen.trust.get(role, 0):
                self.wrong(f"trusts {role} {version} after {self.seen.trust[role]}")
            self.seen.trust[role] = version
        self.world.say(
            self.machine.name, "reports", f"{document.state} {document.release} generation {document.generation}"
        )
        self.machine.publish("reported", dump(document), retain=True)

    def _want(self, payload: bytes) -> None:
        assert self.blobs is not None
        want = load(Want, payload)
        for first, last in want.missing:
            for index in range(first, last + 1):
                if self.blobs.right(want.digest, index):
                    self.wrong(f"asks for chunk {index} of {want.digest[:19]}, which it has")
        self.world.counts["want"] += 1
        self.machine.publish("want", payload)

    def _subscribe(self, digest: str, wanted: bool) -> None:
        topics = {fleet_chunk(digest), site_chunk(self.machine.site, digest)}
        self._topics = self._topics | topics if wanted else self._topics - topics

    # What is seen

    def _look(self) -> None:
        """The promises of slots, as another reader of the memory sees them."""
        if self._reader is None:
            return
        floor = int(self._reader.execute("SELECT coalesce(max(generation), 0) FROM slots").fetchone()[0])
        if floor < self.seen.generation:
            self.wrong(f"the generation went down from {self.seen.generation} to {floor}")
        self.seen.generation = floor
        row = self._reader.execute("SELECT release, confirmed FROM slots WHERE slot='active'").fetchone()
        if row is not None and row[1] and pool().quality(row[0]) != "good" and fallback(self._reader) is not None:
            self.wrong(f"release {row[0]} is bad and confirmed, and there is one to go back to")

    def _told(self) -> None:
        """The promise of refusals: each is a record."""
        if not self._untold or self._journal is None or self._reader is None:
            return
        with contextlib.suppress(KitError):
            self._journal.flush()
            rows = self._reader.execute("SELECT body FROM journal WHERE lane='alarm' AND label='update_refused'")
            recorded = {json.loads(body)["reason"] for (body,) in rows}
            missing = self._untold - recorded - self.refusals
            if missing and not self.machine.ledger.pressed:
                self.wrong(f"refused without a record: {sorted(missing)[0]}")
            self.refusals |= self._untold & recorded
            self._untold.clear()
