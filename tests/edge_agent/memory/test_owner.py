"""A memory is one site's: another's is taken by nobody."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent.memory.checkpoint import Checkpointer
from edge_agent.memory.draft import Draft
from edge_agent.memory.journal import Journal
from edge_agent.memory.owner import owner, refuse_another
from edge_models.errors import ConfigError

NOW_US = 1_800_000_000_000_000


def live(data: Path, site: str, records: int = 3) -> None:
    """One start of a site's process in this folder, which signs at its start and at its end."""
    journal = Journal(data / "memory.db", 64, lambda: NOW_US)
    checkpointer = Checkpointer(journal, site, data / "journal.key", lambda: NOW_US)
    checkpointer.tick(0.0)
    journal.write([Draft("decision", "decision", "press", NOW_US, "{}") for _ in range(records)])
    checkpointer.note(1.0)
    journal.close()


def test_a_memory_says_whose_it_is(tmp_path: Path) -> None:
    assert owner(tmp_path / "memory.db") is None
    refuse_another(tmp_path, "plant-01")
    assert list(tmp_path.iterdir()) == [], "nothing was made"
    live(tmp_path, "plant-01")
    assert owner(tmp_path / "memory.db") == "plant-01"
    refuse_another(tmp_path, "plant-01")
    with pytest.raises(ConfigError, match=r"is of site plant-01, and this is plant-02: name another folder"):
        refuse_another(tmp_path, "plant-02")


def test_an_epoch_whose_checkpoints_are_gone_or_not_yet_written_hides_nobody(tmp_path: Path) -> None:
    live(tmp_path, "plant-01")
    live(tmp_path, "plant-01")
    Journal(tmp_path / "memory.db", 64, lambda: NOW_US).close()
    with closing(sqlite3.connect(tmp_path / "memory.db")) as db:
        db.execute("DELETE FROM journal WHERE seq<3 AND lane='decision'")
        db.commit()
    assert owner(tmp_path / "memory.db") == "plant-01"


@pytest.mark.parametrize("content", [b"", b"no database at all", bytes(100_000)])
def test_what_can_not_be_read_is_left_to_who_mends_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "memory.db").write_bytes(content)
    refuse_another(tmp_path, "plant-01")
    assert (tmp_path / "memory.db").read_bytes() == content
