"""The MQTT shell: one connection, kept up, that turns what paho calls back into plain events.

paho's callbacks only pass events on: an exception in one would end paho's thread while it still claims to
be connected, so whatever a listener raises is logged and goes no further. Reconnection is paho's; sessions are
clean; nothing of value rests in paho's queue, and what was not acknowledged when a connection broke is never sent
again by itself: a command to a machine must not arrive an hour late. A client's certificate is read again for each
connection, so that one that was renewed counts from the next on.
"""

import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge_models.errors import ConfigError
from edge_sync.enrol.clockless import leave_time_out

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 1024 * 1024
"""The largest message passed on by default; every document of the wire is far smaller."""

_TLS_PORT, _PLAIN_PORT = 8883, 1883

_LOOK_AGAIN_S = 0.1
"""How often a publisher that waits looks whether its connection is still the same."""


@dataclass(frozen=True, slots=True)
class Up:
    """Connected, and every subscription is granted."""


@dataclass(frozen=True, slots=True)
class Down:
    """Not connected, and why; the link goes on trying."""

    reason: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a subscription."""

    topic: str
    payload: bytes
    retained: bool


Event = Up | Down | Message


@dataclass(frozen=True, slots=True)
class Broker:
    """Where a broker is and how to prove who one is."""

    url: str
    client_id: str
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    enrolled: bool = False
    """The files come from enrolment: they may not be there yet, and count whatever this machine's clock says."""
    reconnect_max_s: int = 30
    keepalive_s: int = 30

    def address(self) -> tuple[str, int, bool]:
        """Host, port, and whether TLS is used. Raises `ConfigError` for a URL that is no broker's."""
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"broker {self.url!r}: {error}") from None
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise ConfigError(f"broker {self.url!r}: write mqtts://HOST:8883 (or mqtt://127.0.0.1:1883 on one machine)")
        if parts.username or parts.password:
            raise ConfigError("broker: put username and password_file beside the URL, not into it")
        tls = parts.scheme == "mqtts"
        return parts.hostname, port or (_TLS_PORT if tls else _PLAIN_PORT), tls

    def require_tls(self) -> None:
        """Refuse to speak in clear with anything but this machine. Raises `ConfigError`."""
        host, _, tls = self.address()
        if not tls and not is_loopback(host):
            raise ConfigError(
                f"broker {self.url!r}: only a broker on this machine may be spoken to without TLS: use mqtts://"
            )


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says, retained, when the connection ends without a goodbye."""

    topic: str
    payload: bytes


def is_loopback(host: str) -> bool:
    """Whether `host` can only be this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Client(paho.Client):
    """Reads no packet that is larger than `max_packet_bytes`: paho would take all of it into memory first.

    Makes a TLS context for each connection where it is told how: paho would keep its first, and that certificate.
    """

    max_packet_bytes = 0
    new_context: Callable[[], ssl.SSLContext] | None = None
    why = ""
    """Why the last connection was none, where TLS or its files are the reason."""

    def _create_socket(self) -> Any:
        self.why = ""
        try:
            if self.new_context is not None:
                self._ssl_context = self.new_context()
            return super()._create_socket()
        except ConfigError as error:
            self.why = str(error)
            raise ConnectionError(self.why) from None
        except ssl.SSLCertVerificationError as error:
            self.why = f"its certificate does not count: {error.verify_message}"
            raise

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        """As paho's, which leaves a connection open where the handshake fails."""
        if self._ssl_context is None:
            raise ValueError("no TLS context")
        connection = self._ssl_context.wrap_socket(tcp_sock, server_hostname=self._host, do_handshake_on_connect=False)
        try:
            connection.settimeout(self._connect_timeout)
            connection.do_handshake()
        except BaseException:
            connection.close()
            raise
        return connection

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._in_packet["have_remaining"] and self._in_packet["remaining_length"] > self.max_packet_bytes:
            raise ConnectionError(f"a packet of {self._in_packet['remaining_length']} bytes")
        return super()._sock_recv(bufsize)


class Link:
    """One connection to a broker; `on_event` is called on paho's thread and must return at once."""

    def __init__(
        self,
        broker: Broker,
        on_event: Callable[[Event], None],
        subscriptions: Sequence[tuple[str, int]] = (),
        will: Callable[[], Will] | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        """Opens nothing yet; `will` is asked before each connection, so that each can have one of its own.

        Raises `ConfigError` for a wrong URL and for files that cannot be read; those of enrolment are first read when
        it connects.
        """
        self._broker = broker
        self._on_event = on_event
        self._lock = threading.Lock()
        self._wanted = dict(subscriptions)
        self._asked: dict[int, tuple[str, ...]] = {}  # subscriptions on their way, by message id; both under the lock
        self._max_message_bytes = max_message_bytes
        self._granting: int | None = None
        self._up = False
        self._refused = False
        self._refusals = 0
        self._breaks = 0
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=broker.client_id,
            clean_session=True,
            protocol=paho.MQTTv311,
        )
        client.max_packet_bytes = max_message_bytes + 65_536
        self._reconnect_max_s = max(1, broker.reconnect_max_s)
        client.reconnect_delay_set(1, self._reconnect_max_s)
        client.max_queued_messages_set(1000)
        client.max_inflight_messages_set(64)
        host, port, tls = broker.address()
        if broker.username is not None:
            client.username_pw_set(broker.username, _read_secret(broker.password_file))
        if tls:
            client.tls_set_context(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if broker.enrolled else _tls_context(broker))
            if broker.cert_file is not None:
                client.new_context = partial(_tls_context, broker)
        self._will = will
        client.on_pre_connect = self._about_to_connect
        client.on_connect, client.on_connect_fail = self._connected, self._connect_failed
        client.on_disconnect, client.on_subscribe = self._disconnected, self._subscribed
        client.on_message = self._received
        client.connect_async(host, port, keepalive=broker.keepalive_s)
        self._client = client

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._client.loop_start()

    def close(self) -> None:
        """Say goodbye (the will is not sent) and stop. Publishes made before are flushed first where possible."""
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> bool:
        """Hand a message to the client. False where it can't be taken: the link is down or its queue is full."""
        if not self._up:
            return False
        return self._client.publish(topic, payload, qos=qos, retain=retain).rc == paho.MQTT_ERR_SUCCESS

    def publish_and_wait(
        self, topic: str, payload: bytes, qos: int = 1, retain: bool = False, timeout_s: float = 10.0
    ) -> bool:
        """Publish and wait for the broker's acknowledgement; never inside `on_event`, where it could not come.

        False: not acknowledged in time, or the connection broke first. The broker may have it all the same.
        """
        until = time.monotonic() + timeout_s
        breaks = self._breaks
        if not self._up:
            return False
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            return False
        while not info.is_published() and breaks == self._breaks:
            left_s = until - time.monotonic()
            if left_s <= 0:
                return False
            info.wait_for_publish(min(left_s, _LOOK_AGAIN_S))
        return bool(info.is_published())

    def subscribe(self, topic: str, qos: int) -> None:
        """Subscribe now and after every reconnection. Where the broker refuses, the link goes down and tries again."""
        with self._lock:
            self._wanted[topic] = qos
            # Not `_up`: between a connection and its first SUBACK a new wish would wait for the next connection.
            if self._client.is_connected():
                self._ask([(topic, qos)])

    def unsubscribe(self, topic: str) -> None:
        """Undo `subscribe`."""
        with self._lock:
            if self._wanted.pop(topic, None) is not None and self._client.is_connected():
                self._client.unsubscribe(topic)

    def _ask(self, wanted: Iterable[tuple[str, int]]) -> int | None:
        """Send a subscription, under the lock, so that its answer can't come before its id is noted."""
        asked = list(wanted)
        mid = self._client.subscribe(asked)[1]
        if mid is not None:
            self._asked[mid] = tuple(topic for topic, _ in asked)
        return mid

    def _tell(self, event: Event) -> None:
        try:
            self._on_event(event)
        except Exception:
            log.exception("listener_failed", extra={"heard": type(event).__name__})

    def _about_to_connect(self, client: paho.Client, _user: Any) -> None:
        if self._will is not None:
            will = self._will()
            client.will_set(will.topic, will.payload, qos=1, retain=True)

    def _connected(self, client: paho.Client, _user: Any, _flags: Any, code: Any, _props: Any) -> None:
        client.drop_out_messages()
        self._refused = code.is_failure
        if code.is_failure:
            self._tell(Down(f"the broker refused: {code}"))
            return
        with self._lock:
            nothing = not self._wanted
            self._granting = None if nothing else self._ask(self._wanted.items())
        if nothing:
            self._come_up()

    def _subscribed(self, client: paho.Client, _user: Any, mid: int, codes: Any, _props: Any) -> None:
        with self._lock:
            asked = zip(self._asked.pop(mid, ()), codes, strict=False)
            refused = [topic for topic, code in asked if code.is_failure and topic in self._wanted]
        if self._refused:
            return  # this connection is being given up already
        if refused:
            self._give_up(client, f"the broker refused the subscription to {refused[0]}")
        elif mid == self._granting:
            self._granting = None
            self._come_up()

    def _come_up(self) -> None:
        self._up = True
        if self._refusals:
            self._refusals = 0
            self._client.reconnect_delay_set(1, self._reconnect_max_s)
        self._tell(Up())

    def _give_up(self, client: paho.Client, reason: str) -> None:
        """End this connection so that paho makes another: a broker never takes up by itself what it refused."""
        self._up, self._refused = False, True
        self._refusals += 1
        # paho waits longer only while it can't connect: a broker that lets us in and refuses would be asked for ever.
        wait_s = min(2 ** min(self._refusals - 1, 16), self._reconnect_max_s)
        client.reconnect_delay_set(wait_s, self._reconnect_max_s)
        self._tell(Down(reason))
        connection = client.socket()
        if isinstance(connection, socket.socket):
            with suppress(OSError):  # not `disconnect`, which would end paho's thread
                connection.shutdown(socket.SHUT_RDWR)

    def _connect_failed(self, _client: paho.Client, _user: Any) -> None:
        why = self._client.why
        self._tell(Down(f"no connection to {self._broker.url}" + (f": {why}" if why else "")))

    def _disconnected(self, _client: paho.Client, _user: Any, _flags: Any, code: Any, _props: Any) -> None:
        self._up = False
        self._granting = None
        with self._lock:
            self._asked.clear()
        self._breaks += 1
        if not self._refused:  # else the reason was said already, and paho's own says nothing
            self._tell(Down(f"disconnected: {code}"))

    def _received(self, _client: paho.Client, _user: Any, message: paho.MQTTMessage) -> None:
        if len(message.payload) > self._max_message_bytes:
            log.warning("message_too_large", extra={"topic": message.topic, "size_bytes": len(message.payload)})
            return
        self._tell(Message(message.topic, bytes(message.payload), bool(message.retain)))


def refused(broker: Broker, timeout_s: float) -> str | None:
    """Why a broker ends a TLS connection before anything is said; None where it waits for more, or there is no TLS.

    A certificate that counts no more is refused so, after the handshake. Raises `ConfigError` for files that can't be
    read, `OSError` where nobody answers.
    """
    with _by_tls(broker, timeout_s) as connection:
        if connection is None:
            return None
        try:
            return None if connection.recv(1) else "it ends the connection"
        except TimeoutError:
            return None
        except ssl.SSLError as error:
            return str(error.reason or error).lower().replace("_", " ")


def foreign(broker: Broker, timeout_s: float) -> str | None:
    """Why the certificate of what answers at this address does not count; None where it does, or there is no TLS.

    Raises as `refused`.
    """
    try:
        with _by_tls(broker, timeout_s):
            return None
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_message or error.reason)


@contextmanager
def _by_tls(broker: Broker, timeout_s: float) -> Iterator[ssl.SSLSocket | None]:
    """A connection to the broker after the handshake, closed at the end; None where it speaks no TLS."""
    host, port, tls = broker.address()
    if not tls:
        yield None
        return
    with (
        socket.create_connection((host, port), timeout_s) as plain,
        _tls_context(broker).wrap_socket(plain, server_hostname=host) as connection,
    ):
        yield connection


def _read_secret(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ConfigError(f"password file {path}: {error.strerror}") from None


def _tls_context(broker: Broker) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=broker.ca_file)
        if broker.enrolled:
            leave_time_out(context)
        if broker.cert_file is not None:
            context.load_cert_chain(broker.cert_file, broker.key_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"TLS files of {broker.url}: {error}") from None
    return context
