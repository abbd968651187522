"""Artifacts on disk, each under the sha256 of its bytes."""

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path

from edge_models.durable import sync
from edge_models.errors import RejectedError, RetryableError
from edge_sync.release import CHUNK_SIZE_BYTES, MAX_ARTIFACT_BYTES, Artifact


class Blobs:
    """A folder of artifacts; whatever is there under its name is whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for left in folder.glob(".incoming-*"):
            left.unlink()

    def has(self, digest: str) -> bool:
        """Whether the artifact is here."""
        return self.path(digest).is_file()

    def chunk(self, digest: str, index: int) -> bytes:
        """The bytes of one chunk. Raises `OSError` where they can't be read."""
        with self.path(digest).open("rb") as file:
            file.seek(index * CHUNK_SIZE_BYTES)
            return file.read(CHUNK_SIZE_BYTES)

    def receive(self, digest: str) -> "Incoming":
        """Begin to take in an artifact; feed it, then finish or drop it."""
        return Incoming(self._folder, self.path(digest), digest)

    def path(self, digest: str) -> Path:
        """Where the artifact lies, or would."""
        return self._folder / digest.removeprefix("sha256:")


class Incoming:
    """An artifact on its way in, in a file of its own until it is whole."""

    def __init__(self, folder: Path, path: Path, digest: str) -> None:
        self._path, self._digest = path, digest
        self._temporary = folder / f".incoming-{secrets.token_hex(8)}"
        self._file = os.fdopen(os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._whole, self._chunk, self._chunks = hashlib.sha256(), hashlib.sha256(), list[str]()
        self._size = 0

    def feed(self, data: bytes) -> None:
        """The next bytes. Raises `RejectedError` beyond the largest artifact, `RetryableError` on a full disk."""
        if self._size + len(data) > MAX_ARTIFACT_BYTES:
            raise RejectedError(f"artifact {self._digest[:19]}: over {MAX_ARTIFACT_BYTES} bytes")
        try:
            self._file.write(data)
        except OSError as error:
            raise RetryableError(f"artifact {self._digest[:19]}: {error.strerror}") from None
        self._whole.update(data)
        view = memoryview(data)
        while view:
            room = CHUNK_SIZE_BYTES - self._size % CHUNK_SIZE_BYTES
            part, view = view[:room], view[room:]
            self._chunk.update(part)
            self._size += len(part)
            if self._size % CHUNK_SIZE_BYTES == 0:
                self._end_chunk()

    def finish(self) -> Artifact:
        """That was all: keep it. Raises `RejectedError` where it is not what its digest names."""
        if self._size % CHUNK_SIZE_BYTES:
            self._end_chunk()
        if self._whole.hexdigest() != self._digest.removeprefix("sha256:"):
            raise RejectedError(f"artifact {self._digest[:19]}: the bytes that came have another sha256")
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(self._path)
            sync(self._path.parent)
        except OSError as error:
            raise RetryableError(f"artifact {self._digest[:19]}: {error.strerror}") from None
        return Artifact(name="", size=self._size, chunks=self._chunks)

    def drop(self) -> None:
        """Forget what is not finished; nothing happens where it is."""
        with suppress(OSError):  # what could not be flushed to a full disk is dropped as well
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _end_chunk(self) -> None:
        self._chunks.append(self._chunk.hexdigest())
        self._chunk = hashlib.sha256()
