"""Two machines with one site's id: its data folder was copied, and both run."""

import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.chaos.conftest import World

    Until = Callable[..., Any]


def until_told(world: "World", until: "Until", true: Callable[[], Any], what: str) -> None:
    """amqtt may keep a connection that another took over: its process is told nothing until the broker ends, as here.

    Mosquitto ends the connection itself.
    """
    deadline = time.monotonic() + 45
    while world.broker.kind == "amqtt" and not true() and time.monotonic() < deadline:
        time.sleep(0.1)
    if world.broker.kind == "amqtt" and not true():
        world.broker.kill()
        world.broker.begin()
    until(true, what, 60)


@pytest.mark.timeout(360)
def test_two_processes_with_one_id_lose_and_double_nothing_and_the_hub_notes_it(world: "World", until: "Until") -> None:
    settings = world.settings("plant-01", rate_per_s=40)
    first = world.add(settings)
    first.begin()
    world.runs(first)
    other = world.add(settings, folder="other")
    shutil.copytree(first.data, other.data, ignore=shutil.ignore_patterns("memory.db*"))
    with (
        closing(sqlite3.connect(first.memory)) as running,
        closing(sqlite3.connect(other.memory)) as copy,
    ):
        running.backup(copy)
    other.begin()

    def theirs(site: Any) -> dict[Any, int]:
        """The streams that only this process writes, and up to where the hub has them."""
        own = site.lasts().keys() - (other if site is first else first).lasts().keys()
        return {stream: high for stream, high in world.hub.highs("plant-01").items() if stream in own}

    until(lambda: other.starts() > first.starts(), "the other to start")
    wait = partial(until_told, world, until)
    wait(lambda: sum(theirs(other).values()) > 100, "records of the other at the hub")
    noted = "SELECT key, times FROM incidents WHERE site='plant-01' AND what='two_processes'"
    wait(lambda: world.ask_hub(noted), "the incident to be noted")
    for each in (first, other):
        assert each.alive(), each.log()[-2000:]
    [(key, _), *more] = world.ask_hub(noted)
    assert more == []
    epochs = {epoch for site in (first, other) for epoch, _ in site.lasts()}
    assert set(key.split("+")) <= epochs
    first.kill()
    other.kill()
    world.settle(first, other)
