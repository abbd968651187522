"""Images built once by the command itself, and podman with a store of its own, for tests that run them.

What the machine can't do is skipped with its reason; with EDGE_TESTS_NEED_CONTAINERS=1 it fails instead.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from edge_k3s.image.bootstrap import bootstrap
from edge_k3s.image.target import Platform

ROOT = Path(__file__).parents[2]
EDGE_AGENT = [sys.executable, "-m", "edge_cli.main"]
HERE: Platform = "linux/amd64"
"""Whose containers run here."""

LEVEL = "3"
"""Of zstd: the strongest takes two minutes an image, and only its size is another."""

LOCKED_DOWN = ("--read-only", "--cap-drop", "ALL", "--user", "10001", "--security-opt", "no-new-privileges")

_CONTAINERS = """\
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=16384:16384"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
"""
"""runc, since crun refuses hybrid cgroups; limits, since raising them may not be allowed; locks apart from others'."""


def cannot(reason: str) -> NoReturn:
    """What was to be shown can't be here."""
    if os.environ.get("EDGE_TESTS_NEED_CONTAINERS") == "1":
        pytest.fail(f"{reason}, and EDGE_TESTS_NEED_CONTAINERS is 1")
    pytest.skip(reason)


def need(*programs: str) -> None:
    """Skips where one of these is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        cannot(f"{' and '.join(missing)} not installed")


def wait_until(true: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Wait for a condition, and return what it says."""
    deadline = time.monotonic() + seconds
    while not (value := true()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.1)
    return value


def edge_agent(*words: object, code: int = 0, environment: Mapping[str, str] | None = None) -> str:
    """An `edge-agent` command as people type it, with these variables beside ours; what it printed."""
    done = subprocess.run(
        [*EDGE_AGENT, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@dataclass(frozen=True, slots=True)
class Built:
    """An image on the disk, and what the command said of it."""

    path: Path
    said: dict[str, Any]

    @property
    def reference(self) -> str:
        """NAME:TAG."""
        return str(self.said["reference"])


class Workshop:
    """Bases, wheels and images, each made when first asked for; the processes of one run share them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def base(self, platform: Platform = HERE) -> Path:
        """A Debian root: for this machine with what every role has, for another as the command makes it for a site."""
        need("mmdebstrap")
        path = self.folder / f"{platform.replace('/', '-')}.tar"
        with self._alone():
            if not path.exists() and platform == HERE:
                bootstrap(platform, ("haproxy", "mosquitto"), path)
            elif not path.exists():
                edge_agent("image", "base", "--platform", platform, "--out", path)
        return path

    def wheels(self, platform: Platform = HERE) -> Path:
        """All that a hub needs; for another machine, that a site does."""
        base, path = self.base(platform), self.folder / f"{platform.replace('/', '-')}-wheels"
        role = "hub" if platform == HERE else "site"
        with self._alone():
            if not path.exists():
                part = path.with_suffix(".part")
                edge_agent("image", "wheels", "--role", role, "--platform", platform, "--base", base, "--out", part)
                part.rename(path)
        return path

    def image(self, role: str, platform: Platform = HERE) -> Built:
        """The image of a role."""
        path = self.folder / f"{role}-{platform.replace('/', '-')}-image.tar"
        base, said = self.base(platform), path.with_suffix(".json")
        wheels = ("--wheels", self.wheels(platform)) if role in ("site", "hub") else ()
        with self._alone():
            if not said.exists():
                words = ("--role", role, "--platform", platform, "--base", base, *wheels, "--level", LEVEL, "--json")
                said.write_text(edge_agent("image", "build", *words, "--out", path))
        return Built(path, json.loads(said.read_text()))

    def _alone(self) -> "_Lock":
        return _Lock(self.folder / "lock")


class _Lock:
    """One process at a time."""

    def __init__(self, path: Path) -> None:
        self._path, self._fd = path, -1

    def __enter__(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


class Podman:
    """podman, with images, containers and settings in a folder of its own, whose path it wants short."""

    def __init__(self, folder: Path) -> None:
        self.settings = folder / "containers.conf"
        self.settings.write_text(_CONTAINERS)
        self._where = ("--root", folder / "store", "--runroot", folder / "run", "--tmpdir", folder / "tmp")

    def run(self, *words: object, code: int | None = 0) -> str:
        """A podman command; what it printed. `code` None: whatever it ends with."""
        done = self._run(*words)
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return (done.stdout + done.stderr).strip()

    def ends(self, *words: object) -> int:
        """A podman command; its exit code."""
        return self._run(*words).returncode

    def load(self, built: Built) -> str:
        """Load an image; its name."""
        self.run("load", "--quiet", "--input", built.path)
        return built.reference

    def start(self, name: str, image: str, *words: object, options: tuple[object, ...] = ()) -> None:
        """Start a container that stays."""
        self.run("run", "--detach", "--name", name, *LOCKED_DOWN, *options, image, *words)

    def logs(self, name: str) -> str:
        """All a container said."""
        return self.run("logs", name)

    def state(self, name: str) -> dict[str, Any]:
        """Whether and how it runs."""
        return dict(json.loads(self.run("inspect", "--format", "{{json .State}}", name)))

    def remove_all(self) -> None:
        """End and forget every container and volume."""
        for what in (
            ("rm", "--all", "--force", "--time", "0"),
            ("pod", "rm", "--all", "--force"),
            ("volume", "prune", "-f"),
        ):
            self._run(*what)

    def _run(self, *words: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["podman", *map(str, self._where), *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"CONTAINERS_CONF": str(self.settings)},
        )
