"""Artifacts on the site's disk: whole ones by digest, and those still arriving, chunk by chunk."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from edge_models.digests import Digest
from edge_models.durable import sync
from edge_models.errors import RejectedError
from edge_sync.chunks import Keep
from edge_sync.release import CHUNK_SIZE_BYTES, Artifact


class DamagedError(RejectedError):
    """An artifact that was here can't be used; it has to be fetched anew."""

    def __init__(self, digest: str, reason: str) -> None:
        super().__init__(f"artifact {digest}: {reason}")
        self.digest = digest


class BlobStore:
    """A folder of artifacts. A whole one is named by its digest; one that arrives ends in ``.part``."""

    def __init__(self, folder: Path) -> None:
        """Make the folder if it is missing."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder

    def has(self, digest: str) -> bool:
        """Whether the artifact is here, whole."""
        return self._whole(digest).exists()

    def digests(self) -> set[str]:
        """Every whole artifact."""
        return {f"sha256:{path.name}" for path in self._folder.iterdir() if len(path.name) == 64}

    def read(self, digest: str) -> bytes:
        """The artifact's bytes, verified. Raises `DamagedError` where the disk changed them; they are then gone."""
        try:
            data = self._whole(digest).read_bytes()
        except FileNotFoundError:
            raise DamagedError(digest, "it is not here") from None
        if hashlib.sha256(data).hexdigest() != digest.removeprefix("sha256:"):
            self._whole(digest).unlink()
            raise DamagedError(digest, "the disk gave other bytes back")
        return data

    def put(self, digest: Digest, data: bytes) -> None:
        """Keep an artifact that is here as a whole already."""
        if not self.has(digest):
            self._part(digest).unlink(missing_ok=True)
            self.keep(Keep(digest, 0, 0, data))
            self._finish(self._part(digest), digest)

    def free_bytes(self) -> int:
        """What the disk has room for."""
        return shutil.disk_usage(self._folder).free

    def take_in(self, digest: str, source: Path) -> None:
        """Keep a file that lies on the same disk, under its digest. Raises `RejectedError` where it is not that."""
        if self.has(digest):
            return
        part = self._part(digest)
        source.replace(part)
        self.finish(digest)

    def held_chunks(self, digest: str, artifact: Artifact) -> list[int]:
        """The chunks of an arriving artifact that are on disk and right: found by hashing, so nothing can lie."""
        part = self._part(digest)
        if not part.exists():
            return []
        held = []
        with part.open("rb") as file:
            for index, expected in enumerate(artifact.chunks):
                if hashlib.sha256(file.read(CHUNK_SIZE_BYTES)).hexdigest() == expected:
                    held.append(index)
        return held

    def keep(self, chunk: Keep) -> None:
        """Write a verified chunk at its place."""
        fd = os.open(self._part(chunk.digest), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            rest, at = memoryview(chunk.data), chunk.offset
            while rest:
                written = os.pwrite(fd, rest, at)
                rest, at = rest[written:], at + written
        finally:
            os.close(fd)

    def finish(self, digest: str) -> None:
        """All chunks came: verify the whole and give it its name. Raises `RejectedError`; the parts are then gone."""
        part = self._part(digest)
        with part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest.removeprefix("sha256:"):
            part.unlink()
            raise RejectedError(f"artifact {digest}: its chunks make other bytes ({found[:12]}…)")
        self._finish(part, digest)

    def keep_only(self, digests: Collection[str]) -> None:
        """Delete every artifact, whole or arriving, that is not one of these."""
        names = {digest.removeprefix("sha256:") for digest in digests}
        for path in self._folder.iterdir():
            if path.name.removesuffix(".part") not in names:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()

    def _finish(self, part: Path, digest: str) -> None:
        sync(part)
        part.rename(self._whole(digest))
        sync(self._folder)

    def _whole(self, digest: str) -> Path:
        return self._folder / digest.removeprefix("sha256:")

    def _part(self, digest: str) -> Path:
        return self._folder / f"{digest.removeprefix('sha256:')}.part"
