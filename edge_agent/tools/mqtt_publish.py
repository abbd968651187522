"""`mqtt.publish`: tell a machine something, through a broker at the site."""

import threading
import time
from collections.abc import Mapping
from typing import Annotated

import orjson
from pydantic import AfterValidator, Field

from edge_agent.records import Json
from edge_agent.site_links import SiteLink, broker_of
from edge_agent.tools.args import Args, read_args
from edge_agent.tools.base import Call, ToolContext
from edge_agent.topic_filters import check_topic
from edge_models.errors import ConfigError, RejectedError, RetryableError
from edge_sync.mqtt import Down, Event, Up
from edge_sync.rows import Lane

MAX_PAYLOAD_BYTES = 256 * 1024

MAX_WAIT_S = 30.0
"""However late a decision may be done: an agent that waits decides nothing."""


class MqttPublishArgs(Args):
    """Arguments of `mqtt.publish`."""

    endpoint: str
    """A name of the site file's `endpoints`."""
    topic: Annotated[str, AfterValidator(check_topic)]
    payload: Annotated[dict[str, Json], Field(default_factory=dict)]
    retain: bool = False


class MqttPublish:
    """Publishes ``{"decision": id, …payload}`` at QoS 1: a receiver that remembers the id acts on it once."""

    idempotent = True
    lane: Lane = "decision"

    def __init__(self, context: ToolContext) -> None:
        self._context = context
        self._outlets: dict[str, _Outlet] = {}
        self._lock = threading.Lock()

    def run(self, args: Mapping[str, Json], call: Call) -> Mapping[str, Json]:
        """Publish and wait for the broker's acknowledgement until the call's deadline.

        Raises `RejectedError` for wrong arguments and `RetryableError` where the broker is away or silent.
        """
        wanted = read_args(MqttPublishArgs, args, "mqtt.publish")
        payload = _payload(wanted.payload, call)
        timeout_s = min((call.deadline_us - self._context.now_us()) / 1e6, MAX_WAIT_S)
        if timeout_s <= 0:
            raise RetryableError("mqtt.publish: the deadline has passed")
        try:
            outlet = self._outlet(wanted.endpoint)
        except ConfigError as error:
            raise RejectedError(f"mqtt.publish: {error}") from None
        try:
            outlet.publish(wanted.topic, payload, wanted.retain, timeout_s)
        except RetryableError as error:
            raise RetryableError(f"mqtt.publish: endpoint {wanted.endpoint}: {error}") from None
        return {"endpoint": wanted.endpoint, "topic": wanted.topic, "size_bytes": len(payload)}

    def close(self) -> None:
        """Leave every broker. May be called twice."""
        with self._lock:
            outlets, self._outlets = self._outlets, {}
        for outlet in outlets.values():
            outlet.close()

    def _outlet(self, endpoint: str) -> "_Outlet":
        """The connection to an endpoint, opened when it is first needed."""
        with self._lock:
            if endpoint not in self._outlets:
                self._outlets[endpoint] = _Outlet(self._context, endpoint)
            return self._outlets[endpoint]


class _Outlet:
    """A broker to publish to, and whether it is there."""

    def __init__(self, context: ToolContext, endpoint: str) -> None:
        self._news = threading.Condition()
        self._state: Up | Down | None = None
        found = context.endpoint(endpoint)
        self._prefix = found.topic_prefix
        broker = broker_of(found, f"edge-{context.site}-tools")
        self._link = SiteLink(broker, self._heard)

    def publish(self, topic: str, payload: bytes, retain: bool, timeout_s: float) -> None:
        """Publish; on return the broker has it. Raises `RetryableError`."""
        until = time.monotonic() + timeout_s
        with self._news:  # only just opened: there is no news yet
            self._news.wait_for(lambda: self._state is not None, timeout_s)
            state = self._state
        if not isinstance(state, Up):
            raise RetryableError("no answer from the broker" if state is None else state.reason)
        if not self._link.publish_and_wait(self._prefix + topic, payload, retain, until - time.monotonic()):
            raise RetryableError("the broker did not acknowledge in time")

    def close(self) -> None:
        self._link.close()

    def _heard(self, event: Event) -> None:
        if isinstance(event, Up | Down):
            with self._news:
                self._state = event
                self._news.notify_all()


def _payload(payload: Mapping[str, Json], call: Call) -> bytes:
    if "decision" in payload:
        raise RejectedError("mqtt.publish: payload.decision: the decision's id goes there; choose another name")
    try:
        data = orjson.dumps({"decision": call.decision, **payload})
    except orjson.JSONEncodeError as error:
        raise RejectedError(f"mqtt.publish: payload: no JSON: {error}") from None
    if len(data) > MAX_PAYLOAD_BYTES:
        raise RejectedError(f"mqtt.publish: payload: {len(data)} bytes, the most is {MAX_PAYLOAD_BYTES}")
    return data
