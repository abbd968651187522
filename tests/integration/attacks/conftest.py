"""Fleets of one broker each, for who owns that broker."""

from collections.abc import Callable, Iterator
from typing import Any

import needed
import pytest
from attacker import Ground

NewGround = Callable[..., Ground]


def _kind(request: pytest.FixtureRequest) -> Any:
    if request.param == "mosquitto":
        needed.mosquitto()
    return request.param


@pytest.fixture(params=["mosquitto", pytest.param("amqtt", marks=pytest.mark.long)], scope="module")
def kind(request: pytest.FixtureRequest) -> Any:
    """Each kind of broker that can run here."""
    return _kind(request)


@pytest.fixture(params=["mosquitto"], scope="module")
def mosquitto(request: pytest.FixtureRequest) -> Any:
    """The kind of broker whose rules hold against its users."""
    return _kind(request)


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewGround]:
    """Makes fleets that last as long as the module."""
    made: list[Ground] = []

    def make(kind: Any = None, **named: Any) -> Ground:
        made.append(Ground(tmp_path_factory.mktemp("ground"), kind, **named))
        return made[-1]

    yield make
    for ground in made:
        ground.close()


@pytest.fixture
def new_ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewGround]:
    """Makes fleets that last as long as the test."""
    made: list[Ground] = []

    def make(kind: Any = None, **named: Any) -> Ground:
        made.append(Ground(tmp_path_factory.mktemp("ground"), kind, **named))
        return made[-1]

    yield make
    for ground in made:
        ground.close()
