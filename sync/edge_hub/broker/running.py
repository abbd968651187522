"""Which broker process runs on a folder: `broker.json`, and whether what it says is still true."""

import json
import os
import signal
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from edge_hub.files import write_private

Kind = Literal["mosquitto", "amqtt"]

FILE = "broker.json"


@dataclass(frozen=True, slots=True)
class Running:
    """A broker process. `born` tells it from a later process with the same pid."""

    kind: Kind
    port: int
    pid: int
    born: str

    def alive(self) -> bool:
        """Whether that very process still runs."""
        return bool(self.born) and process_born(self.pid) == self.born

    def reload(self) -> bool:
        """Make it read its users again. False where it is gone."""
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGHUP)
                return True
        return False


def note_running(folder: Path, running: Running) -> None:
    """Leave word of a broker that is ready."""
    write_private(folder / FILE, json.dumps(asdict(running)).encode() + b"\n")


def last_run(folder: Path) -> Running | None:
    """The broker that was last started on this folder, whether or not it still runs."""
    try:
        return Running(**json.loads((folder / FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def find_running(folder: Path) -> Running | None:
    """The broker that runs on this folder now."""
    running = last_run(folder)
    return running if running is not None and running.alive() else None


def process_born(pid: int) -> str:
    """When the process began, as an opaque text; empty where there is none (a zombie is none)."""
    try:
        # The name in parentheses may hold anything, spaces too: what follows is counted from its end.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _without_proc(pid)
    return "" if fields[0] in ("Z", "X") else fields[19]


def _without_proc(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "unknown"
