"""What of a site talks with its hub: certificate, uplink, updates, fleet facts; made together, started in order."""

import random
import time
from collections.abc import Callable
from importlib.metadata import version

from edge_agent.config import HubLink, Site
from edge_agent.enrol.schedule import Act, Held
from edge_agent.enrol.service import EnrolmentService
from edge_agent.enrol.start import asked_by
from edge_agent.fleet_facts import FleetFactsService
from edge_agent.inference.providers import choose
from edge_agent.memory.draft import JOURNAL_AGENT, Draft, to_body
from edge_agent.memory.facts import Facts
from edge_agent.memory.journal import Journal
from edge_agent.memory.schema import reading
from edge_agent.refusals import Refusals
from edge_agent.supervisor import Supervisor
from edge_agent.update.blobs import BlobStore
from edge_agent.update.health import HealthMeter
from edge_agent.update.https import HttpsChunks
from edge_agent.update.proving import Proving
from edge_agent.update.service import UpdateService
from edge_agent.update.site_updates import Clock, Outbox, SiteUpdates
from edge_agent.update.slots import Slot, standing
from edge_agent.update.switching import Switcher
from edge_agent.update.trial import TrialSettings
from edge_agent.update.wishes import Wishes
from edge_agent.uplink import UplinkService
from edge_models.errors import ConfigError
from edge_sync.documents import dump
from edge_sync.trust.client import Trusted
from edge_sync.updater import Updater


class HubSide:
    """One site's side of its hub. Raises `ConfigError` where the site file's `hub` can't be used."""

    def __init__(
        self,
        site: Site,
        hub: HubLink,
        trusted: Trusted,
        journal: Journal,
        blobs: BlobStore,
        facts: Facts,
        supervisor: Supervisor,
        running: Slot,
        trial: TrialSettings,
        now_us: Callable[[], int],
    ) -> None:
        """`running` is what does now, `trial` how a new release proves itself."""
        name, labels = site.config.site, site.config.labels
        self.uplink = UplinkService(site, journal, _versions(), now_us)
        self._https = _by_https(site, hub, self._take_chunk)
        outbox = Outbox(
            reported=lambda document: self.uplink.publish("reported", dump(document), retain=True),
            want=self._want if self._https is None else self._https.want,
            chunks=self.uplink.chunks if self._https is None else lambda _digest, _wanted: None,
        )
        with reading(journal.path) as connection:
            stands = standing(connection, running)
        now = time.monotonic()
        meter = HealthMeter(journal, supervisor.workers, trial.window_s, now)
        proving = Proving(journal, meter, trial, running, now_us, now)
        providers = choose(site.config.inference.providers)
        switcher = Switcher(
            labels, journal, blobs, running, proving, supervisor.vet, supervisor.apply, now_us, providers=providers
        )
        clock = Clock(now_us, time.monotonic, lambda most_s: random.uniform(0, most_s))  # noqa: S311 - spreads load
        self.updates = UpdateService(
            SiteUpdates(
                labels,
                Updater(name, labels, stands),
                trusted,
                switcher,
                blobs,
                journal,
                Wishes(site.data),
                outbox,
                clock,
                hub.update_byte_rate or 0,
            )
        )
        refusals = Refusals(journal, now_us, time.monotonic, "facts_refused")
        self._fleet_facts = FleetFactsService(lambda: trusted.directors, facts, refusals)
        self.uplink.directors = lambda: trusted.directors
        self.uplink.on_trust, self.uplink.on_desired = self.updates.trust, self.updates.desired
        self.uplink.on_chunk, self.uplink.on_up = self.updates.chunk, self.updates.link_up
        self.uplink.on_facts, self.uplink.facts_version = self._fleet_facts.heard, lambda: facts.fleet_version
        self.enrolment = self._enrolment(site, journal, now_us)

    def start(self) -> None:
        """Begin; the link last, so that whoever is meant hears its first words.

        A site that has no certificate yet connects when it has one.
        """
        self._fleet_facts.start()
        if self._https is not None:
            self._https.start()
        self.updates.start()
        if self.enrolment is None:
            self.uplink.start()
        else:
            self.enrolment.start()

    def end_updates(self) -> None:
        """Take nothing new: before the agents end."""
        if self._https is not None:
            self._https.close()
        self.updates.close()

    def close(self, drain_s: float) -> None:
        """Let the hub have the last records if it is there, and end."""
        if self.enrolment is not None:
            self.enrolment.close()
        self.uplink.close(drain_s)
        self._fleet_facts.close()

    def _enrolment(self, site: Site, journal: Journal, now_us: Callable[[], int]) -> EnrolmentService | None:
        """Who looks after the certificate, where it comes from the hub."""
        asked = asked_by(site)
        if asked is None:
            return None
        return EnrolmentService(
            asked,
            now_us,
            online=lambda: self.uplink.online,
            on_identity=self.uplink.start,
            on_got=lambda act, held: journal.later([certificate_event(act, held, now_us())]),
            on_refused=Refusals(journal, now_us, time.monotonic, "enrolment_refused").add,
            refusal=lambda: _broker_refusal(site),
        )

    def _take_chunk(self, message: bytes) -> bool:
        return self.updates.chunk(message)

    def _want(self, document: bytes) -> None:
        self.uplink.publish("want", document)


def _broker_refusal(site: Site) -> str | None:
    from edge_agent.enrol.standing import broker_refusal  # noqa: PLC0415 - X.509 is not every site's

    return broker_refusal(site)


def certificate_event(act: Act, held: Held, at_us: int) -> Draft:
    """The record of a certificate that came."""
    body = to_body({"renew_us": held.renew_us, "ends_us": held.ends_us})
    label = "joined" if act == "join" else "certificate_renewed"
    return Draft("decision", "event", JOURNAL_AGENT, at_us, body, label=label)


def _by_https(site: Site, hub: HubLink, chunk: Callable[[bytes], bool]) -> HttpsChunks | None:
    """The other road for artifacts, where the site file names it."""
    if hub.https is None:
        return None
    file = site.path(hub.password_file)
    if file is None:
        raise ConfigError("hub.https needs hub.password_file: the hub's API knows this site by it")
    try:
        password = file.read_text().strip()
    except OSError as error:
        raise ConfigError(f"hub.password_file {file}: {error.strerror}") from None
    return HttpsChunks(hub.https, hub.username or site.config.site, password, site.path(hub.ca_file), chunk)


def _versions() -> dict[str, str]:
    return {"edge-agent-kit": version("edge-agent-kit"), "onnxruntime": version("onnxruntime")}
