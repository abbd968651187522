"""Messages of a broker at the site, each a plain JSON object.

The broker is told that a message has arrived as soon as it is in the queue: what waits there when the process is
killed is gone, since a machine's next value is worth more than its last.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from edge_agent.records import Malformed, Observation
from edge_agent.site_links import SiteLink, broker_of
from edge_agent.sources.base import SourceContext
from edge_agent.sources.decode import MAX_MESSAGE_BYTES, excerpt, read_object
from edge_agent.sources.waiting import Waiting
from edge_agent.topic_filters import check_filter
from edge_models.errors import RejectedError
from edge_sync.mqtt import Down, Event, Message
from edge_sync.yamlfile import validate

MAX_TOPICS_REMEMBERED = 10_000
"""Topics whose last message is remembered, so that one that was retained is taken once."""

_OVERHEAD_BYTES = 200
"""About what a message takes in the queue beside its payload."""

_KEPT_OF_TOO_MUCH_BYTES = 1024
"""Enough of a message that is too large for its excerpt."""


class MqttOptions(BaseModel):
    """Options of an `mqtt` source."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    endpoint: str
    """A name of the site file's `endpoints`."""
    topic: Annotated[str, AfterValidator(check_filter)]
    """A topic or a topic filter; the endpoint's prefix stands before it."""
    qos: Annotated[int, Field(ge=0, le=1)] = 1
    queue: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Messages that may wait for the agent; the oldest give way."""


@dataclass(frozen=True, slots=True)
class _Arrived:
    topic: str
    payload: bytes
    size_bytes: int
    """Of the message; more than the payload here where it is too large to keep."""
    at_us: int


class MqttSource:
    """Takes the messages of one topic filter; their topic, without the endpoint's prefix, is seen as ``_topic``."""

    def __init__(self, options: Mapping[str, Any], context: SourceContext) -> None:
        where = f"agent {context.agent!r}: source mqtt"
        self._options = validate(MqttOptions, options, where)
        endpoint = context.endpoint(self._options.endpoint)
        self._prefix = endpoint.topic_prefix
        self._broker = broker_of(endpoint, f"edge-{context.site}-{context.agent}")
        self._now_us = context.now_us
        self._waiting: Waiting[_Arrived] = Waiting(self._options.queue)
        self._last_heard: OrderedDict[str, int] = OrderedDict()
        self._link: SiteLink | None = None
        self._problem: str | None = "not started"

    @property
    def problem(self) -> str | None:
        """Why no messages can come at the moment; None while connected."""
        return self._problem

    def start(self) -> None:
        """Begin to connect; a broker that is away is waited for, however long."""
        self._problem = "connecting"
        self._link = SiteLink(self._broker, self._heard, self._prefix + self._options.topic, self._options.qos)

    def take(self, most: int, timeout_s: float) -> list[Observation | Malformed]:
        """Wait up to `timeout_s` for a message, then return all that wait, `most` at the most."""
        return [_read(arrived) for arrived in self._waiting.take(most, timeout_s)]

    def done(self) -> None:
        """Nothing: the broker was told on arrival."""

    def dropped(self) -> int:
        """Messages that gave way in a full queue since the last call."""
        return self._waiting.dropped()

    def exhausted(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Leave the broker."""
        if self._link is not None:
            self._link.close()
        self._problem = "closed"
        self._waiting.close()

    def _heard(self, event: Event) -> None:
        """On the connection's thread: keep what came, and nothing more."""
        if isinstance(event, Message):
            if not self._heard_before(event):
                size_bytes = len(event.payload)
                kept = event.payload if size_bytes <= MAX_MESSAGE_BYTES else event.payload[:_KEPT_OF_TOO_MUCH_BYTES]
                arrived = _Arrived(event.topic.removeprefix(self._prefix), kept, size_bytes, self._now_us())
                self._waiting.push(arrived, len(kept) + _OVERHEAD_BYTES)
        else:
            self._problem = event.reason if isinstance(event, Down) else None

    def _heard_before(self, message: Message) -> bool:
        """Whether this is the retained copy of what was heard last: each new connection brings it again."""
        mark = hash(message.payload)
        before = self._last_heard.pop(message.topic, None)
        self._last_heard[message.topic] = mark
        if len(self._last_heard) > MAX_TOPICS_REMEMBERED:
            self._last_heard.popitem(last=False)
        return message.retained and before == mark


def _read(arrived: _Arrived) -> Observation | Malformed:
    try:
        if arrived.size_bytes > len(arrived.payload):
            raise RejectedError(f"{arrived.size_bytes} bytes, the most is {MAX_MESSAGE_BYTES}")
        values = read_object(arrived.payload)
    except RejectedError as error:
        return Malformed(f"topic {arrived.topic}: {error}", arrived.at_us, "mqtt", excerpt(arrived.payload))
    return Observation({**values, "_topic": arrived.topic}, arrived.at_us, "mqtt")
