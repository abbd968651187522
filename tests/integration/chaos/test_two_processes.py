"""Two machines with one site's id: its data folder was copied, and both run."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.chaos.conftest import World

    Until = Callable[..., Any]


@pytest.mark.timeout(600)
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
    # amqtt forgets one of the connections and leaves it open: that process hears of it when two pings went unanswered.
    until(lambda: sum(theirs(other).values()) > 100, "records of the other at the hub", 240)
    noted = "SELECT key, times FROM incidents WHERE site='plant-01' AND what='two_processes'"
    until(lambda: world.ask_hub(noted), "the incident to be noted", 240)
    for each in (first, other):
        assert each.alive(), each.log()[-2000:]
    [(key, _), *more] = world.ask_hub(noted)
    assert more == []
    epochs = {epoch for site in (first, other) for epoch, _ in site.lasts()}
    assert set(key.split("+")) <= epochs
    first.kill()
    other.kill()
    world.settle(first, other)
