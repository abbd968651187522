"""A disk whose images can be kept, brought back, wiped and hurt. The files are real ones, in memory where possible."""

import os
import random
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

Image = dict[str, bytes]
"""Path in the folder → content."""


def scratch() -> Path:
    """A new folder, in memory where the machine has such a place: a run makes thousands of commits."""
    shm = Path("/dev/shm")
    base = shm if shm.is_dir() and os.access(shm, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="edge-sim-", dir=base))


class Disk:
    """One folder that holds a SQLite database and what belongs to it."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder, self._database = folder, database
        self._counted = [f"{folder}/{database}{end}" for end in ("", "-wal", "-shm")]
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def path(self) -> Path:
        """The database."""
        return self.folder / self._database

    def image(self, whole: bool = True) -> Image:
        """What a crash now would leave: everything but the shared-memory index that is made from the database.

        Not `whole`: only the database and what lies beside it.
        """
        entries = self.folder.rglob("*") if whole else self.folder.iterdir()
        return {
            str(entry.relative_to(self.folder)): entry.read_bytes()
            for entry in sorted(entries)
            if entry.is_file() and not entry.name.endswith("-shm")
        }

    def restore(self, image: Image, whole: bool = True) -> None:
        """Make the disk hold this and nothing else; not `whole`: its folders stay as they are."""
        if whole:
            self.wipe()
        else:
            for entry in self.folder.iterdir():
                if entry.is_file():
                    entry.unlink()
        for name, content in image.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def wipe(self) -> None:
        """An empty disk."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def remove(self) -> None:
        """No disk any more, nor the folder it lay in."""
        shutil.rmtree(self.folder.parent)

    def used_bytes(self) -> int:
        """What the database, its log and its index take."""
        used = 0
        for name in self._counted:
            with suppress(FileNotFoundError):
                used += os.stat(name).st_size
        return used

    def flip(self, rng: random.Random) -> str:
        """Flip one bit anywhere in the database or its log; says where."""
        files = [
            f for f in (self.path, self.path.with_name(f"{self._database}-wal")) if f.exists() and f.stat().st_size
        ]
        if not files:
            return "nothing there"
        file = rng.choice(files)
        content = bytearray(file.read_bytes())
        at, bit = rng.randrange(len(content)), rng.randrange(8)
        content[at] ^= 1 << bit
        file.write_bytes(bytes(content))
        return f"{file.name} byte {at} bit {bit}"
