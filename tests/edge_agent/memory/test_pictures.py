"""edge_agent/MEMORY.md, Days and erasing: of a picture its name, size and sha256 are recorded, never what it shows."""

import hashlib
import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_agent.actor import Actor
from edge_agent.brain import Brain
from edge_agent.config import Site, SiteConfig
from edge_agent.inference.model import Model
from edge_agent.inference.registry import Models
from edge_agent.loop import Loop
from edge_agent.memory.journal import Journal
from edge_agent.memory.queries import newest
from edge_agent.memory.schema import reading
from edge_agent.policy import load_policy
from edge_agent.recent import Recent
from edge_agent.sources.base import SourceContext
from edge_agent.sources.folder import FolderSource
from edge_models.bundle import Bundle
from edge_sync.release import AgentSpec

POLICY = b'{"policy": "p", "version": 1, "rules": [{"name": "wait", "when": "prediction.score >= 0.0"}]}'


def now_us() -> int:
    return time.time_ns() // 1000


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    made = tmp_path / "inbox"
    made.mkdir()
    return made


@pytest.fixture
def source(inbox: Path, tmp_path: Path) -> Any:
    site = Site(SiteConfig(site="plant-01"), tmp_path, tmp_path / "data")
    context = SourceContext("plant-01", "lamp", tmp_path, tmp_path / "data", site.endpoint, now_us)
    made = FolderSource({"path": "inbox", "pattern": "*", "take": "image", "after": "delete"}, context)
    made.start()
    yield made
    made.close()


def drop(inbox: Path, name: str, data: bytes) -> None:
    (inbox / f".{name}").write_bytes(data)
    os.rename(inbox / f".{name}", inbox / name)


def test_a_picture_is_recorded_without_what_it_shows(
    journal: Journal, source: FolderSource, inbox: Path, picture_bundle: Bundle
) -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (16, 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "BMP")
    whole = buffer.getvalue()
    drop(inbox, "face.bmp", whole)
    drop(inbox, "hurt.bmp", whole[:200])

    spec = AgentSpec.model_validate(
        {"name": "lamp", "bundle": "b", "policy": "p", "source": {"kind": "folder"}, "inputs": {"photo": "image"}}
    )
    brain = Brain(spec, 1, Model(picture_bundle), load_policy(POLICY))
    actor = Actor(journal, {}, frozenset(), now_us)
    loop = Loop(journal, actor, Models(), {"id": "plant-01"}, dict, now_us, time.monotonic)
    deadline = time.monotonic() + 20
    taken = 0
    while taken < 2:
        assert time.monotonic() < deadline
        taken += loop.step(brain, source, Recent(), 0.5)
    journal.flush()

    with reading(journal.path) as db:
        held = [record for _, record in newest(db, 100)]
    [seen] = [record for record in held if record.kind == "observation"]
    assert seen.body["_file"] == "face.bmp"
    assert seen.body["_size_bytes"] == len(whole)
    assert seen.body["_sha256"] == hashlib.sha256(whole).hexdigest()
    [hurt] = [record for record in held if record.kind == "event"]
    assert (hurt.body["excerpt"], "hurt.bmp" in str(hurt.body["malformed"])) == ("", True)
    assert [record.kind for record in held].count("decision") == 1
    on_disk = b"".join(path.read_bytes() for path in journal.path.parent.glob("memory.db*"))
    for at in range(0, len(whole) - 12, 12):
        assert whole[at : at + 12] not in on_disk or whole[at : at + 12] == bytes(12)
