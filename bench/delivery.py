"""An artifact of 23 MB to many sites at once: bytes from the hub to its broker, and the time until all have it.

`python -m bench.delivery [SITES]`: real sessions over a real broker, the chunks hashed in memory, a hundred sessions a
process. The hub is the production one. Baselines, in the same run: what one site needs; and each site served alone.
"""

import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event as Signal
from pathlib import Path
from typing import Any

from bench.fleet import Fleet
from bench.report import Line, show
from edge_models.digests import digest_of
from edge_sync.chunks import Receiver
from edge_sync.documents import dump
from edge_sync.mqtt import Broker, Event, Link, Message, Up
from edge_sync.release import Artifact, describe
from edge_sync.topics import fleet_chunk, site_chunk, up

SIZE_BYTES = 23 * 1000 * 1000
A_PROCESS = 100
"""Sessions."""

PATIENCE_S = 600.0


class Session:
    """One site's link, and its receiver. A chunk that comes is hashed and forgotten."""

    def __init__(self, url: str, site: str, folder: Path, digest: str, artifact: Artifact, byte_rate: int) -> None:
        """`byte_rate`: what it says it can take, and is served alone for; 0: it says nothing."""
        self.site, self._digest, self._artifact = site, digest, artifact
        self._receiver = Receiver(byte_rate)
        self._receiver.fetch(digest, artifact, [], time.monotonic(), random.uniform(0, 0.3))
        topics = [site_chunk(site, digest)] if byte_rate else [fleet_chunk(digest), site_chunk(site, digest)]
        self.is_up = self.done = False
        broker = Broker(url, site, site, folder / "password", reconnect_max_s=1)
        self._link = Link(broker, self._heard, [(topic, 0) for topic in topics])
        self._link.start()

    def tick(self) -> None:
        """Ask for what is missing, where that is due."""
        if self.is_up and not self.done:
            for want in self._receiver.wishes(time.monotonic()):
                self._link.publish(up(self.site, "want"), dump(want))

    def close(self) -> None:
        """End."""
        self._link.close()

    def _heard(self, event: Event) -> None:
        if isinstance(event, Message):
            keep = self._receiver.chunk(event.payload, time.monotonic())
            if keep is not None:
                self.done = self._receiver.kept(keep.digest, keep.index)
        else:
            self.is_up = isinstance(event, Up)
            if self.is_up:
                self._receiver.link_up(time.monotonic())


def sessions(
    url: str,
    sites: dict[str, Path],
    data: bytes,
    byte_rate: int,
    ready: Any,
    go: Signal,
    done: Any,
    kind: type[Session] = Session,
) -> None:
    """In a process of its own: connect, wait for the start, then fetch until all have all. `byte_rate` as `Session`."""
    artifact, digest = describe("model", data), str(digest_of(data))
    made = [kind(url, site, folder, digest, artifact, byte_rate) for site, folder in sites.items()]
    while not all(each.is_up for each in made):
        time.sleep(0.01)
    ready.put(len(made))
    go.wait()
    while not all(each.done for each in made):
        for each in made:
            each.tick()
        time.sleep(0.02)
    done.put(len(made))
    for each in made:
        each.close()


def deliver(
    folder: Path, count: int, alone: bool, midway: Callable[[Fleet], None] | None = None
) -> tuple[float, float]:
    """Seconds until all have it, and the bytes of chunks that left the hub."""
    data = random.Random(count).randbytes(SIZE_BYTES)
    byte_rate = 2**31 if alone else 0  # served alone, as fast as the hub will
    spawn = multiprocessing.get_context("spawn")
    with Fleet(folder) as fleet:
        fleet.put_artifact(data)
        sites = {}
        for number in range(count):
            name = f"site-{number}"
            sites[name] = folder / name
            fleet.register(name, sites[name])
        ready, done, go = spawn.Queue(), spawn.Queue(), spawn.Event()
        names = list(sites)
        parts = [{name: sites[name] for name in names[at : at + A_PROCESS]} for at in range(0, count, A_PROCESS)]
        children = [
            spawn.Process(target=sessions, args=(fleet.broker.url, part, data, byte_rate, ready, go, done), daemon=True)
            for part in parts
        ]
        for child in children:
            child.start()
        for _ in parts:
            ready.get(timeout=PATIENCE_S)
        began = time.monotonic()
        go.set()
        if midway is not None:
            while fleet.counted("edge_hub_chunk_bytes_total") < SIZE_BYTES / 2:
                time.sleep(0.02)
            midway(fleet)
        for _ in parts:
            done.get(timeout=PATIENCE_S)
        took_s = time.monotonic() - began
        sent = fleet.counted("edge_hub_chunk_bytes_total")
        for child in children:
            child.join(10)
            child.kill()
    return took_s, sent


def main(count: int) -> None:
    """Run all, print the table."""
    lines = []
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        one_s, one = deliver(folder / "one", 1, alone=False)
        lines.append(Line("one site", (f"{one / 1e6:.1f} MB", f"{one_s:.1f} s"), "1"))
        took_s, sent = deliver(folder / "all", count, alone=False)
        lines.append(Line(f"{count} sites", (f"{sent / 1e6:.1f} MB", f"{took_s:.1f} s"), f"{sent / one:.2f}", "≤ 1.15"))
        took_s, sent = deliver(folder / "killed", count, alone=False, midway=lambda fleet: fleet.kill_broker())
        lines.append(
            Line(
                f"{count} sites, broker killed midway",
                (f"{sent / 1e6:.1f} MB", f"{took_s:.1f} s"),
                f"{sent / one:.2f}",
                "≤ 1.5",
            )
        )
        few = min(20, count)
        shared_s, _ = deliver(folder / "few", few, alone=False)
        alone_s, sent = deliver(folder / "alone", few, alone=True)
        lines.append(Line(f"{few} sites", ("", f"{shared_s:.1f} s"), ""))
        lines.append(
            Line(
                f"{few} sites, each alone (baseline of the time)",
                (f"{sent / 1e6:.1f} MB", f"{alone_s:.1f} s"),
                f"{alone_s / shared_s:.1f} x slower",
                "≥ 2 x",
            )
        )
    show("23 MB to many sites: hub to broker", ("bytes", "time"), lines)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
