"""A hub: its store, its link to the broker, and the threads between them."""

import logging
import time

from edge_hub.blobs import Blobs
from edge_hub.broker import HUB, BrokerFolder
from edge_hub.folder import HubFolder
from edge_hub.inbox import Heard, Inbox, LinkChanged
from edge_hub.ingest import Ingest, Outgoing
from edge_hub.metrics import Metrics
from edge_hub.releases import Releases
from edge_hub.sender import Sender
from edge_hub.sites import Sites
from edge_hub.speaker import Speaker
from edge_hub.store import Store
from edge_models.errors import RejectedError
from edge_sync.documents import Want, load
from edge_sync.mqtt import Broker, Down, Event, Link, Message, Up
from edge_sync.topics import ALL_UP, down, parse_up

log = logging.getLogger(__name__)


def now_us() -> int:
    """This machine's clock: UTC microseconds."""
    return time.time_ns() // 1000


class Hub:
    """Everything but HTTP. `start` connects; `close` ends whatever was started."""

    def __init__(self, folder: HubFolder, broker_folder: BrokerFolder, broker_url: str) -> None:
        """Opens the database. Raises `ConfigError`."""
        self.folder = folder
        self.broker_url = broker_url
        self.director_key = folder.director_key
        self.metrics = Metrics()
        self.store = Store(folder.database)
        self.blobs = Blobs(folder.blobs)
        self._inbox = Inbox()
        self._link = Link(
            Broker(broker_url, HUB, HUB, broker_folder.service_user(HUB, "hub"), reconnect_max_s=5),
            self._on_event,
            [(ALL_UP, 1)],
        )
        self._speaker = Speaker(self.store, self._publish_desired)
        self._sender = Sender(self.store, self.blobs, self.metrics, lambda t, p: self._link.publish(t, p, qos=0))
        outgoing = Outgoing(self._publish, self._speaker.say, self._sender.gone)
        self._ingest = Ingest(self.store, self._inbox, self.metrics, outgoing, now_us)
        self.sites = Sites(self.store, broker_folder, now_us)
        self.releases = Releases(self.store, folder.key, self._speaker.say, now_us)
        self.online = False
        self._said: str | None = None
        self._closing = False

    def start(self) -> None:
        """Begin to listen to sites; returns at once, whether or not the broker can be reached."""
        self._ingest.start()
        self._speaker.start()
        self._sender.start()
        self._link.start()

    def close(self) -> None:
        """End in the order that loses nothing: whatever was not acknowledged comes again."""
        self._closing = True
        self._ingest.close()
        self._sender.close()
        self._speaker.close()
        self._link.close()
        self.store.close()

    def _publish(self, topic: str, payload: bytes) -> None:
        if not self._link.publish(topic, payload):
            log.warning("not_published", extra={"topic": topic})

    def _publish_desired(self, site: str, envelope: bytes) -> bool:
        return self._link.publish_and_wait(down(site, "desired"), envelope, retain=True)

    def _on_event(self, event: Event) -> None:
        """On the link's thread: pass it on at once. Nothing here asks the database."""
        match event:
            case Up():
                self.online, self._said = True, None
                log.info("broker_connected", extra={"broker": self.broker_url})
                self._inbox.put(LinkChanged(True))
            case Down(reason):
                if reason != self._said and not self._closing:  # the link goes on trying; one line a reason is enough
                    log.warning("broker_away", extra={"broker": self.broker_url, "reason": reason})
                if self.online:
                    self._inbox.put(LinkChanged(False))
                self.online, self._said = False, reason
            case Message():
                self._on_message(event)

    def _on_message(self, message: Message) -> None:
        parsed = parse_up(message.topic)
        if parsed is None:
            return
        site, what = parsed
        if what == "want":
            self._on_want(site, message.payload)
        elif not self._inbox.put(Heard(site, what, message.payload, message.retained)):
            self.metrics.add("edge_hub_dropped_messages_total")

    def _on_want(self, site: str, payload: bytes) -> None:
        try:
            self._sender.want(site, load(Want, payload))
        except RejectedError as error:
            self.metrics.add("edge_hub_refused_documents_total")
            log.warning("document_refused", extra={"site": site, "document": "want", "reason": str(error)})
