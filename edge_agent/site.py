"""The site process: makes the parts, starts them in order, ends them in order."""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from edge_agent.actor import Actor
from edge_agent.api.server import LocalApi
from edge_agent.brain import Deployment, deploy, give_back_memory
from edge_agent.config import Site
from edge_agent.enrol.start import settle
from edge_agent.hub_side import HubSide, certificate_event
from edge_agent.inference.prepared import FOLDER, PreparedGraphs
from edge_agent.inference.providers import choose
from edge_agent.inference.registry import Models
from edge_agent.memory.checkpoint import KEY_FILE, Checkpointer
from edge_agent.memory.damage import Mark, read_mark, take_mark_off, write_mark
from edge_agent.memory.draft import JOURNAL_AGENT, Draft, to_body
from edge_agent.memory.expiry import Expiry
from edge_agent.memory.facts import Facts
from edge_agent.memory.integrity import IntegrityCheck
from edge_agent.memory.journal import Journal, JournalDamagedError
from edge_agent.memory.keeper import Keeper
from edge_agent.memory.lock import lock_data
from edge_agent.memory.owner import refuse_another
from edge_agent.memory.queries import open_intents
from edge_agent.memory.rescue import rescue
from edge_agent.memory.schema import reading
from edge_agent.memory.wear import WearMeter
from edge_agent.records import Json
from edge_agent.rehydrate import rehydrate
from edge_agent.status import Watched, families, status
from edge_agent.supervisor import Supervisor
from edge_agent.tools.base import Tool, ToolContext
from edge_agent.tools.registry import make_tools
from edge_agent.update.blobs import BlobStore
from edge_agent.update.proving import count_boot
from edge_agent.update.slots import Slot, read_slot
from edge_agent.update.trial import TrialSettings
from edge_models.digests import Digest
from edge_models.errors import ConfigError, KitError, RejectedError
from edge_sync.release import Release, resolve
from edge_sync.trust.client import Trusted

log = logging.getLogger(__name__)

DRAIN_S = 3.0
"""How long a stop waits for the hub to acknowledge the last records; they are safe on disk either way."""


def now_us() -> int:
    """UTC microseconds by this machine's clock."""
    return time.time_ns() // 1000


class SiteProcess:
    """One site, from its site file to its agents."""

    def __init__(self, site: Site, stopping: Callable[[], bool] = lambda: False) -> None:
        """Open the memory and load what runs. Raises `ConfigError`, `RejectedError`; nothing is left open then.

        Raises `StoppedError` where it is `stopping` while it asks the hub for a lost memory.
        """
        self.site = site
        providers = choose(site.config.inference.providers)
        site.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        (site.data / "api.port").unlink(missing_ok=True)
        self._trusted: Trusted | None = None
        self.damage: str | None = None
        """Why the memory has to be mended: by the next process, before it opens it."""
        self._lock = lock_data(site.data)
        try:
            refuse_another(site.data, site.config.site)
            if site.config.hub is not None:
                self._trusted = Trusted(site.data / "trust", site.trust_root(), now_us)
            joined = settle(site, stopping)
            mended, back = self._open_memory(site.data / "memory.db", stopping)
        except BaseException:
            os.close(self._lock)
            raise
        self._wear = WearMeter(self.journal)
        self._trial = TrialSettings(window_s=site.config.updates.trial_s)
        self.models = Models()
        self._tools: dict[str, Tool] = {}
        try:
            if mended is not None:
                event = Draft("alarm", "event", JOURNAL_AGENT, now_us(), to_body(mended), label="journal_damaged")
                self.journal.write([event])
                take_mark_off(self.journal.path)
            if back is not None:
                event = Draft("decision", "event", JOURNAL_AGENT, now_us(), to_body(back), label="rehydrated")
                self.journal.write([event])
            if joined is not None:
                self.journal.write([certificate_event("join", joined, now_us())])
            self._facts = Facts(self.journal, now_us)
            context = ToolContext(site.config.site, site.endpoint, self._facts.set, now_us)
            self._tools = make_tools(site.config.grants, context)
            self._actor = Actor(self.journal, self._tools, frozenset(site.config.grants), now_us)
            self._blobs = BlobStore(site.data / "blobs")
            self._prepared = PreparedGraphs(site.data / FOLDER, providers=providers)
            self.supervisor = Supervisor(site, self.journal, self._facts, self._actor, self.models, now_us)
            count_boot(self.journal, self._trial, now_us)
            running, self._deployment = self._choose()
            give_back_memory()
            self.hub: HubSide | None = None
            if self._trusted is not None and site.config.hub is not None:
                self.hub = HubSide(
                    site,
                    site.config.hub,
                    self._trusted,
                    self.journal,
                    self._blobs,
                    self._facts,
                    self.supervisor,
                    running,
                    self._trial,
                    now_us,
                )
                self.hub.uplink.on_damage = self.damaged
            self.api = self._make_api()
        except BaseException:
            self._close_memory()
            raise
        self._checkpoints = Checkpointer(self.journal, site.config.site, site.data / KEY_FILE, now_us)
        self._expiry = Expiry(self.journal, site.keep(), now_us)
        self._keeper = Keeper(self.journal, self._tend)

    def start(self) -> None:
        """Settle what the last process left open, then start the agents, then the link to the hub."""
        self._keeper.start()
        with reading(self.journal.path) as connection:
            left = open_intents(connection)
        specs = {brain.spec.name: brain.spec for brain in self._deployment.brains}
        resolved = self._actor.resolve(left, specs)
        what: dict[str, Json] = {"release": self._deployment.release.release, "resolved_intents": resolved}
        self.journal.write([Draft("decision", "event", JOURNAL_AGENT, now_us(), to_body(what), label="started")])
        self.supervisor.apply(self._deployment)
        if self.api is not None:
            self.api.start()
            (self.site.data / "api.port").write_text(f"{self.api.port}\n")
        if self.hub is not None:
            self.hub.start()

    def close(self) -> None:
        """Stop agents, let the hub have the last records if it is there, fold the memory up."""
        if self.api is not None:
            self.api.close()
        if self.hub is not None:
            self.hub.end_updates()
        self.supervisor.stop()
        event = Draft("decision", "event", JOURNAL_AGENT, now_us(), "{}", label="stopped")
        try:
            self.journal.write([event])
            self._checkpoints.note(time.monotonic())
        except KitError as error:
            log.warning("stop_not_recorded", extra={"reason": str(error)})
        if self.hub is not None:
            self.hub.close(DRAIN_S)
        self._keeper.close()
        self._wear.note()
        self._check.close()
        self._close_memory()

    def wait(self, stop: threading.Event, once: bool, mends: bool = True) -> None:
        """Until `stop` is set, (with `once`) until every source is at its end, or until its memory has to be mended.

        Where it `mends` it not, the site goes on as it can; its next start mends it.
        """
        while not stop.wait(0.2):
            if once and self.supervisor.exhausted():
                return
            found = self._check.poll()
            if found is not None:
                self.damaged(found)
            if mends and self.damage is not None:
                return

    def damaged(self, reason: str) -> None:
        """The memory is not what was written. Safe to call from any thread, again and again."""
        if self.damage is not None:
            return
        self.damage = reason
        log.error("memory_damaged", extra={"reason": reason})
        try:
            if read_mark(self.journal.path) is None:
                write_mark(self.journal.path, Mark(reason))
        except OSError as error:
            log.error("memory_not_marked", extra={"reason": str(error)})

    def _open_memory(
        self, path: Path, stopping: Callable[[], bool]
    ) -> tuple[dict[str, Json] | None, dict[str, Json] | None]:
        """Open the journal, mended where it must be; what came of that, and what came back from the hub."""
        budget_mb = self.site.config.disk.journal_mb
        while True:
            mended = rescue(path, budget_mb, now_us)
            self._check = IntegrityCheck(path)
            # Before the first epoch: its order must be above all that the hub knows, and agents must have their facts.
            back = rehydrate(self.site, self._trusted, now_us, stopping)
            try:
                self.journal = Journal(path, budget_mb, now_us)
            except JournalDamagedError as error:
                if mended is not None:
                    raise
                write_mark(path, Mark(str(error)))
                continue
            self.journal.on_damage = self.damaged
            return mended, back

    def _tend(self, now: float) -> None:
        """What the keeper's thread does beside making room."""
        self._checkpoints.tick(now)
        self._wear.tick(now)
        self._expiry.tick(now)

    def _choose(self) -> tuple[Slot, Deployment]:
        """The release to run: the active slot, else the previous one, else what the site file names.

        A slot that can't run (its bytes were damaged) is passed over, with a record in the alarm lane.
        """
        with reading(self.journal.path) as connection:
            slots = [slot for name in ("active", "previous") if (slot := read_slot(connection, name)) is not None]
        for slot in slots:
            if slot.generation == 0:
                continue
            try:
                blobs = {Digest(d): self._blobs.read(d) for d in slot.release.artifacts}
                return slot, self._load(slot.release, blobs, slots)
            except (KitError, OSError) as error:
                what: dict[str, Json] = {"release": slot.release.release, "reason": str(error)}
                draft = Draft("alarm", "event", JOURNAL_AGENT, now_us(), to_body(what), label="release_passed_over")
                self.journal.write([draft])
        release, named = resolve(self.site.config.release, self.site.config.agents, self.site.base)
        for digest, data in named.items():  # a release that shares a part with this one need not fetch it
            self._blobs.put(digest, data)
        try:
            return Slot(release, 0), self._load(release, named, slots)
        except (RejectedError, ConfigError) as error:
            raise ConfigError(f"site {self.site.config.site}: {error}") from None

    def _load(self, release: Release, blobs: Mapping[Digest, bytes], slots: Sequence[Slot]) -> Deployment:
        """This release, ready to run. Of prepared graphs its own stay then, and those of the slots."""
        deployment = deploy(release, self.site.config.labels, blobs, self._prepared)
        self.supervisor.vet(deployment)
        self._prepared.keep_only({d for each in (release, *(slot.release for slot in slots)) for d in each.artifacts})
        return deployment

    def _make_api(self) -> LocalApi | None:
        config = self.site.config.api
        if config is None:
            return None
        token_file, token = self.site.path(config.token_file), None
        if token_file is not None:
            try:
                token = token_file.read_text().strip()
            except OSError as error:
                raise ConfigError(f"api.token_file {token_file}: {error.strerror}") from None
        first = self._deployment.release.release
        uplink, updates = (self.hub.uplink, self.hub.updates) if self.hub is not None else (None, None)
        enrolment = self.hub.enrolment if self.hub is not None else None
        watched = Watched(self.site, self.journal, self._wear, self.supervisor, uplink, updates, first, enrolment)
        show, measure = partial(status, watched), partial(families, watched)
        return LocalApi(self.models, show, measure, config.host, config.port, token)

    def _close_memory(self) -> None:
        try:
            for tool in self._tools.values():
                tool.close()
            self.journal.close()
        finally:
            os.close(self._lock)
