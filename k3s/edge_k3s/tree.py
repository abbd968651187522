"""Files on their way to a folder: whole and durable at the end, or not there."""

import ctypes
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edge_k3s.spec import Cargo
from edge_models.durable import sync, sync_tree
from edge_models.errors import ConfigError

_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class File:
    """A small file."""

    data: bytes = field(repr=False)
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Made:
    """A file that is too large to be held: whoever makes it writes it where it is told."""

    write: Callable[[Path], None]
    mode: int = 0o644


Tree = Mapping[str, File | Cargo | Made]
"""Path → what is there."""


def check_out(out: Path, called: str | None = None) -> None:
    """Raises `ConfigError` where nothing can be put at `out`: something is there, or nobody may write there.

    `called`: what a person calls it, by default a kit of this name.
    """
    called = called or f"kit {out}"
    try:
        taken = out.is_symlink() or (any(out.iterdir()) if out.is_dir() else out.exists())
    except OSError as error:
        raise ConfigError(f"{called}: {error.strerror}") from None
    if taken:
        raise ConfigError(f"{called}: something is there already: name a new folder or remove it first")
    above = out.absolute().parent
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        raise ConfigError(f"{called}: {_short(above)} is no folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"{called}: nothing may be written in {_short(above)}")


def size_of(tree: Tree) -> int:
    """Bytes of all files but those that are made."""
    small = sum(len(each.data) for each in tree.values() if isinstance(each, File))
    return small + sum(each.size_bytes for each in tree.values() if isinstance(each, Cargo))


@contextmanager
def becoming(out: Path, many: bool = False, called: str | None = None) -> Iterator[Path]:
    """A new folder to write into, which takes the name `out` when the block ends, durable; nothing if it fails.

    `called`: as for `check_out`. `many`: thousands of files, which one sync of the file system makes durable faster
    than one of each. Raises `ConfigError` for what the disk refuses.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
        try:
            yield part
            if many:
                _sync_file_system(part)
            else:
                sync_tree(part)
            part.chmod(0o755)
            part.rename(out)
            sync(out.parent)
        finally:
            # After the rename there is nothing of this name.
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise ConfigError(f"{called or f'kit {out}'}: {error.strerror}") from None


def write_tree(tree: Tree, folder: Path, stock: Path | None = None) -> None:
    """Write all files below `folder`, which exists. Modes are set whatever the umask; folders that hold a secret's
    folder are 0700, others 0755.

    `stock`: a folder on the same file system with the cargo by its name: it is linked from there, not copied.
    Raises `OSError`; `ConfigError` where cargo is not the bytes that were measured.
    """
    made: set[Path] = set()
    for path, each in tree.items():
        target = folder / path
        for parent in reversed(target.relative_to(folder).parents[:-1]):
            if folder / parent not in made:
                (folder / parent).mkdir(mode=0o700)
                made.add(folder / parent)
        if isinstance(each, File):
            _write(target, each)
        elif isinstance(each, Made):
            each.write(target)
            target.chmod(each.mode)
        elif stock is not None:
            os.link(stock / each.name, target)
        else:
            copy_cargo(each, target)
    for each_folder in made:
        if each_folder.name != "secrets":
            each_folder.chmod(0o755)


def copy_cargo(cargo: Cargo, target: Path) -> None:
    """Copy it. Raises `OSError`, and `ConfigError` where the bytes are no longer those that were measured."""
    digest = hashlib.sha256()
    with cargo.source.open("rb") as source, target.open("xb") as copy:
        while piece := source.read(_PIECE_BYTES):
            digest.update(piece)
            copy.write(piece)
        os.fchmod(copy.fileno(), cargo.mode)
    if digest.hexdigest() != cargo.sha256:
        raise ConfigError(f"{cargo.source}: changed while the kit was made: begin again")


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _write(target: Path, file: File) -> None:
    with open(target, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
        stream.write(file.data)
        os.fchmod(stream.fileno(), file.mode)


def _sync_file_system(folder: Path) -> None:
    """Linux's syncfs(2), which Python does not have; elsewhere everything is synced."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)
