"""Small hubs that enrol, closed at the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_hub import MakeHub, SmallHub


@pytest.fixture
def make_small_hub(tmp_path: Path) -> Iterator[MakeHub]:
    """Makes hubs that enrol; keyword arguments are their fields."""
    made: list[SmallHub] = []

    def make(**fields: object) -> SmallHub:
        made.append(SmallHub(tmp_path / f"small-hub-{len(made)}", **fields))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def small_hub(make_small_hub: MakeHub) -> SmallHub:
    """One of today."""
    return make_small_hub()
