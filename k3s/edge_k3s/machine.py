"""What this machine is, as far as a node has to be: read from the kernel, below a prefix where it does not run yet."""

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

_ARCHES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_NODE_FILES = ("etc/edge-agent/kit.env", "var/lib/edge-agent-kit/kept.env")
"""Of a site that is installed, and of one that was taken away and whose memory is still here."""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """A machine that may become a node."""

    arch: str
    cores: int
    memory_mb: int
    disk_mb: int
    """Free, where k3s keeps its data."""
    disk_path: str
    has_route: bool
    site: str | None
    """Whose node it is already, or whose memory is on it; None: nobody's."""


def read_machine(root: Path = Path("/")) -> MachineFacts:
    """This machine; `root`: where its file system begins."""
    proc = root / "proc"
    disk = root / "var" / "lib"
    while not disk.is_dir():
        disk = disk.parent
    return MachineFacts(
        arch=_ARCHES.get(platform.machine(), platform.machine()),
        cores=_lines(proc / "cpuinfo", "processor") or os.cpu_count() or 1,
        memory_mb=_memory_mb(proc / "meminfo"),
        disk_mb=shutil.disk_usage(disk).free // 2**20,
        disk_path=str(disk),
        has_route=_has_route(proc / "net"),
        site=next(filter(None, (_site(root / name) for name in _NODE_FILES)), None),
    )


def _memory_mb(path: Path) -> int:
    for line in _text(path).splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return 0


def _has_route(net: Path) -> bool:
    """Source: the kernel's route (destination, mask) and ipv6_route (destination, length, device)."""
    v4 = (line.split() for line in _text(net / "route").splitlines()[1:])
    v6 = (line.split() for line in _text(net / "ipv6_route").splitlines())
    return any(len(row) > 7 and row[1] == row[7] == "00000000" for row in v4) or any(
        len(row) > 9 and not row[0].strip("0") and row[1] == "00" and row[-1] != "lo" for row in v6
    )


def _site(path: Path) -> str | None:
    names = [line.removeprefix("SITE=") for line in _text(path).splitlines() if line.startswith("SITE=")]
    return names[0] if names else None


def _lines(path: Path, start: str) -> int:
    return sum(line.startswith(start) for line in _text(path).splitlines())


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
