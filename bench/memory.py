"""Memory as the kernel counts it."""

from pathlib import Path


def status_mb(field: str, pid: int | str = "self") -> float:
    """A field of /proc/PID/status: VmRSS is what a process holds, VmHWM the most that it ever held."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:"))) / 1024
