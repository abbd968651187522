"""Who has to do with a fleet's releases: an operator who signs and pushes, a technician's stick, and an attacker."""

from collections import deque
from typing import TYPE_CHECKING

from edge_sim.pool import UNSIGNED, State, pool
from edge_sim.site import SimSite
from edge_sync.chunks import chunk_message, read_chunk
from edge_sync.documents import DESIRED_TYPE, Desired, dump
from edge_sync.release import Release
from edge_sync.signing import sign
from edge_sync.topics import FLEET_TRUST, down

if TYPE_CHECKING:
    from edge_sim.fleet import Fleet

AGAIN_S = 30.0
"""After a hub that was away, or refused."""

KEPT = 12
"""Messages of a kind that the attacker has written down, the latest."""

FAR_AHEAD = 1_000
"""By how much a forged document is newer than what the hub gave."""


class Office:
    """The operator. What was signed is handed to the hub until that holds it."""

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet, self._pool = fleet, pool()
        self.step = 0
        self._due = False

    @property
    def state(self) -> State:
        """What is signed now."""
        return self._pool.states[self.step]

    def sign(self) -> None:
        """The next of what the operator does."""
        if self.step + 1 < len(self._pool.states):
            self.step += 1
            self._fleet.world.say("operator", "signs", f"state {self.step}: releases {self.state.releases}")
            self.hand_over()

    def hand_over(self) -> None:
        """Until the hub holds it."""
        if not self._due:
            self._due = True
            self._try()

    def _try(self) -> None:
        hub = self._fleet.hub
        if hub.running and hub.delivery is not None and hub.delivery.take(self.state):
            self._due = False
        else:
            self._fleet.world.after(AGAIN_S, self._try)

    def push(self, number: int, site: str | None) -> None:
        """To this site, None: to all; where the hub is away, nothing happens."""
        hub = self._fleet.hub
        if hub.running and hub.delivery is not None:
            self._fleet.world.say("operator", "pushes", f"release {number} to {site or 'all'}")
            hub.delivery.push(number, None if site is None else [site])

    def stick(self, machine: SimSite, after_s: float) -> None:
        """A technician fetches a stick from the hub, and puts it into the site's machine after a while."""
        hub, side = self._fleet.hub, machine.updates
        if not hub.running or hub.delivery is None or side is None:
            return
        if (made := hub.delivery.stick(machine.site)) is None:
            return
        trust, desired = made

        def put_in() -> None:
            self._fleet.world.say(machine.name, "stick", "put in")
            with side.wishes.stick() as offer:
                offer.put("trust.bin", trust)
                offer.put("desired.json", desired)
                for path in sorted(self._pool.blobs.iterdir()):
                    offer.put_blob(f"sha256:{path.name}", path)
                offer.done()

        self._fleet.world.after(after_s, put_in)


class Attacker:
    """Has the broker: writes down what passes, says it again where it does harm, and forges."""

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet, self._pool = fleet, pool()
        self._desired: dict[str, deque[bytes]] = {}
        self._trust: deque[bytes] = deque(maxlen=KEPT)
        self._chunks_until = 0.0
        fleet.broker.tap = self._passes

    def replay_desired(self, site: str, chance: float) -> None:
        """What this site was once told."""
        self._say(down(site, "desired"), self._desired.get(site), chance, "an old desired")

    def cross_desired(self, site: str, other: str) -> None:
        """What another site was told."""
        self._say(down(site, "desired"), self._desired.get(other), 0.99, f"what {other} should run")

    def replay_trust(self, chance: float) -> None:
        """What all sites were once told."""
        self._say(FLEET_TRUST, self._trust, chance, "an old trust set")

    def forge_chunks(self, for_s: float) -> None:
        """Before each chunk that passes there is one with other bytes."""
        self._chunks_until = self._fleet.world.now + for_s

    def forge_desired(self, site: str, stolen: bool) -> None:
        """Signed with the hub's own key where that is `stolen`: then by who can't sign what it names."""
        release = self._pool.releases[UNSIGNED]
        key = self._pool.director if stolen else self._pool.stranger
        self._fleet.world.say(site, "ATTACK", f"a forged desired, signed by {'the hub' if stolen else 'a stranger'}")
        self._fleet.broker.forge(down(site, "desired"), sign(dump(self._wish(site, release)), DESIRED_TYPE, key))

    def forget(self) -> None:
        """No chunks are forged any more."""
        self._chunks_until = 0.0

    def _wish(self, site: str, release: Release) -> Desired:
        document = release.model_dump(mode="json")
        return Desired(site=site, generation=FAR_AHEAD, issued_us=self._fleet.hub.clock.us(), release=document)

    def _say(self, topic: str, heard: deque[bytes] | None, chance: float, what: str) -> None:
        if heard:
            self._fleet.world.say("attacker", "ATTACK", f"{what} on {topic}")
            self._fleet.broker.forge(topic, heard[int(chance * len(heard))])

    def _passes(self, topic: str, payload: bytes) -> None:
        if topic == FLEET_TRUST:
            self._trust.append(payload)
        elif topic.endswith("/down/desired"):
            self._desired.setdefault(topic.split("/")[2], deque(maxlen=KEPT)).append(payload)
        elif "/chunk/" in topic and self._fleet.world.now < self._chunks_until:
            header, data = read_chunk(payload)
            forged = bytes([data[0] ^ 1]) + data[1:]
            message = chunk_message(header.digest, header.index, header.count, header.size, forged)
            self._fleet.broker.forge(topic, message)
