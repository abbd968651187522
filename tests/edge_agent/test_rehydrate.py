"""edge_agent/MEMORY.md, A lost memory: what must not happen where it does not come back."""

import socket
import sqlite3
from pathlib import Path

import pytest
import yaml
from operator_desk import Desk

from edge_agent.config import load_site
from edge_agent.rehydrate import StoppedError, apply, rehydrate
from edge_sync.documents import KnownFact, Memory
from edge_sync.rehydration import Returned
from edge_sync.trust.client import Trusted


def test_a_site_that_is_stopped_while_it_asks_makes_no_memory(tmp_path: Path) -> None:
    """With one, its next start would not ask: what the hub holds would never come back."""
    desk = Desk(tmp_path / "desk")
    desk.close()
    (tmp_path / "root.json").write_bytes(desk.root)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        url = f"mqtt://127.0.0.1:{silent.getsockname()[1]}"
        what = {"site": "plant-01", "data": "data", "hub": {"broker": url, "root": "root.json"}}
        file = tmp_path / "site.yaml"
        file.write_text(yaml.safe_dump(what))
        site = load_site(file)
        trusted = Trusted(tmp_path / "trust", site.trust_root(), lambda: 1)
        with pytest.raises(StoppedError):
            rehydrate(site, trusted, lambda: 1, lambda: True)
    assert not (tmp_path / "data").exists()


def test_a_failure_while_writing_leaves_no_half_file(tmp_path: Path) -> None:
    fact = KnownFact(key="seen", value=1, origin="0123456789abcdef:decision:1", expires_at=None)
    memory = Memory(site="plant-01", sync="s", order=3, facts=[fact, fact], left_out=0, batches=[])
    with pytest.raises(sqlite3.IntegrityError):
        apply(tmp_path / "memory.db", Returned(memory, ()), 16, 1)
    assert list(tmp_path.iterdir()) == []
