"""Memory of hub and broker while 5 % of the sites are a hundred times slower than the others.

`python -m bench.delivery_slow [SITES]`: 23 MB to real sessions over a real broker, the production hub. The slow ones
say how much they can take, and the hub serves them apart; then the same with sites that say nothing and just read
slowly, so that the broker holds for them what they have not taken. The baseline is the same fleet without slow sites.
"""

import multiprocessing
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.delivery import PATIENCE_S, SIZE_BYTES, Session, sessions
from bench.fleet import Fleet
from bench.memory import status_mb
from bench.report import Line, show
from edge_hub.delivery.sender import BYTE_RATE
from edge_sync.mqtt import Event, Message
from edge_sync.release import CHUNK_SIZE_BYTES

SLOW_SHARE, SLOW_RATE = 0.05, BYTE_RATE // 100

How = Literal["fast", "says so", "says nothing"]


class SlowSession(Session):
    """Takes a chunk, and then nothing for as long as its rate asks for: the broker waits with the rest."""

    def _heard(self, event: Event) -> None:
        super()._heard(event)
        if isinstance(event, Message) and not self.done:
            time.sleep(CHUNK_SIZE_BYTES / SLOW_RATE)


@dataclass(frozen=True, slots=True)
class Found:
    """What a run came to."""

    fast_s: float
    """Until every site at full speed had it."""
    hub_mb: float
    broker_mb: float


def run(folder: Path, count: int, slow: How | None) -> Found:
    """Deliver, and look at the most memory that hub and broker held."""
    data = random.Random(count).randbytes(SIZE_BYTES)
    spawn = multiprocessing.get_context("spawn")
    with Fleet(folder) as fleet:
        fleet.put_artifact(data)
        names = [f"site-{number}" for number in range(count)]
        for name in names:
            fleet.register(name, folder / name)
        cut = round(count * SLOW_SHARE) if slow is not None else 0
        parts: list[tuple[list[str], How]] = [(names[cut:], "fast")]
        if slow is not None:
            parts.append((names[:cut], slow))
        ready, go = spawn.Queue(), spawn.Event()
        done = {how: spawn.Queue() for _, how in parts}
        children = [
            spawn.Process(
                target=sessions,
                args=(
                    fleet.broker.url,
                    {name: folder / name for name in part},
                    data,
                    SLOW_RATE if how == "says so" else 0,
                    ready,
                    go,
                    done[how],
                    SlowSession if how == "says nothing" else Session,
                ),
                daemon=True,
            )
            for part, how in parts
        ]
        for child in children:
            child.start()
        for _ in parts:
            ready.get(timeout=PATIENCE_S)
        began = time.monotonic()
        go.set()
        done["fast"].get(timeout=PATIENCE_S)
        found = Found(time.monotonic() - began, status_mb("VmHWM", fleet.hub_pid), status_mb("VmHWM", fleet.broker.pid))
        for child in children:
            child.kill()
            child.join()
    return found


def main(count: int) -> None:
    """Run all, print the table."""
    slow = f"{SLOW_SHARE:.0%} of them at 1/100 of the speed"
    lines = []
    with tempfile.TemporaryDirectory() as base:
        plain = run(Path(base) / "plain", count, None)
        for what, found in (
            (f"{count} sites", plain),
            (f"{slow}, saying so", run(Path(base) / "said", count, "says so")),
            (f"{slow}, saying nothing", run(Path(base) / "silent", count, "says nothing")),
        ):
            figures = (f"{found.fast_s:.1f} s", f"{found.hub_mb:.0f} MB", f"{found.broker_mb:.0f} MB")
            lines.append(Line(what, figures, f"{found.broker_mb / plain.broker_mb:.1f}"))
    show("23 MB to sites of which some are slow", ("time of the fast ones", "hub, peak", "broker, peak"), lines)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
