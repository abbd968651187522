"""Looks through a memory after an unclean stop, in a process of its own: the site decides meanwhile.

`python -m edge_agent.memory.integrity MEMORY` says what is damaged, a line each, and exits with `DAMAGED`; it reads in
slices, at the lowest priority. A thread would take turns with the agents; a process costs the first decision nothing.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from edge_agent.memory.schema import reading
from edge_agent.memory.verify import damage

DAMAGED = 3
"""Exit code where something was found."""

AFTER_S = 5.0
"""After the start: the first decision is made by then."""

_TOLD = 5


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
                command = [sys.executable, "-m", "edge_agent.memory.integrity", str(self._path)]
                self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            return None
        if self._child.poll() is None:
            return None
        child, self._child, self.needed = self._child, None, False
        said = child.communicate()[0].decode(errors="replace").strip()
        return said if child.returncode == DAMAGED else None

    def close(self) -> None:
        """End it; the next start has to look again only where the memory is not closed either."""
        self.needed = False
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def main(path: str) -> int:
    """Print what is damaged; the exit code."""
    os.nice(19)
    with reading(Path(path)) as connection:
        found = damage(connection)
    for finding in found[:_TOLD]:
        print(f"{finding.epoch}:{finding.lane}:{finding.seq}: {finding.what}" if finding.epoch else finding.what)
    return DAMAGED if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
