"""An artifact of 23 MB to a thousand sites in virtual time: the chunks that leave the hub, however many sites want it.

`python -m bench.delivery_simulated [SITES]`: production's own `ChunkSender` and `Receiver`, paced as the hub paces;
every site hashes every chunk. Simulated is what is between them: a link with a delay, and a broker that is killed
midway, with all that was on its way. The baseline is what one site needs.
"""

import heapq
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.report import Line, show
from edge_agent.update.site_updates import WANT_JITTER_S
from edge_hub.delivery.sender import BYTE_RATE, PASSED_ON_RATE
from edge_models.digests import digest_of
from edge_sync.chunks import ChunkSender, Receiver, Send, chunk_message
from edge_sync.documents import Want
from edge_sync.release import CHUNK_SIZE_BYTES, Artifact, describe

SIZE_BYTES = 23 * 1000 * 1000
DELAY_S = (0.005, 0.4)
"""From a site to the hub, and back."""
DOWN_S, BACK_S = 2.0, 5.0
"""How long the killed broker is away, and in how much time the sites come back after it."""
TICK_S = 0.25
"""How often a site looks whether it has to ask."""
SLOW_SHARE, SLOW_RATE = 0.05, BYTE_RATE // 100


@dataclass
class Fleet:
    """Virtual time, a hub's sender, and sites that lack one artifact."""

    data: bytes
    count: int
    killed: bool = False
    slow: bool = False
    chance: random.Random = field(default_factory=lambda: random.Random(5))
    now: float = 0.0
    sent_bytes: int = 0
    done: int = 0
    last_fast_s: float = 0.0

    def __post_init__(self) -> None:
        self.artifact: Artifact = describe("model", self.data)
        self.digest = str(digest_of(self.data))
        self.sender = ChunkSender(byte_rate=BYTE_RATE, passed_on_rate=PASSED_ON_RATE)
        self.slow_sites = set(range(round(self.count * SLOW_SHARE))) if self.slow else set()
        self.sites = [Receiver(SLOW_RATE if number in self.slow_sites else 0) for number in range(self.count)]
        self.up = True
        self.life = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._waking = False

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Have it done then."""
        self._order += 1
        heapq.heappush(self._events, (self.now + seconds, self._order, do))

    def run(self) -> None:
        """Until all sites have all of it."""
        for number, site in enumerate(self.sites):
            site.fetch(self.digest, self.artifact, [], 0.0, self.chance.uniform(0, WANT_JITTER_S))
            self.after(self.chance.uniform(0, TICK_S), lambda number=number: self._tick(number))  # type: ignore[misc]
        while self._events and self.done < self.count:
            self.now, _, do = heapq.heappop(self._events)
            do()

    def _tick(self, number: int) -> None:
        site = self.sites[number]
        if not site.wanting():
            return
        if self.up:
            for want in site.wishes(self.now):
                self.after(self.chance.uniform(*DELAY_S), lambda want=want: self._wished(number, want))  # type: ignore[misc]
        self.after(TICK_S, lambda: self._tick(number))

    def _wished(self, number: int, want: Want) -> None:
        if self.up:
            self.sender.want(str(number), want, self.now)
            self._serve()

    def _serve(self) -> None:
        if self._waking:
            return
        wake_at = self.sender.wake_at(self.now)
        if wake_at is not None:
            self._waking = True
            self.after(max(0.0, wake_at - self.now), self._send)

    def _send(self) -> None:
        self._waking = False
        send = self.sender.next(self.now) if self.up else None
        if send is not None:
            self._publish(send)
        self._serve()

    def _publish(self, send: Send) -> None:
        at = send.index * CHUNK_SIZE_BYTES
        piece = self.data[at : at + CHUNK_SIZE_BYTES]
        message = chunk_message(self.digest, send.index, len(self.artifact.chunks), len(self.data), piece)
        self.sent_bytes += len(message)
        life = self.life
        for number in range(self.count) if send.site is None else [int(send.site)]:
            if send.site is not None or number not in self.slow_sites:
                self.after(self.chance.uniform(*DELAY_S), lambda number=number: self._arrive(number, message, life))  # type: ignore[misc]
        if self.killed and self.sent_bytes > len(self.data) / 2:
            self.killed, self.up, self.life = False, False, self.life + 1
            for site in range(self.count):
                self.sender.gone(str(site))
            self.after(DOWN_S, self._come_back)

    def _come_back(self) -> None:
        self.up = True
        for site in self.sites:
            self.after(self.chance.uniform(0, BACK_S), lambda site=site: site.link_up(self.now))  # type: ignore[misc]

    def _arrive(self, number: int, message: bytes, life: int) -> None:
        site = self.sites[number]
        if life != self.life or not site.wanting():
            return
        keep = site.chunk(message, self.now)
        if keep is not None and site.kept(keep.digest, keep.index):
            site.drop(keep.digest)
            self.done += 1
            if number not in self.slow_sites:
                self.last_fast_s = self.now


def main(count: int) -> None:
    """Run all, print the table."""
    data = random.Random(count).randbytes(SIZE_BYTES)
    one = Fleet(data, 1)
    one.run()
    lines = [Line("one site", (f"{one.sent_bytes / 1e6:.1f} MB", f"{one.now:.0f} s"), "1")]
    cases = (
        (f"{count:,} sites", Fleet(data, count), "≤ 1.15"),
        (f"{count:,} sites, broker killed midway", Fleet(data, count, killed=True), "≤ 1.5"),
    )
    for what, fleet, target in cases:
        fleet.run()
        figures = (f"{fleet.sent_bytes / 1e6:.1f} MB", f"{fleet.now:.0f} s")
        lines.append(Line(what, figures, f"{fleet.sent_bytes / one.sent_bytes:.2f}", target))
    few = count // 10
    fast, mixed = Fleet(data, few - round(few * SLOW_SHARE)), Fleet(data, few, slow=True)
    fast.run()
    mixed.run()
    lines.append(Line(f"{few} sites, time of those at full speed", ("", f"{fast.last_fast_s:.0f} s"), "1"))
    ratio = f"{mixed.last_fast_s / fast.last_fast_s:.2f}"
    lines.append(Line("  with 5 % of them at 1/100 of it", ("", f"{mixed.last_fast_s:.0f} s"), ratio))
    show("23 MB to many simulated sites: hub to broker, virtual time", ("bytes", "time"), lines)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
