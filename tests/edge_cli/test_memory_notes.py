"""`edge-agent memory add|search|forget`: what they print, and how they say no."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_agent.memory.notes import Embedder, Notes
from edge_models.digests import Digest
from edge_models.shipped import shipped_path


def edge_agent(*words: object, code: int = 0) -> tuple[str, str]:
    command = [sys.executable, "-m", "edge_cli.main", "memory", *map(str, words)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site with two notes."""
    path = tmp_path / "site.yaml"
    path.write_text("site: dock-3\ndata: data\n")
    notes = Notes(tmp_path / "data" / "notes.db")
    one = Embedder(Digest("sha256:" + "1" * 64), lambda text: np.array([1, 0], dtype=np.float32))
    notes.add("pump 7 drips", 1_000_000, one)
    notes.add("belt slips [in summer]", 2_000_000, one)
    notes.close()
    return path


def test_the_newest_are_shown_without_a_model(site: Path) -> None:
    out, _ = edge_agent("search", "-m", site, "--json")
    told = json.loads(out)["notes"]
    assert [(each["id"], each["text"]) for each in told] == [(2, "belt slips [in summer]"), (1, "pump 7 drips")]
    out, _ = edge_agent("search", "-m", site.parent / "data" / "memory.db", "-k", 1)
    assert "belt slips [in summer]" in out
    assert "pump" not in out


def test_a_note_is_forgotten(site: Path) -> None:
    assert json.loads(edge_agent("forget", 1, "-m", site, "--json")[0]) == {"forgotten": 1}
    assert edge_agent("forget", 1, "-m", site, code=3)[1] == "error: there is no note 1\n"


def test_without_a_model_that_fits_nothing_is_added(site: Path) -> None:
    assert "this site has no model for notes yet" in edge_agent("add", "oil", "-m", site, code=2)[1]
    assert "this site has no model for notes yet" in edge_agent("search", "oil", "-m", site, code=2)[1]
    said = edge_agent("add", "oil", "-m", site, "--model", shipped_path("trace", "2"), code=3)[1]
    assert "a model for classification: notes need one that makes vectors of texts" in said
    assert len(said.splitlines()) == 1
    assert len(json.loads(edge_agent("search", "-m", site, "--json")[0])["notes"]) == 2
