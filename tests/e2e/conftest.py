"""Images built once a run, and podman with a store of its own."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from containers import Podman, Workshop, cannot, need, wait_until

from edge_agent.inference.prepared import free_memory_bytes

STORE_BYTES = 3 * 1024**3
"""The most that a store may take; the roles' images take 0.3 GB, with a builder it is more."""


@pytest.fixture
def until() -> Callable[..., Any]:
    """Waits for a condition: `until(condition, what_it_is)`."""
    return wait_until


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The run's own: of one process, or of all that pytest-xdist started; or kept for who works on these tests."""
    if kept := os.environ.get("EDGE_TESTS_IMAGES"):
        return Workshop(Path(kept))
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "images"
    folder.mkdir(exist_ok=True)
    return Workshop(folder)


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """podman, where this machine lets root run containers."""
    need("podman", "runc")
    if os.getuid() != 0:
        cannot("containers are run as root here")
    folder = Path(tempfile.mkdtemp(prefix="edge-podman-"))
    with in_memory(folder):
        made = Podman(folder)
        yield made
        made.remove_all()
        # The store holds mounts, which have to go first.
        made.run("system", "reset", "--force", code=None)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def in_memory(folder: Path) -> Iterator[None]:
    """A folder of many files that are read once keeps a disk busy for longer than all else here: not on a disk, then,
    where this machine has the memory to spare.
    """
    words = ["mount", "-t", "tmpfs", "-o", f"size={STORE_BYTES},mode=700", "edge-podman", str(folder)]
    if free_memory_bytes() < 2 * STORE_BYTES or subprocess.run(words, capture_output=True, check=False).returncode:
        yield
        return
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
