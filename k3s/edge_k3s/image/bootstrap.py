"""A Debian root file system to take a base from, by mmdebstrap: packages are unpacked, and nothing of them is run.

So one for another processor needs no emulator, and no service of a package is started.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from edge_k3s.image.target import Platform
from edge_models.errors import ConfigError, RejectedError

SUITE = "bookworm"
"""Debian 12: the oldest whose Python (3.11) the kit runs on, so that wheels for it are the most common."""

PACKAGES = (
    "base-files",
    "ca-certificates",
    "libpython3-stdlib",
    "libstdc++6",
    "netbase",
    "python3-minimal",
    "tzdata",
)
"""What a base with Python needs; mmdebstrap adds what these require."""

_NOTE = """\
set -eu
cd "$1"
mkdir -p var/lib/dpkg/info
for deb in var/cache/apt/archives/*.deb; do
  name=$(dpkg-deb --field "$deb" Package)
  { dpkg-deb --field "$deb"; echo; } >>var/lib/dpkg/status
  dpkg-deb --fsys-tarfile "$deb" | tar --list | sed -n 's,^\\.\\(/.*[^/]\\)$,\\1,p' >var/lib/dpkg/info/$name.list
done
"""
"""Notes what dpkg would have noted, had it installed them. Runs on the machine that builds, beside the new root."""


def bootstrap(platform: Platform, more: tuple[str, ...], out: Path, suite: str = SUITE) -> None:
    """Write the tar of a new root with `PACKAGES` and `more`.

    Raises `ConfigError` where mmdebstrap is not installed, `RejectedError` where it fails.
    """
    program = shutil.which("mmdebstrap")
    if program is None:
        raise ConfigError("--base mmdebstrap: it is not installed (Debian: apt-get install mmdebstrap), or name a tar")
    with tempfile.TemporaryDirectory() as folder:
        hook = Path(folder) / "note"
        hook.write_text(_NOTE)
        command = [
            program,
            "--variant=extract",
            f"--architectures={platform.partition('/')[2]}",
            "--skip=check/qemu",
            "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
            f"--include={','.join((*PACKAGES, *more))}",
            f'--extract-hook=sh {hook} "$1"',
            suite,
            str(out),
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        out.unlink(missing_ok=True)
        last = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines() or [""]
        raise RejectedError(f"mmdebstrap could not make a root for {platform}: {last[0]}")
