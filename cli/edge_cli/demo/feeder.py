"""The demo's machines: a process that replays held-out samples as sensor messages on each site's local topics.

``python -m edge_cli.demo.feeder CONFIG`` until SIGTERM; prints how many messages each topic got.
"""

import json
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from edge_models.bundle import read_bundle
from edge_sync.mqtt import Broker, Down, Event, Link, Up


class Stream(BaseModel):
    """One machine's messages: golden samples of a bundle, in an order drawn once, over and over."""

    topic: str
    bundle: Path
    machines: list[str]
    rate_per_s: float
    start_at: int = 0
    """Which sample comes first, so that two sites do not show the same thing."""


class FeederConfig(BaseModel):
    """What to publish, and where."""

    broker: str
    username: str
    password_file: Path
    streams: list[Stream]


@dataclass(slots=True)
class _Playing:
    stream: Stream
    samples: list[dict[str, Any]]
    due_s: float
    sent: int = 0


def main() -> None:
    """Publish until SIGTERM."""
    config = FeederConfig.model_validate_json(Path(sys.argv[1]).read_bytes())
    stop = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    up = threading.Event()

    def heard(event: Event) -> None:
        if isinstance(event, Up):
            up.set()
        elif isinstance(event, Down):
            print(f"feeder: {event.reason}", file=sys.stderr, flush=True)

    broker = Broker(config.broker, config.username, config.username, config.password_file, reconnect_max_s=2)
    link = Link(broker, heard)
    link.start()
    up.wait(15)
    started = time.monotonic()
    playing = [_Playing(stream, _samples(stream), started) for stream in config.streams]
    while not stop.is_set():
        _play(playing, link)
        stop.wait(max(0.0, min(each.due_s for each in playing) - time.monotonic()))
    link.close()
    print(json.dumps({each.stream.topic: each.sent for each in playing}), flush=True)


def _play(playing: list[_Playing], link: Link) -> None:
    """Publish what is due."""
    for each in playing:
        while each.due_s <= time.monotonic():
            each.due_s += 1 / each.stream.rate_per_s
            sample = each.samples[(each.stream.start_at + each.sent) % len(each.samples)]
            machine = each.stream.machines[each.sent % len(each.stream.machines)]
            message = {"machine": machine, **sample}
            if link.publish(each.stream.topic, json.dumps(message, separators=(",", ":")).encode()):
                each.sent += 1


def _samples(stream: Stream) -> list[dict[str, Any]]:
    """The bundle's golden inputs as messages; the same order at every run."""
    golden = read_bundle(stream.bundle).golden
    samples = []
    for index in range(len(golden.truth)):
        values = {name: _rounded(array[index].tolist()) for name, array in golden.inputs.items()}
        samples.append(values)
    random.Random(stream.topic.rsplit("/", 1)[-1]).shuffle(samples)  # noqa: S311 - an order, no secret
    return samples


def _rounded(value: Any) -> Any:
    """Six significant digits: what a sensor gives, and far finer than int8."""
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.6g}")


if __name__ == "__main__":
    main()
