"""A broker that keeps MQTT 3.1.1's letter and none of its comfort.

It says yes to every publish. It drops what a full queue can't hold, delivers some things twice, delays, reorders
across topics, forgets retained messages and everything else when it is started again. No MQTT 5.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from edge_sim.world import World

QUEUE = 60
"""Messages on their way to one client; those beyond are dropped though their publisher was told yes."""

KEEPALIVE_S = 45.0
"""How long either side may believe in a connection that is gone."""


@dataclass(frozen=True, slots=True)
class Vices:
    """Chances by message, and the longest ordinary delay."""

    drop: float
    double: float
    late_s: float


@dataclass(slots=True, eq=False)
class Connection:
    """One client's connection. `heard(topic, payload, retained)`, `lost()` are called on the client's side."""

    client: str
    wants: Callable[[str], bool]
    heard: Callable[[str, bytes, bool], None]
    lost: Callable[[], None]
    will: tuple[str, bytes] | None
    alive: bool = True
    """The broker knows it."""
    cut: bool = False
    """Nothing passes, though neither side may know yet."""
    waiting: int = 0
    due: dict[str, float] = field(default_factory=dict)
    """By topic, when the last message on its way arrives: within a topic the order holds."""


class Broker:
    """Between all of them."""

    def __init__(self, world: World, vices: Vices) -> None:
        self.world, self.vices = world, vices
        self.calm = False
        """No vices any more."""
        self.up = True
        self._connections: dict[str, Connection] = {}
        self.retained: dict[str, bytes] = {}
        self.tap: Callable[[str, bytes], None] = lambda _topic, _payload: None
        """Told of what is published: whoever has the broker hears all."""

    def connect(self, connection: Connection) -> bool:
        """Accept it; an older one with this client id is thrown out. False: the broker is down."""
        if not self.up:
            return False
        older = self._connections.get(connection.client)
        if older is not None:
            self._end(older, told_s=0.1)
        self._connections[connection.client] = connection
        for topic in list(self.retained):
            if connection.wants(topic):
                self._deliver(connection, topic, self.retained[topic], True)
        return True

    def publish(self, connection: Connection, topic: str, payload: bytes, retain: bool = False) -> None:
        """Take a message. Whoever published it believes that it arrived."""
        if connection.alive and not connection.cut and self.up:
            self.tap(topic, payload)
            self._spread(topic, payload, retain)

    def forge(self, topic: str, payload: bytes) -> None:
        """Whoever owns a client's password says this."""
        if self.up:
            self._spread(topic, payload, False)

    def goodbye(self, connection: Connection) -> None:
        """The client ends it: no will."""
        if self._connections.get(connection.client) is connection:
            del self._connections[connection.client]
        connection.alive = False

    def cut(self, client: str) -> None:
        """The network between broker and client is gone; both find out when they do."""
        connection = self._connections.get(client)
        if connection is not None and not connection.cut:
            connection.cut = True
            self._end(connection, told_s=self.world.rng.uniform(0.5, KEEPALIVE_S), will_s=KEEPALIVE_S)

    def vanish(self, client: str) -> None:
        """The client's process is gone: the broker sees the socket close, or only the silence."""
        connection = self._connections.get(client)
        if connection is not None:
            connection.cut = True
            self._end(connection, told_s=None, will_s=self.world.rng.choice((0.05, KEEPALIVE_S)))

    def restart(self, keeps: bool, down_s: float) -> None:
        """Kill it. `keeps`: its retained messages survive."""
        self.up = False
        if not keeps:
            self.retained.clear()
        for connection in list(self._connections.values()):
            connection.will = None
            self._end(connection, told_s=0.1)
        self.world.after(down_s, self._started)

    def _started(self) -> None:
        self.up = True

    def _end(self, connection: Connection, told_s: float | None, will_s: float = 0.0) -> None:
        """Forget the connection; its client is told after a while (None: there is nobody to tell)."""

        def gone() -> None:
            if self._connections.get(connection.client) is connection:
                del self._connections[connection.client]
            connection.alive = False
            if connection.will is not None and self.up:
                self._spread(*connection.will, retain=True)

        if will_s:
            self.world.after(will_s, gone)
        else:
            gone()
        connection.cut = True
        if told_s is not None:
            self.world.after(told_s, connection.lost)

    def _spread(self, topic: str, payload: bytes, retain: bool) -> None:
        rng = self.world.rng
        if retain:
            if not self.calm and rng.random() < self.vices.drop / 4:
                self.retained.pop(topic, None)
                self.world.counts["retained lost"] += 1
            else:
                self.retained[topic] = payload
        for connection in list(self._connections.values()):
            if connection.cut or not connection.wants(topic):
                continue
            if connection.waiting >= QUEUE:
                self.world.counts["queue full"] += 1
            elif not self.calm and rng.random() < self.vices.drop:
                self.world.counts["message lost"] += 1
            else:
                self._deliver(connection, topic, payload, False)
                if not self.calm and rng.random() < self.vices.double:
                    self.world.counts["message doubled"] += 1
                    self._deliver(connection, topic, payload, False)

    def _deliver(self, connection: Connection, topic: str, payload: bytes, retained: bool) -> None:
        late_s = 0.02 if self.calm else self.world.rng.uniform(0.005, self.vices.late_s)
        at = max(self.world.now + late_s, connection.due.get(topic, 0.0))
        connection.due[topic] = at
        connection.waiting += 1

        def arrive() -> None:
            connection.waiting -= 1
            if not connection.cut and self.up:
                connection.heard(topic, payload, retained)

        self.world.at(at, arrive)
