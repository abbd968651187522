"""The update thread: verifies what the hub wants, fetches what it needs, and switches the site over.

Everything heavy (signatures, hashing, loading models, golden checks) happens here, away from agents and uplink.
"""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.brain import Deployment, deploy
from edge_agent.config import Site
from edge_agent.memory.draft import JOURNAL_AGENT, Draft, to_body
from edge_agent.memory.journal import Journal
from edge_agent.records import Json
from edge_agent.update.blobs import BlobStore
from edge_agent.update.slots import Slot, write_active, write_refused
from edge_models.digests import Digest
from edge_models.errors import KitError
from edge_sync.chunks import Receiver
from edge_sync.documents import Desired, Reported, dump, load
from edge_sync.release import Artifact, Release
from edge_sync.rows import Lane
from edge_sync.signing import verify
from edge_sync.updater import Activate, Effect, Fetch, Report, Updater

log = logging.getLogger(__name__)

DESIRED_TYPE = "application/vnd.edge-agent.desired+json"
"""DSSE payload type of a desired document."""

WANT_JITTER_S = 0.3
"""Sites that learn of a release together do not all ask in the same instant."""

MAX_WAITING = 256
"""Messages in memory; chunks beyond it are dropped and asked for again."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """What the update thread may say to the hub. `chunks` (un)subscribes to an artifact's chunks."""

    reported: Callable[[Reported], None]
    want: Callable[[bytes], None]
    chunks: Callable[[str, bool], None]


class UpdateService:
    """Runs one site's `Updater`. `desired`, `chunk` and `link_up` may be called from any thread."""

    def __init__(
        self,
        site: Site,
        journal: Journal,
        blobs: BlobStore,
        running: Slot,
        generation: int,
        vet: Callable[[Deployment], None],
        switch: Callable[[Deployment], None],
        outbox: Outbox,
        now_us: Callable[[], int],
    ) -> None:
        """`vet` raises `ConfigError` where a deployment can't run here; `switch` makes it the one that does."""
        hub = site.config.hub
        self._pinned = hub.director_key if hub is not None else ""
        self._site, self._journal, self._blobs, self._now_us = site, journal, blobs, now_us
        self._vet, self._switch, self._outbox = vet, switch, outbox
        self._running = running
        self._updater = Updater(site.config.site, site.config.labels, running.release.release, generation)
        self._receiver = Receiver()
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="update", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop after what is being done now."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def reported(self) -> Reported:
        """What this site runs now, for the hub and the status page."""
        return self._updater.report().reported

    def desired(self, envelope: bytes) -> None:
        """A desired document came, not verified yet."""
        self._offer(lambda: self._take_desired(envelope))

    def chunk(self, message: bytes) -> None:
        """A chunk message came, not verified yet."""
        self._offer(lambda: self._take_chunk(message))

    def link_up(self) -> None:
        """The link is back."""
        self._offer(self._greet)

    def _offer(self, work: Callable[[], None]) -> None:
        try:
            self._queue.put_nowait(work)
        except queue.Full:
            log.warning("update_queue_full")

    def _run(self) -> None:
        while True:
            busy = bool(self._receiver.wanting())
            try:
                work = self._queue.get(timeout=0.25 if busy else None)
            except queue.Empty:
                self._say_wishes()
                continue
            if work is None:
                return
            try:
                work()
            except KitError as error:
                self._refuse(str(error))
            except Exception as error:  # the thread must live: a defect here may not end updates for ever
                log.exception("update_crashed")
                self._refuse(f"{type(error).__name__}: {error}")
            self._say_wishes()

    def _greet(self) -> None:
        self._outbox.reported(self.reported())
        self._receiver.link_up(time.monotonic())
        for digest in self._receiver.wanting():
            self._outbox.chunks(digest, True)

    def _take_desired(self, envelope: bytes) -> None:
        document = load(Desired, verify(envelope, DESIRED_TYPE, self._pinned))
        self._perform(self._updater.desired(document, self._blobs.digests()))

    def _take_chunk(self, message: bytes) -> None:
        keep = self._receiver.chunk(message, time.monotonic())
        if keep is None:
            return
        self._blobs.keep(keep)
        if self._receiver.kept(keep.digest, keep.index):
            self._receiver.drop(keep.digest)
            self._outbox.chunks(keep.digest, False)
            self._finish(keep.digest)

    def _finish(self, digest: str) -> None:
        try:
            self._blobs.finish(digest)
        except KitError as error:
            self._refuse(str(error))
            self._perform([Fetch((digest,))])
            return
        self._perform(self._updater.have(digest))

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Report):
                self._outbox.reported(effect.reported)
            elif isinstance(effect, Fetch):
                self._fetch(effect.digests)
            else:
                self._activate(effect)

    def _fetch(self, digests: tuple[str, ...]) -> None:
        wanted = self._updater.wanted()
        for stale in set(self._receiver.wanting()) - set(wanted):
            self._receiver.drop(stale)
            self._outbox.chunks(stale, False)
        for digest in digests:
            artifact = wanted[digest]
            if not isinstance(artifact, Artifact):
                raise TypeError(f"artifact {digest} is not described")
            have = self._blobs.held_chunks(digest, artifact)
            jitter_s = random.uniform(0, WANT_JITTER_S)  # noqa: S311 - spreads load, guards nothing
            self._receiver.fetch(digest, artifact, have, time.monotonic(), jitter_s)
            self._outbox.chunks(digest, True)
            if len(have) == len(artifact.chunks):
                self._receiver.drop(digest)
                self._outbox.chunks(digest, False)
                self._finish(digest)

    def _say_wishes(self) -> None:
        for want in self._receiver.wishes(time.monotonic()):
            self._outbox.want(dump(want))

    def _activate(self, effect: Activate) -> None:
        """Load and check the target beside what runs; then remember it, switch, and say so."""
        labels = self._site.config.labels
        part = effect.release.for_site(labels)
        try:
            deployment = deploy(part, labels, {Digest(d): self._blobs.read(d) for d in part.artifacts})
            self._vet(deployment)
        except KitError as error:
            self._refuse(str(error))
            reason = str(error)
            self._journal.write((), also=lambda db: write_refused(db, effect.generation, reason, self._now_us()))
            self._perform(self._updater.failed(reason))
            return
        previous, self._running = self._running, Slot(part, effect.generation)
        event = self._event("decision", "release", {"release": part.release, "previous": previous.release.release})
        running = self._running
        self._journal.write([event], also=lambda db: write_active(db, running, self._now_us()))
        self._switch(deployment)
        self._blobs.keep_only(_needed(part) | _needed(previous.release))
        self._perform(self._updater.activated())

    def _refuse(self, reason: str) -> None:
        """Every refusal is a record, in the alarm lane, and so reaches the hub."""
        log.warning("update_refused", extra={"reason": reason})
        self._journal.later([self._event("alarm", "update_refused", {"reason": reason[:1000]})])

    def _event(self, lane: Lane, label: str, what: dict[str, Json]) -> Draft:
        return Draft(lane, "event", JOURNAL_AGENT, self._now_us(), to_body(what), label=label)


def _needed(release: Release) -> set[str]:
    return set(release.artifacts)
