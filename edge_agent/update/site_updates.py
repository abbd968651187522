"""One site's updates, without a thread: what is signed is verified, what is missing fetched, what is here switched to.

The pure parts are `edge_sync.updater` and `edge_sync.chunks`; this executes what they say over disk and journal.
`edge_agent.update.service` runs it in a thread, and the simulator in virtual time.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.memory.draft import JOURNAL_AGENT, Draft, to_body
from edge_agent.memory.journal import Journal
from edge_agent.records import Json
from edge_agent.refusals import Refusals
from edge_agent.update.blobs import BlobStore, DamagedError
from edge_agent.update.switching import Switcher
from edge_agent.update.wishes import GoBackNow, TakeStick, Wish, Wishes
from edge_models.delta import apply_delta
from edge_models.digests import Digest
from edge_models.errors import KitError, RejectedError, RetryableError
from edge_sync.chunks import Receiver
from edge_sync.documents import DESIRED_TYPE, Desired, Reported, dump, load
from edge_sync.release import Artifact, Release
from edge_sync.signing import verify
from edge_sync.trust.client import Trusted
from edge_sync.trust.paths import AGENTS, parts_of
from edge_sync.updater import Activate, Effect, Fetch, Patch, Report, Updater

log = logging.getLogger(__name__)

WANT_JITTER_S = 0.3
"""Sites that learn of a release together do not all ask in the same instant."""

AGAIN_S = 5.0
"""After a disk that failed, or chunks that made other bytes."""

RESERVE_BYTES = 64 * 1024 * 1024
"""Of the disk that an update leaves free: a site that can't write down what it decides does not act."""

REPORT_AGAIN_S = 120.0
"""What runs is said again so often: a broker says yes and drops, and the hub answers a report that is behind."""

ROOM_AGAIN_S = 60.0
"""After a disk that had no room for a release."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """What may be said to the hub. `chunks` (un)subscribes to an artifact's chunks."""

    reported: Callable[[Reported], object]
    want: Callable[[bytes], object]
    chunks: Callable[[str, bool], None]


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time and chance come from."""

    now_us: Callable[[], int]
    """UTC."""
    monotonic_s: Callable[[], float]
    jitter: Callable[[float], float]
    """A number from 0 to the one given."""


class SiteUpdates:
    """Used by one thread; `reported` by any. Whatever raises a `KitError` is for `Refusals`."""

    def __init__(
        self,
        labels: dict[str, str],
        updater: Updater,
        trusted: Trusted,
        switcher: Switcher,
        blobs: BlobStore,
        journal: Journal,
        wishes: Wishes,
        outbox: Outbox,
        clock: Clock,
        bytes_per_s: int = 0,
    ) -> None:
        """`bytes_per_s`: the most of updates that the link may take; 0: no bound."""
        self._labels, self._updater, self._trusted, self._switcher = labels, updater, trusted, switcher
        self._blobs, self._journal, self._wishes = blobs, journal, wishes
        self._outbox, self._clock = outbox, clock
        self._trust = trusted.held()
        self._held: str | None = None
        self._receiver = Receiver(bytes_per_s)
        self._waiting: tuple[int, bytes] | None = None
        """The newest desired document, with its generation, while it may not be acted on: new trust metadata may allow
        it. Of generation 0: nothing is known yet by which it could be verified."""
        self._mending: set[str] = set()
        """What is fetched for the release before, to be able to go back to it."""
        self._refused_set: bytes | None = None
        self._is_new_link = False
        self._report_at = clock.monotonic_s() + REPORT_AGAIN_S
        self._again: tuple[float, Effect] | None = None
        """What could not be done for want of disk, and when to try it again."""
        self.refusals = Refusals(journal, clock.now_us, clock.monotonic_s)

    @property
    def busy(self) -> bool:
        """Whether it has to be looked at often."""
        return self._again is not None or bool(self._receiver.wanting())

    def reported(self) -> Reported:
        """What this site runs now, for the hub and the status page."""
        return self._with_trust(self._updater.report().reported)

    def close(self) -> None:
        """Remember how far the release on trial is."""
        self._switcher.proving.close()

    def greet(self) -> None:
        """The link is back: what is said now is looked at again, whatever it was."""
        self._is_new_link, self._refused_set = True, None
        self._outbox.reported(self.reported())
        self._receiver.link_up(self._clock.monotonic_s())
        for digest in self._receiver.wanting():
            self._outbox.chunks(digest, True)

    def take_trust(self, message: bytes) -> None:
        """Trust metadata came: what was refused before may be right now, and what is on its way not any more."""
        if message == self._refused_set:
            return  # the hub says it again to a site that is behind: one record is enough until there is a new link
        self._refused_set = message
        trust = self._trusted.take(message)
        self._refused_set = None
        if trust is None:
            return
        before, self._trust = self._trust.versions, trust
        if trust.versions != before:
            self._outbox.reported(self.reported())
        self._try_again()

    def take_desired(self, envelope: bytes) -> None:
        """A desired document came, not verified yet."""
        if self._waiting is None or envelope != self._waiting[1] or self._is_new_link:
            self._is_new_link = False
            self._consider(envelope)

    def _consider(self, envelope: bytes) -> None:
        if not self._trusted.directors:
            self._waiting = (0, envelope)
        document = load(Desired, verify(envelope, DESIRED_TYPE, self._trusted.directors))
        if self._updater.news(document):
            if self._waiting is None or document.generation >= self._waiting[0]:
                self._waiting = (document.generation, envelope)
            if self._is_held():
                return
            self._trust = self._trusted.refresh()  # what was fresh when it came may be expired
            effects = self._updater.desired(document, self._blobs.digests(), self._check_signed)
            self._trusted.heard_time(document.issued_us, self._trust)
            self._again = None
            self._perform(effects)
        if self._waiting is not None and self._waiting[0] <= document.generation:
            self._waiting = None

    def _try_again(self) -> None:
        """What may not have been acted on before, where there is something."""
        if self._waiting is not None:
            generation, envelope = self._waiting
            if not generation:
                self._waiting = None
            self._consider(envelope)

    def take_chunk(self, message: bytes) -> None:
        """A chunk came, not verified yet."""
        keep = self._receiver.chunk(message, self._clock.monotonic_s())
        if keep is None:
            return
        self._blobs.keep(keep)
        if self._receiver.kept(keep.digest, keep.index):
            self._receiver.drop(keep.digest)
            self._outbox.chunks(keep.digest, False)
            self._finish(keep.digest)

    def retry(self) -> None:
        """What could not be done before, where it is time for that."""
        if self._again is not None and self._clock.monotonic_s() >= self._again[0]:
            effect, self._again = self._again[1], None
            self._perform([effect])

    def say_wishes(self) -> None:
        """Ask for the chunks that are missing, where that is due."""
        for want in self._receiver.wishes(self._clock.monotonic_s()):
            self._outbox.want(dump(want))

    def look_around(self) -> None:
        """What people at the site wish, and how the release on trial does."""
        was_held = self._held is not None
        if not self._is_held() and was_held:
            self._try_again()
        if (now := self._clock.monotonic_s()) >= self._report_at:
            self._report_at = now + REPORT_AGAIN_S
            self._outbox.reported(self.reported())
        if (reason := self._switcher.proving.look(now)) is not None:
            self._go_back(reason)
        if (wish := self._wishes.next()) is not None:
            self._grant(wish)

    def _is_held(self) -> bool:
        """Whether somebody at the site wants nothing new; when that changes, it is recorded and the hub is told."""
        held = self._wishes.held()
        if held != self._held:
            self._held = held
            what: dict[str, Json] = {} if held is None else {"reason": held}
            label = "unheld" if held is None else "held"
            at_us = self._clock.now_us()
            self._journal.later([Draft("decision", "event", JOURNAL_AGENT, at_us, to_body(what), label=label)])
            self._outbox.reported(self.reported())
        return held is not None

    def _grant(self, wish: Wish) -> None:
        try:
            if isinstance(wish, GoBackNow):
                self._go_back(f"at the site: {wish.reason}")
            else:
                self._take_stick(wish)
        except RetryableError:  # it stays where it lies
            raise
        except BaseException:
            self._wishes.clear(wish)
            raise
        self._wishes.clear(wish)

    def _take_stick(self, stick: TakeStick) -> None:
        """As if all of it had come by the link: nothing on it is believed unverified."""
        try:
            metadata, envelope = stick.trust.read_bytes(), stick.desired.read_bytes()
        except OSError as error:
            raise RejectedError(f"stick: {error.strerror}") from None
        try:
            self.take_trust(metadata)
        except RejectedError as error:
            # A stick may be older than what the link brought, and its document right all the same.
            log.info("stick_trust_passed_over", extra={"reason": str(error)})
        document = load(Desired, verify(envelope, DESIRED_TYPE, self._trusted.directors))
        if self._updater.news(document):
            needed = {digest for digest in document.release.get("artifacts", {}) if isinstance(digest, str)}
            for digest, path in stick.blobs():
                if digest in needed:
                    self._blobs.take_in(digest, path)
        self.take_desired(envelope)

    def _go_back(self, reason: str) -> None:
        try:
            left = self._switcher.go_back(reason, self._clock.monotonic_s(), bool(self._receiver.wanting()))
        except DamagedError as error:
            self._mend(error.digest)
            raise
        runs = self._switcher.running.release.release
        self._perform(self._updater.rolled_back(runs, left.generation, reason))

    def _check_signed(self, part: Release) -> None:
        """Raises `RejectedError` where the operator has not signed what of this release runs here, or took it back."""
        if not self._trust.allows(AGENTS, part.document_digest):
            raise RejectedError(f"desired: release {part.release}: its agents document is not signed by the operator")
        for agent in part.agents_for(self._labels):
            for kind, digest in parts_of(agent):
                described = part.artifacts.get(digest)
                if not self._trust.allows(kind, digest, described.size if described is not None else None):
                    raise RejectedError(
                        f"desired: release {part.release}: {kind}/{digest[7:19]}… of agent {agent.name!r} "
                        "is not signed by the operator"
                    )

    def _with_trust(self, reported: Reported) -> Reported:
        mine = {
            "trust": self._trust.versions,
            "behind_s": self._trusted.behind_us // 1_000_000,
            "hold": self._held,
            "on_trial": self._switcher.proving.on_trial,
        }
        return reported.model_copy(update=mine)

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Report):
                self._outbox.reported(self._with_trust(effect.reported))
            elif isinstance(effect, Fetch):
                self._fetch(effect)
            elif isinstance(effect, Patch):
                self._patch(effect)
            else:
                self._activate(effect)

    def _fetch(self, fetch: Fetch) -> None:
        now, wanted = self._clock.monotonic_s(), self._updater.wanted()
        for stale in set(self._receiver.wanting()) - set(wanted) - self._mending:
            self._receiver.drop(stale)
            self._outbox.chunks(stale, False)
        asked = {digest: wanted[digest] for digest in fetch.digests if digest in wanted}
        size, free = sum(artifact.size for artifact in asked.values()), self._blobs.free_bytes()
        if size + RESERVE_BYTES > free:
            self.refusals.add(f"the release needs {size} bytes, and {free} are free: {RESERVE_BYTES} stay so")
            self._again = (now + ROOM_AGAIN_S, fetch)
            return
        for digest, artifact in asked.items():
            if self._blobs.has(digest):  # it came, and the process ended before it was used
                self._perform(self._updater.have(digest))
                continue
            self._receive(digest, artifact, now)

    def _receive(self, digest: str, artifact: Artifact, now: float) -> None:
        have = self._blobs.held_chunks(digest, artifact)
        if len(have) == len(artifact.chunks):
            self._finish(digest)
            return
        self._receiver.fetch(digest, artifact, have, now, self._clock.jitter(WANT_JITTER_S))
        self._outbox.chunks(digest, True)

    def _mend(self, digest: str) -> None:
        """The release to go back to can't be loaded without this artifact: fetch it anew. Who wants to go back asks
        again."""
        previous = self._switcher.before()
        artifact = None if previous is None else previous.release.artifacts.get(digest)
        if artifact is not None and digest not in self._receiver.wanting():
            self._mending.add(digest)
            self._receive(digest, artifact, self._clock.monotonic_s())

    def _finish(self, digest: str) -> None:
        try:
            self._blobs.finish(digest)
        except (KitError, OSError) as error:
            self.refusals.add(str(error))
            self._again = (self._clock.monotonic_s() + AGAIN_S, Fetch((digest,)))
            return
        self._mending.discard(digest)
        self._perform(self._updater.have(digest))

    def _patch(self, patch: Patch) -> None:
        """Make an artifact of what changed; whatever goes wrong with that, it is fetched whole."""
        try:
            base, delta = self._blobs.read(patch.base), self._blobs.read(patch.digest)
            self._blobs.put(Digest(patch.target), apply_delta(base, delta, patch.size, Digest(patch.target)))
        except (KitError, OSError) as error:
            self.refusals.add(f"delta to {patch.target[:19]}: {error}; it is fetched whole")
            self._perform(self._updater.no_patch(patch.target))
            return
        log.info("patched", extra={"target": patch.target, "delta_bytes": len(delta)})
        self._perform(self._updater.have(patch.target))

    def _activate(self, effect: Activate) -> None:
        """Switch to the target and say so; or say why not, and what ran runs on."""
        now = self._clock.monotonic_s()
        if self._is_held():
            self._again = (now + AGAIN_S, effect)
            return
        part = effect.release.for_site(self._labels)
        try:
            self._check_signed(part)
            self._switcher.activate(part, effect.generation, now)
        except DamagedError as error:
            self.refusals.add(f"release {part.release}: {error}; it is fetched anew")
            self._perform(self._updater.lost(error.digest))
        except RetryableError as error:
            self.refusals.add(f"release {part.release} waits: {error}")
            self._again = (now + error.retry_after_s, effect)
        except Exception as error:  # whatever a release provokes here, the hub must hear why
            if not isinstance(error, KitError):
                log.exception("activation_failed")
            reason = str(error) if isinstance(error, KitError) else f"{type(error).__name__}: {error}"
            self.refusals.add(reason)
            self._switcher.give_up(part, effect.generation, reason)
            self._perform(self._updater.failed(reason))
        else:
            self._perform(self._updater.activated())
