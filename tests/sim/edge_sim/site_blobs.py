"""A site's artifacts on a disk that keeps its word, and no more: what was not synced is gone after a power cut."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.update.blobs import BlobStore
from edge_sim.pool import pool
from edge_sync.chunks import Keep
from edge_sync.release import CHUNK_SIZE_BYTES, Artifact

if TYPE_CHECKING:
    from edge_sim.site_updates import SiteSide

ROOM_BYTES = 8 * 1024**3


class SimBlobStore(BlobStore):
    """Production's, with its host asked wherever a write begins or has happened."""

    def __init__(self, host: "SiteSide", folder: Path) -> None:
        super().__init__(folder)
        self._host = host
        self._unsynced: set[int] = set()
        """Files (inodes) that were written since they were synced last."""
        self._renamed: list[tuple[Path, Path]] = []
        """Since the folder was synced last."""

    def free_bytes(self) -> int:
        return 0 if self._host.full else ROOM_BYTES

    def held_chunks(self, digest: str, artifact: Artifact) -> list[int]:
        held = super().held_chunks(digest, artifact)
        for index in held:
            if not self.right(digest, index):
                self._host.wrong(f"believes that chunk {index} of {digest[:19]} is there, and it is not")
        return held

    def keep(self, chunk: Keep) -> None:
        self._host.boundary("keep")
        if self._host.full:
            raise OSError(28, "No space left on device")
        signed = chunks_of(chunk.digest)
        by_chunk = len(chunk.data) <= CHUNK_SIZE_BYTES and chunk.index < len(signed)
        if by_chunk and hashlib.sha256(chunk.data).hexdigest() != signed[chunk.index]:
            self._host.wrong(f"keeps other bytes as chunk {chunk.index} of {chunk.digest[:19]} than were signed")
        if by_chunk and (chunk.digest, chunk.index) in self._host.seen.kept:
            self._host.wrong(f"fetched chunk {chunk.index} of {chunk.digest[:19]} twice")
        super().keep(chunk)
        self._unsynced.add(self._part(chunk.digest).stat().st_ino)
        if by_chunk:
            self._host.seen.kept.add((chunk.digest, chunk.index))
        self._host.boundary("kept")

    def keep_only(self, digests: Collection[str]) -> None:
        self._host.boundary("delete")
        super().keep_only(digests)
        self._host.seen.kept = {chunk for chunk in self._host.seen.kept if chunk[0] in digests}
        self._host.boundary("deleted")

    def _finish(self, part: Path, digest: str) -> None:
        with watched(self._synced, self._rename):
            super()._finish(part, digest)
        self._host.boundary("finished")

    def _synced(self, fd: int) -> None:
        """A file, or the folder, is about to be synced, and then is."""
        self._host.boundary("sync")
        status = os.fstat(fd)
        self._unsynced.discard(status.st_ino)
        if status.st_ino == self._folder.stat().st_ino:
            self._renamed.clear()
        self._host.boundary("synced")

    def _rename(self, old: Path, new: Path) -> None:
        self._renamed.append((old, new))

    def power_cut(self) -> None:
        """What was only promised to be written is not: zeros stand where the bytes were, and names are as they were."""
        for old, new in reversed(self._renamed):
            if new.exists() and self._host.world.rng.random() < 0.5:
                new.rename(old)
        for path in self._folder.iterdir():
            if path.stat().st_ino in self._unsynced:
                path.write_bytes(bytes(path.stat().st_size))
        self._unsynced.clear()
        self._renamed.clear()
        self._host.seen.kept.clear()

    def right(self, digest: str, index: int) -> bool:
        """Whether the disk holds this chunk as it was signed, whole or arriving."""
        path = self._whole(digest) if self.has(digest) else self._part(digest)
        if not path.exists():
            return False
        with path.open("rb") as file:
            file.seek(index * CHUNK_SIZE_BYTES)
            signed = chunks_of(digest)
            return index < len(signed) and hashlib.sha256(file.read(CHUNK_SIZE_BYTES)).hexdigest() == signed[index]


@contextlib.contextmanager
def watched(synced: Callable[[int], None], renamed: Callable[[Path, Path], None]) -> Iterator[None]:
    """While it lasts, `synced` is told of each file that is synced, before, and `renamed` of each that was renamed."""
    fsync, rename = os.fsync, Path.rename

    def sync(fd: int) -> None:
        fsync(fd)
        synced(fd)

    def move(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        renamed(self, Path(target))
        return moved

    os.fsync, Path.rename = sync, move  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        os.fsync, Path.rename = fsync, rename  # type: ignore[method-assign]


_chunks: dict[str, list[str]] = {}


def chunks_of(digest: str) -> list[str]:
    """The sha256 of each chunk of an artifact that some hub has; empty where none has."""
    if digest not in _chunks:
        path = pool().blobs / digest.removeprefix("sha256:")
        data = path.read_bytes() if path.exists() else b""
        starts = range(0, len(data), CHUNK_SIZE_BYTES)
        _chunks[digest] = [hashlib.sha256(data[at : at + CHUNK_SIZE_BYTES]).hexdigest() for at in starts]
    return _chunks[digest]
