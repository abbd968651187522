"""A plain MQTT client: paho, and nothing of the kit."""

import queue
import ssl

import paho.mqtt.client as paho
from attacker import wait_until
from paho.mqtt.enums import CallbackAPIVersion


class Client:
    """Says and hears what it is told to, with whatever client id and will."""

    def __init__(
        self,
        port: int,
        user: str,
        password: str | None = None,
        client_id: str = "",
        will: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Waits for the broker's answer; `codes` holds it. `tls` without a password: it comes by its certificate."""
        self.heard: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self.codes: list[int] = []
        self._granted: set[int] = set()
        self._ended = False
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id or user, protocol=paho.MQTTv311)
        if password is not None:
            self._client.username_pw_set(user, password)
        if tls is not None:
            self._client.tls_set_context(tls)
        if will is not None:
            self._client.will_set(will, b"will of " + user.encode(), qos=1)
        self._client.on_connect = lambda _c, _u, _f, code, _p: self.codes.append(code.value)
        self._client.on_disconnect = lambda *_: setattr(self, "_ended", True)
        self._client.on_message = lambda _c, _u, message: self.heard.put((message.topic, bytes(message.payload)))
        self._client.on_subscribe = lambda _c, _u, mid, *_: self._granted.add(mid)
        self._client.connect("localhost" if tls is not None else "127.0.0.1", port)
        self._client.loop_start()
        wait_until(lambda: self.codes, f"an answer to {user}")

    @property
    def ended(self) -> bool:
        """Whether its connection was ended."""
        return self._ended

    def subscribe(self, topic_filter: str) -> None:
        mid = self._client.subscribe(topic_filter, 1)[1]
        wait_until(lambda: mid in self._granted, f"an answer to {topic_filter}")

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """Publish, and wait until the broker has taken or dropped it."""
        self._client.publish(topic, payload, 1, retain).wait_for_publish(30)

    def all(self) -> list[tuple[str, bytes]]:
        """What was heard and not asked for yet."""
        found = []
        while not self.heard.empty():
            found.append(self.heard.get())
        return found

    def until(self, payload: bytes) -> list[tuple[str, bytes]]:
        """What was heard before this payload: messages of one publisher come in their order."""
        found: list[tuple[str, bytes]] = []

        def came() -> bool:
            found.extend(self.all())
            return any(each == payload for _, each in found)

        wait_until(came, payload.decode())
        return [each for each in found if each[1] != payload]

    def drop(self) -> None:
        """End without a goodbye."""
        connection = self._client.socket()
        assert connection is not None
        connection.close()
        self._client.loop_stop()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
