"""A fence around a child process: folders it may not look into, though it runs as the same user. Linux's Landlock.

Landlock only allows: so everything is allowed that lies beside the way to what is hidden, as it is when the child
starts. Source: the kernel's Documentation/userspace-api/landlock.rst; numbers from linux/landlock.h.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_ALL = (1 << 13) - 1
"""All accesses that version 1 knows: also removing and making what there is in folders."""
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE


def has_fences() -> bool:
    """Whether this kernel can do it, and lets us."""
    return sys.platform == "linux" and _call(_CREATE_RULESET, None, 0, _VERSION) >= 1


@contextmanager
def fence(hidden: Collection[Path], shown: Collection[Path]) -> Iterator[Callable[[], None]]:
    """What a child that is started meanwhile does before it becomes the program: from then on `hidden` folders are
    closed to it, but for `shown` ones in them. Raises `OSError` where the kernel refuses.
    """
    closed = {path.resolve() for path in hidden}
    on_the_way = {parent for path in closed for parent in path.parents} - closed
    ruleset = _call(_CREATE_RULESET, struct.pack("=Q", _ALL), 8, 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "no fence can be made")
    libc = ctypes.CDLL(None, use_errno=True)  # before the fork: nothing is loaded between fork and exec

    def close_in() -> None:
        no_new = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if no_new != 0 or libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
            os._exit(1)

    try:
        for path in (*_beside(Path("/"), closed, on_the_way), *(each.resolve() for each in shown)):
            _allow(ruleset, path)
        yield close_in
    finally:
        os.close(ruleset)


def _beside(folder: Path, closed: set[Path], on_the_way: set[Path]) -> Iterator[Path]:
    """All that lies in `folder` and neither is closed nor leads there; of what leads there, the same inside it."""
    with suppress(PermissionError), os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            if path in on_the_way:
                yield from _beside(path, closed, on_the_way)
            elif path not in closed and not entry.is_symlink():
                yield path


def _allow(ruleset: int, path: Path) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # gone since it was listed
        return
    try:
        access = _ALL if path.is_dir() else _OF_FILES
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", access, fd), 0)
    finally:
        os.close(fd)


def _call(number: int, *arguments: int | bytes | None) -> int:
    return int(ctypes.CDLL(None, use_errno=True).syscall(number, *arguments))
