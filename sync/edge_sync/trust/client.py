"""A site's view of what may run: python-tuf's own `Updater`, over a folder that anybody may have filled.

    folder/mirror/     the set that came last, by MQTT or USB, and could be verified
    folder/metadata/   what python-tuf has verified and keeps: versions never go back
    folder/floor       the highest time that was signed, UTC microseconds

Expiry gates accepting, never running: what runs is not asked about again.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from edge_models.durable import sync
from edge_models.errors import ConfigError, KitError, RejectedError, RetryableError
from edge_sync.trust.clock import as_datetime, raised, reference_us
from edge_sync.trust.collection import unpack
from edge_sync.trust.paths import KINDS, MAX_FILE_BYTES, MAX_FILES, OFFLINE, ONLINE, Kind, director_path, target_path

if TYPE_CHECKING:
    from tuf.api.metadata import Root, Targets
    from tuf.ngclient import Updater

_URL = "mirror:/"


@dataclass(frozen=True, slots=True)
class Trust:
    """One verified state."""

    versions: dict[str, int] = field(default_factory=dict)
    """Role → version."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Target path → bytes. All of `models/`, `policies/`, `agents/` and `director/`."""
    ends_us: int = 0
    """When the first of the offline signatures ends."""

    def allows(self, kind: Kind, digest: str, size: int | None = None) -> bool:
        """Whether the operator signed these bytes, and has not taken that back."""
        signed = self.sizes.get(target_path(kind, digest))
        return signed is not None and size in (None, signed)


class Trusted:
    """What a site trusts. Used by one thread, `directors` by any."""

    def __init__(self, folder: Path, root: bytes, now_us: Callable[[], int]) -> None:
        """`root` is the root metadata that the site was given by hand. Raises `ConfigError` where it is none."""
        self._mirror, self._metadata, self._floor_file = folder / "mirror", folder / "metadata", folder / "floor"
        self._root, self._now_us = root, now_us
        self._mirror.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._metadata.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._floor_us = _read_floor(self._floor_file)
        check_root(root)
        if (self._metadata / "root_history").exists() and not (self._metadata / "root.json").exists():
            with contextlib.suppress(KitError):  # a power cut between the two: python-tuf makes the link again
                self.refresh()
        self.directors: frozenset[str] = self._held_directors()
        """The public keys (ed25519, hex) whose word on what this site should run counts, as far as is known here."""

    @property
    def behind_us(self) -> int:
        """By how much this machine's clock is surely behind."""
        now_us = self._now_us()
        return reference_us(now_us, self._floor_us) - now_us

    def take(self, message: bytes) -> Trust | None:
        """Verify a packed metadata set that came, and keep it in place of the one before; None where it is the same.

        Raises `RejectedError` with the reason: what came is dropped then, what it proved of itself (a new root) stays,
        and nothing goes back. Raises `RetryableError` where the disk is full.
        """
        files = unpack(message)
        if files == self._mirrored():
            return None
        trust = self._verify(files)  # before it is written: a flood of sets must not wear a flash card
        new = self._mirror.with_name("mirror.new")
        try:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(mode=0o700)
            for name, data in files.items():
                (new / name).write_bytes(data)
            shutil.rmtree(self._mirror)
            new.rename(self._mirror)
        except OSError as error:
            self._mirror.mkdir(exist_ok=True, mode=0o700)
            raise RetryableError(f"trust metadata: {error.strerror}") from None
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return trust

    def held(self) -> Trust:
        """What was verified last, whatever its age; nothing where there is none."""
        try:
            return self._state()
        except Exception:  # noqa: BLE001 - nothing came yet, or a power cut left half of it: the next set mends that
            return Trust()

    def refresh(self) -> Trust:
        """What is trusted, as of now: what was fresh when it came may be expired. Raises as `take`."""
        return self._verify(self._mirrored())

    def _mirrored(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self._mirror.iterdir()}

    def _verify(self, files: Mapping[str, bytes]) -> Trust:
        try:
            with _refusing("metadata"):
                updater = self._updater(files)
                updater.refresh()
                for kind in KINDS:  # loads the role; what it names is read from its file below
                    updater.get_targetinfo(target_path(kind, "0" * 64))
        finally:
            _sync(self._metadata)
            self.directors = self._held_directors()
        return self._state()

    def heard_time(self, signed_us: int, trust: Trust) -> None:
        """A time that the hub signed: it is not earlier than that."""
        floor_us = raised(self._floor_us, signed_us, trust.ends_us)
        if floor_us == self._floor_us:
            return
        self._floor_us = floor_us
        new = self._floor_file.with_name("floor.new")
        with contextlib.suppress(OSError):  # a full disk: it is kept in memory until the next one
            new.write_text(f"{floor_us}\n")
            new.replace(self._floor_file)

    def _updater(self, files: Mapping[str, bytes]) -> "Updater":
        from tuf.ngclient import Updater, UpdaterConfig  # noqa: PLC0415 - 3 MB that only an update needs

        limits = UpdaterConfig(
            max_root_rotations=MAX_FILES,
            max_delegations=len(KINDS) + 1,
            root_max_length=MAX_FILE_BYTES // 16,
            snapshot_max_length=MAX_FILE_BYTES // 16,
            targets_max_length=MAX_FILE_BYTES,
        )
        fetcher = _fetcher(files)
        updater = Updater(str(self._metadata), _URL, fetcher=fetcher, config=limits, bootstrap=self._root)
        # python-tuf has no public clock. Pinned to tuf 7.0; a test fails where this no longer holds.
        reference = as_datetime(reference_us(self._now_us(), self._floor_us))
        updater._trusted_set.reference_time = reference
        return updater

    def _state(self) -> Trust:
        """What the files say that were just verified."""
        from tuf.api.metadata import Metadata, Targets  # noqa: PLC0415

        versions: dict[str, int] = {}
        sizes: dict[str, int] = {}
        ends = []
        for role in (*OFFLINE, *ONLINE):
            signed = Metadata.from_file(str(self._metadata / f"{role}.json")).signed
            versions[role] = signed.version
            if role in OFFLINE:
                ends.append(signed.expires)
            if isinstance(signed, Targets):
                mine = "director/" if role == "targets" else f"{role}/"
                sizes |= {path: file.length for path, file in signed.targets.items() if path.startswith(mine)}
        return Trust(versions, sizes, round(min(ends).timestamp()) * 1_000_000)

    def _held_directors(self) -> frozenset[str]:
        """From the newest targets that were verified; whatever their age, as long as the root still names their key."""
        from tuf.api.metadata import Metadata  # noqa: PLC0415

        try:
            root: Metadata[Root] = Metadata.from_file(str(self._metadata / "root.json"))
            targets: Metadata[Targets] = Metadata.from_file(str(self._metadata / "targets.json"))
            root.signed.verify_delegate("targets", targets.signed_bytes, targets.signatures)
        except Exception:  # noqa: BLE001 - there is none yet, or none that holds any more
            return frozenset()
        prefix = director_path("")
        return frozenset(path.removeprefix(prefix) for path in targets.signed.targets if path.startswith(prefix))


def check_root(root: bytes) -> None:
    """Raises `ConfigError` where these bytes are no root of trust that signs itself."""
    from tuf.api.metadata import Metadata, Root  # noqa: PLC0415

    try:
        with _refusing("root"):
            metadata: Metadata[Root] = Metadata.from_bytes(root)
            metadata.signed.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
    except RejectedError as error:
        raise ConfigError(str(error)) from None


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Whatever hostile metadata provokes in there is one refusal; a disk that fails is none."""
    from tuf.api.exceptions import DownloadError, ExpiredMetadataError, RepositoryError  # noqa: PLC0415

    try:
        yield
    except ExpiredMetadataError as error:
        raise RejectedError(f"trust {what}: {error}: nothing new is accepted, what runs runs on") from None
    except DownloadError as error:
        raise RejectedError(f"trust {what}: {error}") from None
    except RepositoryError as error:
        raise RejectedError(f"trust {what}: {str(error)[:300]}") from None
    except OSError as error:
        raise RetryableError(f"trust {what}: {error.strerror}") from None
    except Exception as error:  # noqa: BLE001
        raise RejectedError(f"trust {what}: {type(error).__name__}: {str(error)[:200]}") from None


def _fetcher(files: Mapping[str, bytes]):  # type: ignore[no-untyped-def]
    from tuf.api.exceptions import DownloadHTTPError  # noqa: PLC0415
    from tuf.ngclient import FetcherInterface  # noqa: PLC0415

    class SetFetcher(FetcherInterface):
        """Whatever the set does not hold is a 404, which walking the roots needs."""

        def _fetch(self, url: str) -> Iterator[bytes]:
            name = unquote(url.removeprefix(_URL))
            if name not in files:
                raise DownloadHTTPError(f"there is no {name}", 404)
            return iter([files[name]])

    return SetFetcher()


def _sync(folder: Path) -> None:
    """Durable before anything rests on it: else a power cut could bring older versions back."""
    for path in [*folder.rglob("*.json"), folder / "root_history", folder]:
        with contextlib.suppress(FileNotFoundError):
            sync(path)


def _read_floor(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
