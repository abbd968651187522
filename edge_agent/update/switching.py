"""From one release to another and back: loaded and checked beside what runs, remembered durably, then switched.

What is durable comes first: a power cut at any instruction leaves the release before, or the new one, never neither.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Protocol

from edge_agent import brain
from edge_agent.brain import Deployment, give_back_memory
from edge_agent.inference.prepared import FOLDER, PreparedGraphs
from edge_agent.inference.providers import ONLY_CPU, Providers
from edge_agent.memory.draft import JOURNAL_AGENT, Draft, to_body
from edge_agent.memory.journal import Journal
from edge_agent.memory.schema import reading
from edge_agent.records import Json
from edge_agent.update.blobs import BlobStore
from edge_agent.update.proving import Proving, write_back
from edge_agent.update.slots import Slot, fallback, read_slot, write_active, write_refused
from edge_models.digests import Digest
from edge_models.errors import RejectedError
from edge_sync.release import Release


class Deploy(Protocol):
    """`edge_agent.brain.deploy`."""

    def __call__(self, release: Release, labels: Mapping[str, str], blobs: Mapping[Digest, bytes]) -> Deployment: ...


class Switcher:
    """What one site runs. Used by one thread; every `now` is in monotonic seconds."""

    def __init__(
        self,
        labels: Mapping[str, str],
        journal: Journal,
        blobs: BlobStore,
        running: Slot,
        proving: Proving,
        vet: Callable[[Deployment], None],
        switch: Callable[[Deployment], None],
        now_us: Callable[[], int],
        deploy: Deploy | None = None,
        providers: Providers = ONLY_CPU,
    ) -> None:
        """`vet` raises `ConfigError` where a deployment can't run here; `switch` makes it the one that does.

        By default a release is loaded with the graphs that are prepared beside the journal, to run on `providers`.
        """
        folder = journal.path.with_name(FOLDER)
        self._prepared = PreparedGraphs(folder, providers=providers) if deploy is None else None
        self._labels, self._journal, self._blobs = labels, journal, blobs
        self._vet, self._switch, self._now_us = vet, switch, now_us
        self._deploy = deploy or partial(brain.deploy, prepared=self._prepared)
        self.running, self.proving = running, proving

    def activate(self, part: Release, generation: int, now: float) -> None:
        """Run this release from now on, on trial. Whatever is wrong with it is raised, and what ran runs on."""
        deployment = self._load(part)
        slot, running = Slot(part, generation), self.running
        what: dict[str, Json] = {"release": part.release, "previous": running.release.release}
        event = Draft("decision", "event", JOURNAL_AGENT, self._now_us(), to_body(what), label="release")
        self._journal.write([event], also=lambda db: write_active(db, slot, self._now_us(), running))
        self.running = slot
        trial = self.proving.before(now)
        self._switch(deployment)
        self.proving.begin(trial, now)
        self._keep_needed()
        give_back_memory()

    def before(self) -> Slot | None:
        """What would run if what runs had to go; None where there is nothing."""
        with reading(self._journal.path) as db:
            return fallback(db)

    def go_back(self, reason: str, now: float, keep: bool) -> Slot:
        """Run the release before, and refuse the active one, which is returned; `keep`: something is arriving.

        The active one need not be what runs: where its artifacts were damaged, the start passed it over, and going back
        settles that it is not fetched anew.

        Raises `RejectedError` where there is none before, or it can't be loaded any more (`DamagedError` where an
        artifact is gone): then the next start looks further. Raises `JournalUnavailableError` where the disk is full.
        """
        with reading(self._journal.path) as db:
            previous, left = fallback(db), read_slot(db, "active")
        if previous is None or left is None:
            raise RejectedError(f"release {self.running.release.release} stays: there is none before it ({reason})")
        try:
            deployment = self._load(previous.release)
        except OSError as error:
            raise RejectedError(f"release {previous.release.release} can't run again: {error.strerror}") from None
        what: dict[str, Json] = {"release": left.release.release, "to": previous.release.release}
        write_back(self._journal, reason, self._now_us, what)
        self.running = previous
        self._switch(deployment)
        self.proving.end(now)
        if not keep:
            self._keep_needed(left.release.artifacts)
        give_back_memory()
        return left

    def give_up(self, part: Release, generation: int, reason: str) -> None:
        """This release can't run here: remember that. What came of it stays: the next one may share most of it."""
        self._journal.later(also=lambda db: write_refused(db, generation, reason, self._now_us()))
        self._keep_needed(part.artifacts)

    def _load(self, part: Release) -> Deployment:
        deployment = self._deploy(part, self._labels, {Digest(d): self._blobs.read(d) for d in part.artifacts})
        self._vet(deployment)
        return deployment

    def _keep_needed(self, also: Collection[str] = ()) -> None:
        """Remove what neither the release that runs needs nor the one before; `also` these artifacts stay."""
        needed = self._needed()
        self._blobs.keep_only(needed | set(also))
        if self._prepared is not None:
            self._prepared.keep_only(needed)

    def _needed(self) -> set[str]:
        """The artifacts of what runs and of what it may go back to."""
        with reading(self._journal.path) as db:
            slots = [self.running, *(slot for name in ("active", "previous") if (slot := read_slot(db, name)))]
        return {digest for slot in slots for digest in slot.release.artifacts}
