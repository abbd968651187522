"""Deltas at the hub: made once a pair, in a process of their own, and kept as artifacts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from edge_hub.database.schema import deltas as table
from edge_hub.database.store import Store
from edge_hub.delivery.blobs import Blobs
from edge_hub.delivery.deltas import Deltas, for_pairs
from edge_models.delta import apply_delta
from edge_models.digests import Digest, digest_of
from edge_models.shipped import shipped_path
from edge_sync.release import Artifact

OLD, NEW = (shipped_path("appliance", version).read_bytes() for version in ("1", "2"))
PAIR = (str(digest_of(OLD)), str(digest_of(NEW)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "hub.db")
    yield made
    made.close()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    (tmp_path / "blobs").mkdir()
    made = Blobs(tmp_path / "blobs")
    for data in (OLD, NEW):
        incoming = made.receive(digest_of(data))
        incoming.feed(data)
        incoming.finish()
    return made


def test_a_delta_is_made_once_and_named_with_what_verifies_it(store: Store, blobs: Blobs) -> None:
    deltas = Deltas(store, blobs)
    deltas.ensure([PAIR, PAIR])
    with store.reading() as db:
        (named,) = for_pairs(db, [PAIR, (PAIR[1], PAIR[0])])
    assert (named.base, named.target) == PAIR
    made = blobs.path(named.digest).read_bytes()
    assert apply_delta(OLD, made, len(NEW), Digest(PAIR[1])) == NEW
    assert Artifact.model_validate(named.artifact).size == len(made) < len(NEW)
    blobs.path(named.digest).unlink()
    deltas.ensure([PAIR])
    assert not blobs.path(named.digest).exists(), "what was made is not made again"


def test_where_the_whole_is_no_dearer_that_is_remembered(store: Store, blobs: Blobs) -> None:
    other = bytes(range(256)) * 4
    incoming = blobs.receive(digest_of(other))
    incoming.feed(other)
    incoming.finish()
    pair = (PAIR[0], str(digest_of(other)))
    Deltas(store, blobs).ensure([pair])
    with store.reading() as db:
        held = db.execute(select(table)).all()
        assert [(row.base, row.target) for row in held] == [pair]
        assert len(for_pairs(db, [pair])) == (held[0].digest is not None)


def test_a_pair_that_is_not_here_is_left(store: Store, blobs: Blobs) -> None:
    Deltas(store, blobs).ensure([("sha256:" + "0" * 64, PAIR[1])])
    with store.reading() as db:
        assert db.execute(select(table)).all() == []
