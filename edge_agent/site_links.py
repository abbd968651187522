"""Connections to the brokers that a site file names: one for each user of a broker, shared by all who need it.

A broker ends a connection when another one comes with the same client id, and some brokers make the user name
the client id. So what speaks as one user to one broker shares a connection; without a user name each speaker
has a client id, and so a connection, of its own.
"""

import threading
from collections.abc import Callable

from paho.mqtt.client import topic_matches_sub

from edge_agent.config import Endpoint
from edge_agent.topic_filters import overlap
from edge_models.errors import ConfigError
from edge_sync.mqtt import Broker, Event, Link, Message

_MAX_PACKET_BYTES = 256 * 1024 * 1024
"""All that MQTT allows: what is too large is counted by who subscribed, not lost in between."""


def broker_of(endpoint: Endpoint, speaker: str) -> Broker:
    """How `speaker` reaches the broker at `endpoint`. Raises `ConfigError` where the endpoint is no broker.

    A broker in the site's own network may be spoken to without TLS: many machines can't do better.
    """
    broker = Broker(
        url=endpoint.url,
        client_id=endpoint.username or speaker,
        username=endpoint.username,
        password_file=endpoint.password_file,
        ca_file=endpoint.ca_file,
    )
    broker.address()
    return broker


class SiteLink:
    """One speaker's share of a connection; open from the start until `close`."""

    def __init__(
        self,
        broker: Broker,
        on_event: Callable[[Event], None],
        topic_filter: str | None = None,
        qos: int = 1,
    ) -> None:
        """`on_event` is called on the connection's thread and must return at once.

        Raises `ConfigError` where files can't be read, or where `topic_filter` overlaps one that the connection
        has: MQTT does not say whether a message that matches both then comes once or twice.
        """
        self.on_event = on_event
        self.topic_filter, self.qos = topic_filter, qos
        self._closed = False
        self._shared = _join(broker, self)

    def publish_and_wait(self, topic: str, payload: bytes, retain: bool, timeout_s: float) -> bool:
        """Publish at QoS 1 and wait for the acknowledgement; False where none came in time."""
        return self._shared.link.publish_and_wait(topic, payload, 1, retain, timeout_s)

    def close(self) -> None:
        """Leave the connection; the last to leave ends it. May be called twice."""
        with _lock:
            if not self._closed:
                self._closed = True
                self._shared.leave(self)


class _Shared:
    """A connection and the speakers on it."""

    def __init__(self, broker: Broker, key: tuple[str, int, str]) -> None:
        self._key = key
        # Replaced, never changed: the connection's thread reads it without a lock.
        self._speakers: tuple[SiteLink, ...] = ()
        self._last: Event | None = None
        self.link = Link(broker, self._passed_on, max_message_bytes=_MAX_PACKET_BYTES)

    def join(self, speaker: SiteLink) -> None:
        wish = speaker.topic_filter
        for have in self._speakers:
            if wish and have.topic_filter and wish != have.topic_filter and overlap(wish, have.topic_filter):
                raise ConfigError(
                    f"topic {wish!r} overlaps {have.topic_filter!r}, which another agent hears as the same user: "
                    "use the same topic in both, or an endpoint with a user of its own"
                )
        first = not self._speakers
        self._speakers = (*self._speakers, speaker)
        if wish:
            self.link.subscribe(wish, speaker.qos)
        if first:
            self.link.start()
        elif self._last is not None:
            speaker.on_event(self._last)

    def leave(self, speaker: SiteLink) -> None:
        self._speakers = tuple(s for s in self._speakers if s is not speaker)
        if not self._speakers:
            del _open[self._key]
            self.link.close()
        elif speaker.topic_filter and all(s.topic_filter != speaker.topic_filter for s in self._speakers):
            self.link.unsubscribe(speaker.topic_filter)

    def _passed_on(self, event: Event) -> None:
        if isinstance(event, Message):
            for speaker in self._speakers:
                if speaker.topic_filter and topic_matches_sub(speaker.topic_filter, event.topic):
                    speaker.on_event(event)
            return
        self._last = event
        for speaker in self._speakers:
            speaker.on_event(event)


# Client ids are the process's, so this is too. The lock also orders one connection's end before the next's begin.
_open: dict[tuple[str, int, str], _Shared] = {}
_lock = threading.Lock()


def _join(broker: Broker, speaker: SiteLink) -> _Shared:
    host, port, _ = broker.address()
    key = (host, port, broker.client_id)
    with _lock:
        shared = _open.get(key) or _Shared(broker, key)
        shared.join(speaker)
        _open[key] = shared
        return shared
