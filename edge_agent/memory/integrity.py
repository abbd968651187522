"""Looks through a memory after an unclean stop, in a process of its own: the site decides meanwhile.

`python -m edge_agent.memory.integrity MEMORY` says what is damaged, a line each, and exits with `DAMAGED`; it reads in
slices, at the lowest priority. A thread would take turns with the agents; a process costs the first decision nothing.
With `--with-stdin` it ends when its standard input does: so does its site's, however it was killed.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from edge_agent.memory.schema import open_as_it_is
from edge_agent.memory.verify import damage

log = logging.getLogger(__name__)

DAMAGED = 3
"""Exit code where something was found."""

AFTER_S = 5.0
"""After the start: the first decision is made by then."""

_TOLD = 5

_WITH_STDIN = "--with-stdin"
_ORPHANED = 4


class IntegrityCheck:
    """One look through the memory at `path`, if its last process did not close it. Without a thread of its own."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Before the memory is opened: a WAL that is not empty tells of the unclean stop."""
        wal = path.with_name(f"{path.name}-wal")
        self.needed = wal.exists() and wal.stat().st_size > 0
        self._path, self._clock = path, clock
        self._from = clock() + AFTER_S
        self._child: subprocess.Popen[bytes] | None = None

    def poll(self) -> str | None:
        """What is damaged, once it was found; called again and again, it begins, and looks for the end."""
        if not self.needed:
            return None
        if self._child is None:
            if self._clock() >= self._from:
                command = [sys.executable, "-m", "edge_agent.memory.integrity", str(self._path), _WITH_STDIN]
                try:
                    self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                except OSError as error:  # no memory for a process: the site works without
                    log.warning("memory_not_looked_through", extra={"reason": str(error)})
                    self.needed = False
            return None
        if self._child.poll() is None:
            return None
        child, self._child, self.needed = self._child, None, False
        said = child.communicate()[0].decode(errors="replace").strip()
        if child.returncode not in (0, DAMAGED):
            log.warning("memory_not_looked_through", extra={"code": child.returncode})
        return said if child.returncode == DAMAGED else None

    def close(self) -> None:
        """End it; the next start has to look again only where the memory is not closed either."""
        self.needed = False
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def main(path: str, *options: str) -> int:
    """Print what is damaged; the exit code."""
    os.nice(19)
    if _WITH_STDIN in options:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    with closing(open_as_it_is(Path(path))) as connection:
        found = damage(connection)
    for finding in found[:_TOLD]:
        print(f"{finding.epoch}:{finding.lane}:{finding.seq}: {finding.what}" if finding.epoch else finding.what)
    return DAMAGED if found else 0


def _end_with_stdin() -> None:
    os.read(0, 1)  # of the file's number: a lock of `sys.stdin` would be held when the interpreter ends
    os._exit(_ORPHANED)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
