"""A disk whose images can be kept, brought back, wiped and hurt. The files are real ones, in memory where possible."""

import os
import random
import shutil
import tempfile
from pathlib import Path

Image = dict[str, bytes]
"""File name → content."""


def scratch() -> Path:
    """A new folder, in memory where the machine has such a place: a run makes thousands of commits."""
    shm = Path("/dev/shm")
    base = shm if shm.is_dir() and os.access(shm, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="edge-sim-", dir=base))


class Disk:
    """One folder that holds one SQLite database and what belongs to it."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder, self._database = folder, database
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def path(self) -> Path:
        """The database."""
        return self.folder / self._database

    def image(self) -> Image:
        """What a crash now would leave: the database and its log, not the shared-memory index made from it."""
        return {
            entry.name: entry.read_bytes()
            for entry in sorted(self.folder.iterdir())
            if entry.is_file() and not entry.name.endswith("-shm")
        }

    def restore(self, image: Image) -> None:
        """Make the disk hold this and nothing else."""
        self.wipe()
        for name, content in image.items():
            (self.folder / name).write_bytes(content)

    def wipe(self) -> None:
        """An empty disk."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def used_bytes(self) -> int:
        """What the database, its log and its index take."""
        names = (self._database, f"{self._database}-wal", f"{self._database}-shm")
        return sum((self.folder / name).stat().st_size for name in names if (self.folder / name).exists())

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
