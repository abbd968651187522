"""The update thread: verifies what the hub wants, fetches what it needs, and switches the site over.

Everything heavy (signatures, hashing, loading models, golden checks) happens here, away from agents and uplink.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from edge_agent.brain import Deployment, deploy
from edge_agent.config import Site
from edge_agent.memory.draft import JOURNAL_AGENT, Draft, to_body
from edge_agent.memory.journal import Journal
from edge_agent.records import Json
from edge_agent.update.blobs import BlobStore
from edge_agent.update.refusals import Refusals
from edge_agent.update.slots import Slot, write_active, write_refused
from edge_models.digests import Digest
from edge_models.errors import KitError, RetryableError
from edge_sync.chunks import Receiver
from edge_sync.documents import DESIRED_TYPE, Desired, Reported, dump, load
from edge_sync.release import Release
from edge_sync.rows import Lane
from edge_sync.signing import verify
from edge_sync.updater import Activate, Effect, Fetch, Report, Standing, Updater

log = logging.getLogger(__name__)

WANT_JITTER_S = 0.3
"""Sites that learn of a release together do not all ask in the same instant."""

TICK_S = 0.25
"""How often wishes are looked at while something is wanted."""

AGAIN_S = 5.0
"""After a disk that failed, or chunks that made other bytes."""

MAX_WAITING_CHUNKS = 64
"""Chunks in memory (8 MiB); those beyond it are dropped and asked for again."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """What the update thread may say to the hub. `chunks` (un)subscribes to an artifact's chunks."""

    reported: Callable[[Reported], object]
    want: Callable[[bytes], object]
    chunks: Callable[[str, bool], None]


class UpdateService:
    """Runs one site's `Updater`. `desired`, `chunk` and `link_up` may be called from any thread."""

    def __init__(
        self,
        site: Site,
        journal: Journal,
        blobs: BlobStore,
        running: Slot,
        standing: Standing,
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
        self._updater = Updater(site.config.site, site.config.labels, standing)
        self._receiver = Receiver()
        self._news = threading.Condition()
        self._desired: bytes | None = None
        self._greeting = self._closing = False
        self._chunks: deque[bytes] = deque()
        self._again: tuple[float, Effect] | None = None
        """What could not be done for want of disk, and when to try it again."""
        self._refusals = Refusals(journal, now_us, time.monotonic)
        self._thread = threading.Thread(target=self._run, name="update", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop after what is being done now."""
        with self._news:
            self._closing = True
            self._news.notify()
        if self._thread.is_alive():
            self._thread.join()

    def reported(self) -> Reported:
        """What this site runs now, for the hub and the status page."""
        return self._updater.report().reported

    def desired(self, envelope: bytes) -> None:
        """A desired document came, not verified yet; one that waits gives way to it."""
        with self._news:
            self._desired = envelope
            self._news.notify()

    def chunk(self, message: bytes) -> None:
        """A chunk message came, not verified yet; dropped where too many wait."""
        with self._news:
            if len(self._chunks) < MAX_WAITING_CHUNKS:
                self._chunks.append(message)
                self._news.notify()

    def link_up(self) -> None:
        """The link is back."""
        with self._news:
            self._greeting = True
            self._news.notify()

    def _run(self) -> None:
        while (work := self._next_work()) is not None:
            try:
                work()
            except KitError as error:
                self._refusals.add(str(error))
            except Exception as error:  # the thread must live: a defect here may not end updates for ever
                log.exception("update_crashed")
                self._refusals.add(f"{type(error).__name__}: {error}")
            self._say_wishes()

    def _next_work(self) -> Callable[[], None] | None:
        """What to do next, waiting for it; None when it is time to stop."""
        with self._news:
            while not self._closing:
                if self._greeting:
                    self._greeting = False
                    return self._greet
                if self._desired is not None:
                    envelope, self._desired = self._desired, None
                    return partial(self._take_desired, envelope)
                if self._chunks:
                    return partial(self._take_chunk, self._chunks.popleft())
                now = time.monotonic()
                if self._again is not None and now >= self._again[0]:
                    effect, self._again = self._again[1], None
                    return partial(self._perform, [effect])
                busy = self._again is not None or bool(self._receiver.wanting())
                if not self._news.wait(TICK_S if busy else None) and self._receiver.wanting():
                    return self._say_wishes
        return None

    def _greet(self) -> None:
        self._outbox.reported(self.reported())
        self._receiver.link_up(time.monotonic())
        for digest in self._receiver.wanting():
            self._outbox.chunks(digest, True)

    def _take_desired(self, envelope: bytes) -> None:
        document = load(Desired, verify(envelope, DESIRED_TYPE, self._pinned))
        effects = self._updater.desired(document, self._blobs.digests())
        if effects:
            self._again = None
        self._perform(effects)

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
        except (KitError, OSError) as error:
            self._refusals.add(str(error))
            self._again = (time.monotonic() + AGAIN_S, Fetch((digest,)))
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
            artifact = wanted.get(digest)
            if artifact is None:
                continue
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
            self._remember(part, effect.generation)
        except RetryableError as error:
            self._refusals.add(f"release {part.release} waits: {error}")
            self._again = (time.monotonic() + error.retry_after_s, effect)
            return
        except Exception as error:  # whatever a release provokes here, what ran must run on and the hub must hear why
            if not isinstance(error, KitError):
                log.exception("activation_failed")
            self._give_up(effect, str(error) if isinstance(error, KitError) else f"{type(error).__name__}: {error}")
            return
        previous, self._running = self._running, Slot(part, effect.generation)
        self._switch(deployment)
        self._blobs.keep_only(set(part.artifacts) | set(previous.release.artifacts))
        self._perform(self._updater.activated())

    def _remember(self, part: Release, generation: int) -> None:
        """Durably make this the release to run. Raises `JournalUnavailableError`."""
        what: dict[str, Json] = {"release": part.release, "previous": self._running.release.release}
        slot = Slot(part, generation)
        event = self._event("decision", "release", what)
        self._journal.write([event], also=lambda db: write_active(db, slot, self._now_us()))

    def _give_up(self, effect: Activate, reason: str) -> None:
        self._refusals.add(reason)
        self._journal.later(also=lambda db: write_refused(db, effect.generation, reason, self._now_us()))
        self._perform(self._updater.failed(reason))

    def _event(self, lane: Lane, label: str, what: dict[str, Json]) -> Draft:
        return Draft(lane, "event", JOURNAL_AGENT, self._now_us(), to_body(what), label=label)
