"""kill -9 of site, hub and broker at random moments, again and again."""

import random
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.chaos.conftest import Broker, Process, World

CI_ROUNDS, LONG_ROUNDS = 5, 50


def kill_rounds(world: "World", chance: random.Random, rounds: int) -> None:
    """Each round kills all three, in any order, and begins them again, some at once and some later, some twice."""
    site = world.add(world.settings("plant-01"))
    site.begin()
    world.runs(site)
    parts: list[Process | Broker] = [site, world.hub, world.broker]
    for number in range(rounds):
        print(f"round {number + 1}")
        down: list[Process | Broker] = []
        for victim in chance.sample(parts, len(parts)):
            time.sleep(chance.uniform(0.0, 1.2))  # the moment is the fault
            victim.kill()
            print("killed", victim.name)
            if chance.random() < 0.5:
                victim.begin()
            else:
                down.append(victim)
        for victim in down:
            victim.begin()
            if chance.random() < 0.4:
                time.sleep(chance.uniform(0.0, 1.5))
                victim.kill()
                print("killed", victim.name, "while it started")
                victim.begin()
        world.runs(site)
    world.settle(site)


def test_kill_9_of_site_hub_and_broker_at_random_moments_loses_and_doubles_nothing(
    world: "World", chance: random.Random
) -> None:
    kill_rounds(world, chance, CI_ROUNDS)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_fifty_rounds_of_kill_9_lose_and_double_nothing(world: "World", chance: random.Random) -> None:
    kill_rounds(world, chance, LONG_ROUNDS)
