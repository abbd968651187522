"""What the authority keeps of its own, beside its keys: which certificates it issued, and which no longer count.

A hub that is restored from a backup has forgotten the newest of both; this folder has not, and nothing here is ever
taken out but what ended long ago by itself.
"""

import json
import os
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_hub.files import write_private
from edge_models.durable import sync
from edge_models.errors import ConfigError
from edge_sync.enrol.certificate import RECOVER_DAYS

REVOKED, ISSUED = "revoked.json", "issued.jsonl"

_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate: `key` is the sha256 of its public key, hex. Times are UTC microseconds."""

    serial: str
    site: str
    key: str
    issued_us: int
    ends_us: int


@dataclass(frozen=True, slots=True)
class Revoked:
    """That a certificate no longer counts, since when and why."""

    serial: str
    site: str
    at_us: int
    reason: str


class Ledger:
    """The two files in an authority's folder; for any thread of the one process that has the hub."""

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._revoked, self._issued = folder / REVOKED, folder / ISSUED

    def revoked(self) -> dict[str, Revoked]:
        """By serial. Raises `ConfigError` for a damaged file: to go on without it would let a thief in."""
        return read_revoked(self._revoked)

    def revoke(self, more: Iterable[Revoked]) -> None:
        """These no longer count, durably; what was said of one before stays. Raises `OSError`."""
        with self._lock:
            known = self.revoked()
            merged = {each.serial: each for each in more} | known
            if len(merged) > len(known):
                _write(self._revoked, merged)

    def note(self, issued: Issued) -> None:
        """One was issued, durably. Raises `OSError`."""
        with self._lock:
            self._add(issued)

    def _add(self, issued: Issued) -> None:
        line = json.dumps(asdict(issued), separators=(",", ":")).encode() + b"\n"
        new = not self._issued.exists()
        fd = os.open(self._issued, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            end = os.lseek(fd, 0, os.SEEK_END)
            if end and os.pread(fd, 1, end - 1) != b"\n":  # a line that a power cut tore: it must not tear this one too
                line = b"\n" + line
            os.write(fd, line)
            os.fsync(fd)
        finally:
            os.close(fd)
        if new:
            sync(self._issued.parent)

    def issued(self) -> list[Issued]:
        """All that were issued, in order. A torn line was never answered with, and is passed over."""
        try:
            lines = self._issued.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ConfigError(f"authority: {self._issued}: {error.strerror}") from None
        found = []
        for line in lines:
            try:
                found.append(Issued(**json.loads(line)))
            except (ValueError, TypeError):
                continue
        return found

    def forget(self, now_us: int) -> None:
        """Take out what was issued and ended so long ago that nobody recovers with it."""
        with self._lock:
            issued = self.issued()
            kept = [each for each in issued if each.ends_us + (RECOVER_DAYS + 1) * _DAY_US > now_us]
            if len(kept) < len(issued):
                lines = [json.dumps(asdict(each), separators=(",", ":")) + "\n" for each in kept]
                write_private(self._issued, "".join(lines).encode())


def read_revoked(path: Path) -> dict[str, Revoked]:
    """The list in this file, empty where there is none. Raises `ConfigError` for a damaged one."""
    try:
        return {each["serial"]: Revoked(**each) for each in json.loads(path.read_bytes())["revoked"]}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"authority: {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"authority: {path}: damaged ({type(error).__name__}): take it from a copy") from None


def _write(path: Path, revoked: dict[str, Revoked]) -> None:
    listed = [asdict(each) for each in sorted(revoked.values(), key=lambda each: (each.at_us, each.serial))]
    write_private(path, json.dumps({"revoked": listed}, indent=1).encode() + b"\n")
