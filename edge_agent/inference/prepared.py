"""Graphs as this machine wants them: optimised and packed once, then mapped from the disk at every start.

A copy is a folder below `PreparedGraphs`: the optimised graph, its packed weights, and what both are worth: a manifest
that names the machine they were made on and their sha256. A copy is a convenience. Whatever is wrong with one, the
session is made of the bundle's own graph, as if there were none.

`python -m edge_agent.inference.prepared FOLDER PROVIDER ...` makes one: in a process of its own, since it takes several
times the graph's size of memory for a moment, and a library that crashes there takes no site down.
"""

import contextlib
import errno
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort
import orjson

from edge_agent.inference.providers import ONLY_CPU, Providers
from edge_agent.inference.session import COPY_CONFIG, COPY_GRAPH, COPY_WEIGHTS, open_copy, open_session, write_copy
from edge_models.digests import Digest
from edge_models.durable import sync, sync_tree
from edge_models.errors import RejectedError
from edge_models.session import CONFIG, THREADS

log = logging.getLogger(__name__)

FOLDER = "prepared"
"""Of a site's data, beside its memory."""

MIN_BYTES = 2 * 1024 * 1024
"""Of a graph that gets a copy. What a copy saves of memory: 1 MB for a graph of 1 MB, 2 to 3 for 2 MB, 4 to 7 for 4 MB,
8 to 12 for 8 MB; making it takes half a second, once. Source: measured, docs/adr/0012-prepared-graphs.md."""

DISK, MEMORY = 4, 3
"""What must be free before a copy is made, in sizes of its graph, and `RESERVE_BYTES` beside that. Disk: two for the
copy, one for the graph meanwhile, and the next bundle of this size must still find room. Memory: the graph, its packed
weights, and some. Source: a peak of 230 MB for a graph of 88 MB, of which any such process takes 45."""

RESERVE_BYTES = 64 * 1024 * 1024

MAKE_TIMEOUT_S = 300.0
"""For what takes about a second for a graph of 90 MB."""

MAX_TRIES = 2
"""A copy whose making failed so often, or took the process down, is not tried again on this machine and version."""

_MANIFEST, _SOURCE = "manifest.json", "source.onnx"
_MAKING, _TRIES = ".making-", ".tries"

_CPU_KEYS = frozenset(
    {"vendor_id", "cpu family", "model", "model name", "flags"}
    | {"CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features"}
)
"""Lines of /proc/cpuinfo that say which kernels run, on x86 and on ARM."""


class PreparedGraphs:
    """The copies in one folder. Used by one thread at a time, and by one process: who holds the site's data."""

    def __init__(self, folder: Path, machine: Mapping[str, Any] | None = None, providers: Providers = ONLY_CPU) -> None:
        """The folder is made when it is needed. `machine`: what copies depend on beside their graph and `providers`,
        on which all sessions run.
        """
        self._folder = folder
        self.providers = providers
        self._machine = {**(machine or this_machine()), "providers": list(providers)}
        self._machine_name = _short(orjson.dumps(self._machine, option=orjson.OPT_SORT_KEYS))

    def open(self, digest: Digest, graph: bytes) -> Any:
        """A session of this bundle's graph: of its copy, made now if there is none, else of the graph itself.

        The bundle's digest names the graph: it was verified. Raises `RejectedError` where the graph cannot run.
        """
        if len(graph) < MIN_BYTES:
            return open_session(graph, self.providers)
        copy = self._folder / f"{_hex(digest)}.{self._machine_name}"
        try:
            session = self._session_of(copy, graph)
            if session is None:
                self._make(copy, graph)
                session = self._session_of(copy, graph)
        except (OSError, RejectedError, subprocess.SubprocessError) as error:
            log.warning("model_not_prepared", extra={"digest": digest, "reason": str(error)})
            session = None
        return open_session(graph, self.providers) if session is None else session

    def distrust(self, digest: Digest) -> bool:
        """The copies of this bundle answer wrongly: remove them, and make none again here. False: there are none."""
        found = [path for path in self._paths(digest) if path.is_dir() and _MAKING not in path.name]
        for copy in found:
            log.warning("prepared_copy_distrusted", extra={"digest": digest})
            with contextlib.suppress(OSError):
                _tries(copy).write_bytes(bytes(MAX_TRIES))
            _remove(copy)
        return bool(found)

    def keep_only(self, digests: Collection[str]) -> None:
        """Remove what is no copy of one of these bundles for this machine; never raises."""
        needed = {(_hex(digest), self._machine_name) for digest in digests}
        with contextlib.suppress(OSError):
            for path in list(self._folder.iterdir()):
                if tuple(path.name.split(".")[:2]) not in needed or _MAKING in path.name:
                    _remove(path)

    def _session_of(self, copy: Path, graph: bytes) -> Any | None:
        """The session of a copy that is, to the bit, what was made here; one that is not is removed.

        Every byte is read for that: the disk may have changed any since, and what is mapped afterwards are the pages
        that were read here.
        """
        if not copy.exists():
            return None
        with contextlib.suppress(OSError):
            optimised = (copy / COPY_GRAPH).read_bytes()
            if (copy / _MANIFEST).read_bytes() == self._manifest(copy, graph, optimised):
                return open_copy(optimised, copy, self.providers)
        log.warning("prepared_copy_damaged", extra={"copy": copy.name})
        _remove(copy)
        return None

    def _make(self, copy: Path, graph: bytes) -> None:
        """Make a copy whole, or not at all. Raises `RejectedError`, `OSError`, `subprocess.SubprocessError`."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for what, times, free in (
            ("disk", DISK, shutil.disk_usage(self._folder).free),
            ("memory", MEMORY, free_memory_bytes()),
        ):
            if free < times * len(graph) + RESERVE_BYTES:
                raise RejectedError(f"too little {what} is free to make a copy of {len(graph)} bytes: {free}")
        with _counted(copy), _made_aside(copy) as folder:
            (folder / _SOURCE).write_bytes(graph)
            done = subprocess.run(
                # Without -P the folder it is started in would come before the kit's own.
                [sys.executable, "-P", "-m", "edge_agent.inference.prepared", str(folder), *self.providers],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=MAKE_TIMEOUT_S,
                check=False,
            )
            (folder / _SOURCE).unlink()
            if done.returncode != 0:
                if shutil.disk_usage(folder).free < RESERVE_BYTES:
                    raise OSError(errno.ENOSPC, "the disk was full before a copy was made")
                said = done.stderr.decode(errors="replace").strip().splitlines()
                raise RejectedError(f"making a copy ended with {done.returncode}: {said[-1] if said else ''}")
            optimised = (folder / COPY_GRAPH).read_bytes()
            (folder / _MANIFEST).write_bytes(self._manifest(folder, graph, optimised, copy.name))

    def _manifest(self, folder: Path, graph: bytes, optimised: bytes, name: str = "") -> bytes:
        """What a copy is: the same copy always gives the same bytes."""
        said = {
            "copy": name or folder.name,
            "of_bytes": len(graph),
            "files": {COPY_GRAPH: hashlib.sha256(optimised).hexdigest(), COPY_WEIGHTS: _sha256(folder / COPY_WEIGHTS)},
            "machine": self._machine,
        }
        return orjson.dumps(said, option=orjson.OPT_SORT_KEYS)

    def _paths(self, digest: Digest) -> list[Path]:
        with contextlib.suppress(OSError):
            return [path for path in self._folder.iterdir() if path.name.startswith(f"{_hex(digest)}.")]
        return []


def this_machine() -> dict[str, Any]:
    """What decides how a graph is optimised and packed, and which machine that was."""
    lines = _text(Path("/proc/cpuinfo")).splitlines()
    split = [tuple(part.strip() for part in line.partition(":")[::2]) for line in lines]
    # A set: most cores are alike, and a machine may have two kinds.
    return {
        "format": 1,
        "machine_id": _text(Path("/etc/machine-id")).strip(),
        "cpu": sorted({f"{key}: {value}" for key, value in split if key in _CPU_KEYS}) or [platform.processor()],
        "architecture": platform.machine(),
        "onnxruntime": [ort.__version__, ort.get_build_info()],
        "session": {**CONFIG, **COPY_CONFIG, "threads": str(THREADS)},
    }


def free_memory_bytes(root: Path = Path("/")) -> int:
    """What this process and its children may still take: of the machine's memory, and of the container's (cgroup 2).

    A kernel that is short of it ends the site itself, which does not come back any richer.
    """
    free = [int(line.split()[1]) * 1024 for line in _text(root / "proc/meminfo").splitlines() if "MemAvailable" in line]
    group = root / "sys/fs/cgroup"
    limit, taken = _text(group / "memory.max").strip(), _text(group / "memory.current").strip()
    if limit.isdecimal() and taken.isdecimal():
        # Files that are cached there count as taken, and give way.
        cached = [int(line.split()[1]) for line in _text(group / "memory.stat").splitlines() if "active_file" in line]
        free.append(int(limit) - int(taken) + sum(cached))
    return min(free, default=0)


@contextlib.contextmanager
def _counted(copy: Path) -> Iterator[None]:
    """Count a try that fails or never ends, but for want of disk. Raises `RejectedError` where it had its tries."""
    tries = _tries(copy)
    had = tries.stat().st_size if tries.exists() else 0
    if had >= MAX_TRIES:
        raise RejectedError(f"making a copy failed {had} times")
    # Before the try: one that takes the whole process down has to be counted too.
    tries.write_bytes(bytes(had + 1))
    try:
        yield
    except OSError:
        tries.unlink()
        raise
    tries.unlink()


@contextlib.contextmanager
def _made_aside(copy: Path) -> Iterator[Path]:
    """A folder that becomes the copy, at one instant and durably, once all is in it."""
    folder = Path(tempfile.mkdtemp(prefix=copy.name + _MAKING, dir=copy.parent))
    try:
        yield folder
        sync_tree(folder)
        folder.rename(copy)
        sync(copy.parent)
    finally:
        _remove(folder)


def _sha256(path: Path) -> str:
    """Read, not mapped: a sector that the disk can't give back must be an error here, and would end the process."""
    found, buffer = hashlib.sha256(), memoryview(bytearray(1024 * 1024))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            found.update(buffer[:size])
    return found.hexdigest()


def _tries(copy: Path) -> Path:
    return copy.with_name(copy.name + _TRIES)


def _remove(path: Path) -> None:
    """Sessions that have its files mapped keep them."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def main() -> int:
    """Make a copy of the graph in a folder, and open it once: what crashes, crashes here."""
    folder, providers = Path(sys.argv[1]), tuple(sys.argv[2:])
    os.nice(10)  # the agents go on meanwhile
    try:
        write_copy(folder / _SOURCE, folder, providers)
        if not (folder / COPY_WEIGHTS).exists():
            raise RejectedError("it has no weights that could be mapped")
        open_copy((folder / COPY_GRAPH).read_bytes(), folder, providers)
    except RejectedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
