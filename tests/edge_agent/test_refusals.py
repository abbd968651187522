"""Refusals become records, and no flood of them."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_agent.memory.journal import Journal
from edge_agent.refusals import MAX_REASONS, MOST_S, SAY_AGAIN_S, Refusals

NOW_US = 1_800_000_000_000_000


class World:
    """A journal, and a clock that the test moves."""

    def __init__(self, path: Path) -> None:
        self.path, self.now_s = path, 0.0
        self.journal = Journal(path, 64, lambda: NOW_US, flushes=False)
        self.refusals = Refusals(self.journal, lambda: NOW_US, lambda: self.now_s)

    def recorded(self) -> list[dict[str, Any]]:
        self.journal.flush()
        with closing(sqlite3.connect(self.path)) as db:
            query = "SELECT body FROM journal WHERE lane='alarm' AND label='update_refused' ORDER BY id"
            return [json.loads(body) for (body,) in db.execute(query)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "memory.db")
    yield made
    made.journal.close()


def test_the_same_again_is_counted_and_told_with_the_next(world: World) -> None:
    for _ in range(5):
        world.refusals.add("it is not signed")
    world.refusals.add("it is too large")
    assert world.recorded() == [{"reason": "it is not signed"}, {"reason": "it is too large"}]
    world.now_s = SAY_AGAIN_S
    world.refusals.add("it is not signed")
    assert world.recorded()[2:] == [{"reason": "it is not signed", "times_before": 4}]


@pytest.mark.parametrize("every_s", [1, 120])
def test_what_goes_on_for_a_day_is_told_about_once_an_hour(world: World, every_s: int) -> None:
    for at_s in range(0, 86_400, every_s):
        world.now_s = at_s
        world.refusals.add("root is expired")
    told = world.recorded()
    assert 24 <= len(told) <= 86_400 / MOST_S + 6, "60 s, 2 min, 4 min, … until it is an hour"
    assert sum(each.get("times_before", 0) + 1 for each in told) + MOST_S / every_s >= 86_400 / every_s


def test_what_comes_back_after_it_was_over_is_told_as_soon_as_at_first(world: World) -> None:
    for at_s in (0, 60, 180, 10_000, 10_060):
        world.now_s = at_s
        world.refusals.add("root is expired")
    assert len(world.recorded()) == 5


def test_of_ever_new_reasons_only_so_many_are_told(world: World) -> None:
    for n in range(2 * MAX_REASONS):
        world.refusals.add(f"reason {n}")
    assert len(world.recorded()) == MAX_REASONS
    world.now_s = SAY_AGAIN_S
    world.refusals.add("another")
    assert world.recorded()[-1] == {"reason": "another"}
