"""What tests of updates share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from update_bench import Fixture


@pytest.fixture
def fx(tmp_path: Path) -> Iterator[Fixture]:
    made = Fixture(tmp_path)
    yield made
    made.service.close()
    made.journal.close()
    made.desk.close()
