import os
import stat
from pathlib import Path

import pytest

from edge_hub.delivery import blobs
from edge_hub.delivery.blobs import Blobs
from edge_models.digests import digest_of
from edge_models.errors import RejectedError
from edge_sync.release import CHUNK_SIZE_BYTES, describe


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE_BYTES - 1, CHUNK_SIZE_BYTES, 3 * CHUNK_SIZE_BYTES + 5])
@pytest.mark.parametrize("step", [1000, CHUNK_SIZE_BYTES, 10 * CHUNK_SIZE_BYTES])
def test_what_comes_in_is_described_as_it_is(tmp_path: Path, size: int, step: int) -> None:
    data, held = os.urandom(size), Blobs(tmp_path)
    digest = digest_of(data)
    incoming = held.receive(digest)
    for start in range(0, size, step):
        incoming.feed(data[start : start + step])
    assert not held.has(digest)
    artifact = incoming.finish()
    incoming.drop()
    assert artifact == describe("", data)
    assert held.has(digest)
    assert b"".join(held.chunk(digest, i) for i in range(len(artifact.chunks))) == data
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_other_bytes_than_named_leave_nothing(tmp_path: Path) -> None:
    incoming = Blobs(tmp_path).receive(digest_of(b"these"))
    incoming.feed(b"those")
    with pytest.raises(RejectedError, match="another sha256"):
        incoming.finish()
    incoming.drop()
    assert list(tmp_path.iterdir()) == []


def test_too_much_is_refused_before_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "MAX_ARTIFACT_BYTES", 10)
    incoming = Blobs(tmp_path).receive(digest_of(b"x" * 11))
    incoming.feed(b"x" * 10)
    with pytest.raises(RejectedError, match="over 10 bytes"):
        incoming.feed(b"x")
    incoming.drop()


def test_what_a_killed_hub_left_is_cleared(tmp_path: Path) -> None:
    abandoned = Blobs(tmp_path).receive(digest_of(b"x"))
    abandoned.feed(b"half")
    assert len(list(tmp_path.iterdir())) == 1
    Blobs(tmp_path)
    assert list(tmp_path.iterdir()) == []
    abandoned.drop()
