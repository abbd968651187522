"""The hub's database replaced by an earlier copy while a site runs."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.chaos.conftest import World

    Until = Callable[..., Any]


def put_back(world: "World", copies: Path) -> None:
    """Kill the hub, and make its database what it was."""
    world.hub.kill()
    for file in world.hub.folder.glob("hub.db*"):
        file.unlink()
    for file in copies.iterdir():
        shutil.copy(file, world.hub.folder / file.name)
    world.hub.begin()


@pytest.mark.parametrize("world", ["mosquitto", pytest.param("amqtt", marks=pytest.mark.long)], indirect=True)
def test_a_hub_whose_database_is_an_earlier_one_gets_everything_back_once(
    world: "World", until: "Until", chance: random.Random, tmp_path: Path
) -> None:
    site = world.add(world.settings("plant-01"))
    site.begin()
    world.runs(site)

    def grows(count: int) -> int:
        """Wait for so many more records at the hub, and say how many there are."""
        wanted = world.hub.held("plant-01") + count
        until(lambda: world.hub.held("plant-01") >= wanted, "records at the hub")
        return world.hub.held("plant-01")

    warm = tmp_path / "warm"
    warm.mkdir()
    with (
        closing(sqlite3.connect(world.hub.database)) as running,
        closing(sqlite3.connect(warm / "hub.db")) as copy,
    ):
        running.backup(copy)
    grows(chance.randrange(200, 600))
    site.kill()  # a whole epoch, and the next one's beginning, are younger than the copy
    site.begin()
    world.runs(site)
    held = grows(chance.randrange(200, 600))
    put_back(world, warm)
    until(lambda: world.hub.held("plant-01") < held, "the older database")
    until(lambda: world.hub.held("plant-01") > held, "all that was there and more")
    world.runs(site)

    cold = tmp_path / "cold"
    cold.mkdir()
    world.hub.kill()
    for file in world.hub.folder.glob("hub.db*"):  # with the WAL that a killed hub leaves
        shutil.copy(file, cold / file.name)
    world.hub.begin()
    world.runs(site)
    held = grows(chance.randrange(200, 600))
    world.broker.kill()  # the site sees the restored hub only in a new session
    put_back(world, cold)
    world.broker.begin()
    until(lambda: world.hub.held("plant-01") > held, "all that was there and more")
    world.settle(site)
